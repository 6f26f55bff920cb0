"""One document of the server's: how it is packed, and the loop by which it is changed.

Every change reads, judges and commits, and whoever was beaten reads and judges again. Nothing is ever written on the
strength of something that had changed by then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from coatcheck.documents import Documents, pages
from coatcheck.errors import StoreUnavailable

T = TypeVar("T")

_FORMAT: Final = b"\x01"
# Of those who want to change one document at once, one gets on in every round: who loses this often is not racing,
# but starving, and is told so instead of waiting for ever (P9).
_MAX_ROUNDS: Final = 200
_PAGE: Final = 500


def pack(value: Any) -> bytes:
    """Return a value as a document, led by the format's version byte."""
    return _FORMAT + msgspec.msgpack.encode(value)


def unpack(stored: bytes, kind: type[T], what: str) -> T:
    """Return the value that `pack` was given.

    Args:
        stored: the document.
        kind: of the value.
        what: it is, in words, for the error.

    Raises:
        StoreUnavailable: a newer version has written it, or it is damaged.
    """
    if stored[:1] != _FORMAT:
        raise StoreUnavailable(f"{what} was written by a newer version of coatcheck")
    try:
        return msgspec.msgpack.decode(stored[1:], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StoreUnavailable(f"store damaged: {what} cannot be read") from None


async def until_committed(step: Callable[[], Awaitable[T | None]]) -> T:
    """Repeat a step, which reads, judges and commits, until it has; it returns None when somebody else was faster.

    Raises:
        StoreUnavailable: others were faster every time.
    """
    for _ in range(_MAX_ROUNDS):
        if (done := await step()) is not None:
            return done
    raise StoreUnavailable("too many writers at once")


async def every(documents: Documents, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield the documents whose keys begin so, and what follows the prefix in their keys.

    Raises:
        StoreUnavailable
    """
    async for page in pages(documents, prefix, _PAGE):
        for key, stored in page:
            yield key.removeprefix(prefix), stored
