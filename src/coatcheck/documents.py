"""Documents: small named documents that change together. What a server keeps besides sessions stands on them.

An account and the name that leads to it, the sealed keys, the sign-in attempts of an address: each is a few hundred
octets under a key, and the only way to change them is `commit`, a compare-and-swap over several of them at once. So
"this name is taken", "nobody was faster" and "not more than ten attempts" are decisions of whoever reads and commits,
the same in every store; and a store holds SQL or Lua and encoding, never policy.

Every method may raise StoreUnavailable, and nothing else of its driver's: also where what is stored was damaged.
After one from `commit` or `note` it is not known whether the writes were stored, so read again before you decide.
`coatcheck.testing.DocumentsContract` is this text as tests.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping
from typing import Final, Protocol, runtime_checkable

from coatcheck.errors import InvalidValue
from coatcheck.store import Durability

MAX_KEY: Final = 255
MAX_VALUE: Final = 65_536
MAX_KEYS: Final = 16
MAX_PAGE: Final = 1000
MAX_TIME: Final = 2**53 - 1

Values = Mapping[str, bytes | None]
"""What is stored under each key; None where nothing is."""


@runtime_checkable
class Documents(Protocol):
    """The protocol of a place for documents.

    A key is 1 to 255 octets of UTF-8 without NUL, a value at most 64 KiB, and one call names at most 16 keys, or
    it raises InvalidValue.
    """

    @property
    def durability(self) -> Durability:
        """What an acknowledged commit survives."""
        ...

    async def open(self) -> None:
        """Connect, and make the schema if it is not there; calling it again does nothing.

        Raises:
            StoreUnavailable: it cannot be reached.
            ConfigurationError: it was made by a newer version.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads; calling it again does nothing."""
        ...

    async def get(self, *keys: str) -> builtins.list[bytes | None]:
        """Return what is stored under the keys, in their order, as of one moment; an expired one may be among it."""
        ...

    async def commit(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Store `writes`, durably and as one step, if `expected` is what is stored; else return False.

        Args:
            expected: what was read, by key; None where nothing was. Keys that are not among them are not compared.
            writes: what to store, by key; None removes.
            expires_at: when the store may forget what this call wrote, in milliseconds since the epoch; without it,
                never, whatever an earlier call has said.
        """
        ...

    async def note(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Do the same without waiting for a disk or a replica.

        It survives the end of the process, and perhaps neither a power cut nor the death of a database's server. A
        later `commit` makes it durable as well.
        """
        ...

    async def page(self, prefix: str, after: str = "", limit: int = 500) -> builtins.list[tuple[str, bytes]]:
        """Return the documents whose keys begin with `prefix` and come after `after`, in the order of their octets.

        Documents with an `expires_at` are not among them. An empty prefix is everything; `limit` is 1 to 1000, and
        only the last page has fewer. Those that change meanwhile may be as before or as after.
        """
        ...

    async def sweep(self, now: int) -> int:
        """Remove documents with `expires_at <= now`, and return how many; where the server does it, 0."""
        ...


async def pages(
    documents: Documents, prefix: str, limit: int
) -> AsyncGenerator[builtins.list[tuple[str, bytes]], None]:
    """Yield the documents whose keys begin so, page by page; see `Documents.page`.

    Raises:
        StoreUnavailable
    """
    after, full = "", True
    while full:
        page = await documents.page(prefix, after, limit)
        yield page
        after, full = page[-1][0] if page else "", len(page) == limit


def check_keys(*keys: str) -> None:
    """Return if a call may name these keys (P9).

    Raises:
        InvalidValue: it may not; the message names the limit.
    """
    if len(set(keys)) > MAX_KEYS:
        raise InvalidValue(f"a call names at most {MAX_KEYS} documents")
    for key in keys:
        if not 0 < _length(key) <= MAX_KEY or "\0" in key:
            raise InvalidValue(f"a document's key is 1 to {MAX_KEY} octets of UTF-8 without NUL")


def check_writes(expected: Values, writes: Values, expires_at: int | None) -> None:
    """Return if a commit keeps within the limits (P9).

    Raises:
        InvalidValue: it does not; the message names the limit.
    """
    check_keys(*expected, *writes)
    if any(value is not None and len(value) > MAX_VALUE for value in (*expected.values(), *writes.values())):
        raise InvalidValue(f"a document has at most {MAX_VALUE} octets")
    if expires_at is not None and not 0 < expires_at <= MAX_TIME:
        raise InvalidValue(f"a document expires at 1 to {MAX_TIME} milliseconds since the epoch")


def page_bounds(prefix: str, after: str, limit: int) -> tuple[bytes, bytes]:
    """Return the octets that a page's keys are not less than, and those that they are less than.

    Raises:
        InvalidValue: the page may not be asked for (P9); the message names the limit.
    """
    if not (0 <= _length(prefix) <= MAX_KEY and 0 <= _length(after) <= MAX_KEY):
        raise InvalidValue(f"a page begins with at most {MAX_KEY} octets of UTF-8")
    if not 0 < limit <= MAX_PAGE:
        raise InvalidValue(f"a page has 1 to {MAX_PAGE} documents")
    first = prefix.encode()
    # Nothing lies between some octets and the same with a NUL; and no octet of UTF-8 is 0xFF.
    return max(first, after.encode() + b"\0"), first + b"\xff"


def _length(key: str) -> int:
    try:
        return len(key.encode())
    except UnicodeEncodeError:
        return -1
