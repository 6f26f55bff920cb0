"""Store: where records live. Eight methods, and what each of them promises.

Stores hold SQL, Lua or files, and encoding; never policy, never a clock. Two rules make the product's promises
properties of the desks above instead of five stores:

- `replace` is a compare-and-swap on `version`, and neither it nor `touch` ever creates a record;
- what `delete` or `revoke_subject` has removed stays removed, whatever is under way.

A record that was damaged is nobody's: `load`, `list` and `delete` raise StoreUnavailable instead of guessing, in words
that begin with `DAMAGED`, but `delete` and `revoke_subject` remove it all the same, for dead is final.

Every method may raise StoreUnavailable, and nothing else of its driver's. `coatcheck.testing.StoreContract` is
this text as tests.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from coatcheck.core.record import Record

Durability = Literal["volatile", "crash-safe", "power-safe", "failover-safe"]
"""What an acknowledged write survives: nothing; `kill -9`; a power cut; the loss of the primary."""

DAMAGED: Final = "store damaged"

# A compare-and-swap that is lost this often is not racing, it is starving; its caller is told so instead of waiting for
# ever (P9).
MAX_ATTEMPTS: Final = 2000


@runtime_checkable
class Store(Protocol):
    """The protocol of a store. Ids are what `coatcheck.core.credentials` calls a valid session id."""

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives."""
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

    async def create(self, record: Record) -> bool:
        """Store a new record, durably.

        Returns False, and stores nothing, if the id exists or cannot be one, or if `record.created_at` is before
        the subject's cut-off: a sign-in that began before "sign out everywhere" must not survive it.
        """
        ...

    async def load(self, id: str) -> Record | None:
        """Return the record as last stored or touched, or None; an expired one may still be returned."""
        ...

    async def replace(self, record: Record) -> bool:
        """Store `record` where version `record.version - 1` of it is stored; durably; never creates.

        `seen_at` and `expires_at` never move backward, whatever the record says, except that `expires_at` of a
        record with a `successor` is stored as it is.
        Returns False, and stores nothing, if another version is stored, or another subject's, or none.
        """
        ...

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move a record's `seen_at` and `expires_at` forward; never backward, never creates, keeps the version.

        A record that has a `successor` is left alone. This is the one write that may be lost in a power cut.
        """
        ...

    async def delete(self, id: str) -> Record | None:
        """Remove a record, durably, and return what was removed; it wins over any later `replace` or `touch`.

        Removing and returning are one step: a sign-out that meets a rotation finds out where the session went.
        """
        ...

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return the subject's records, expired ones perhaps included: exactly those that `load` would return."""
        ...

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove all of the subject's records except `keep`, durably, and return the ids of those without `successor`.

        Whatever is stored when the call takes effect is removed, whatever its times say: clocks do not decide
        order (P7). From then on `create` refuses a record of the subject made before `before` (milliseconds
        since the epoch); a cut-off never moves backward.
        """
        ...

    async def sweep(self, now: int) -> int:
        """Remove records with `expires_at <= now`, in chunks, and return how many.

        Cut-offs older than a day are forgotten: no sign-in takes that long.
        """
        ...


class Page(NamedTuple):
    """Some of a store's records, as a walk comes by them."""

    records: tuple[Record, ...]
    damaged: tuple[str, ...] = ()
    """The ids of those that are there and cannot be read."""


@runtime_checkable
class Walkable(Protocol):
    """What a store can do besides, so that all of it can be moved to another one."""

    def walk(self) -> AsyncIterator[Page]:
        """Yield every record, the anonymous ones and the stumps among them, expired ones perhaps included.

        A record that is there during the whole walk is yielded at least once; one that comes, goes or changes
        meanwhile may be or may not be, as it was or as it is. A page has some hundreds of records at most.
        """
        ...

    async def size(self) -> int:
        """Return about how many records there are: good enough to show how far a walk has come."""
        ...


Recall = Callable[[str], Record | None]
"""Returns what is remembered of a session, as it was stored a moment ago, or None; no store is asked."""


def no_memory(session_id: str) -> None:
    """Remember nothing, so that the store is asked each time: a Recall."""
