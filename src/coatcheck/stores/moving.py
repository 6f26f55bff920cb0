"""Moving sessions from one store to another: it may be killed at any moment and begun again, and dead stays dead.

    mend    remove from the target what is damaged there, if an earlier run has been here
    fill    bring every record of the source to the target: make it, or make it like the source's
    tidy    remove from the target what the source has no more, and compare all the rest once more

Nobody uses the target before all of this is done (`coatcheck.stores.moving_state` sees to that). A run that is killed
leaves some records in the target; the next one finds them there, and brings over what has changed in the source
since. That a session was signed out between two runs shows in `tidy` only: it is in the target and not in the source
any more (P1).

What `tidy` still finds to be different has changed in the source since `fill`: somebody is using it. Then the move is
not finished, for what is signed out there a moment later would live on here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

import msgspec

from coatcheck.clock import Clock
from coatcheck.core.record import Record
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.store import Page, Store, Walkable

T = TypeVar("T")

_AT_ONCE: Final = 64


class WalkableStore(Store, Walkable, Protocol):
    """A store that can be walked."""


class Step(NamedTuple):
    """How far it has come: `done` of about `of` records; it is over when both are the same."""

    what: str
    done: int
    of: int


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the records."""

    copied: int = 0
    same: int = 0
    """They were there already, from an earlier run."""
    changed: int = 0
    """They were there, and were brought up to date."""
    removed: int = 0
    """They were there, and the source has ended them since."""
    expired: int = 0
    """They are dead, and were left behind."""
    damaged: set[str] = field(default_factory=set[str])
    """Ids that nobody can read in the source."""
    refused: set[str] = field(default_factory=set[str])
    """Ids that the target did not take: their subject was signed out everywhere there, within the last day."""


class Moving:
    """Copies the records of one store to another.

    Args:
        source: from where.
        target: to where; both are open.
        confirm: called before each small portion; raises if this run must not go on.
        tell: is told how far it has come.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self,
        source: WalkableStore,
        target: WalkableStore,
        *,
        confirm: Callable[[], Awaitable[None]],
        tell: Callable[[Step], None],
        clock: Clock,
    ) -> None:
        self._source, self._target = source, target
        self._confirm, self._tell, self._clock = confirm, tell, clock
        self.tally = Tally()

    async def mend(self) -> None:
        """Remove what is damaged in the target: it is copied anew.

        Raises:
            StoreUnavailable
        """
        async for page in self._pages(self._target, "looking for damage"):
            for id in page.damaged:
                with suppress(StoreUnavailable):  # that it was damaged
                    await self._target.delete(id)

    async def fill(self) -> None:
        """Bring every record to the target that can still be used.

        Raises:
            StoreUnavailable
        """
        async for page in self._pages(self._source, "copying sessions"):
            self.tally.damaged.update(page.damaged)
            now = self._clock()
            living = [record for record in page.records if _lives(record, now)]
            self.tally.expired += len(page.records) - len(living)
            await self._each(living, self._bring)

    async def tidy(self) -> Tally:
        """Make the target like the source in what it has, and return what that took: nothing, if nothing changed.

        Raises:
            StoreUnavailable
        """
        found = Tally()
        async for page in self._pages(self._target, "checking"):
            now = self._clock()
            living = [record for record in page.records if _lives(record, now)]
            await self._each(living, lambda record: self._check(record, found))
        self.tally.changed += found.changed
        self.tally.removed += found.removed
        return found

    async def ids(self, what: str) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of all that the source has, the damaged ones among them, some hundreds at a time.

        Args:
            what: is done with them, for whoever is told how far it has come.

        Raises:
            StoreUnavailable
        """
        async for page in self._pages(self._source, what):
            await self._confirm()
            yield [*(record.id for record in page.records), *page.damaged]

    async def _bring(self, record: Record) -> None:
        there = await self._target.load(record.id)
        if there == record:
            self.tally.same += 1
        elif there is not None:
            self.tally.changed += 1
            await self._make_like(there, record)
        elif await self._create(record):
            self.tally.copied += 1

    async def _check(self, there: Record, found: Tally) -> None:
        # A damaged one is nobody's, and cannot be asked for.
        record = None if there.id in self.tally.damaged else await self._source.load(there.id)
        if record is None:
            found.removed += 1
            await self._confirm()
            await self._target.delete(there.id)
        elif record != there:
            found.changed += 1
            await self._make_like(there, record)

    async def _make_like(self, there: Record, record: Record) -> None:
        await self._confirm()
        if _only_touched(there, record):
            await self._target.touch(record.id, record.seen_at, record.expires_at)
            return
        # Not `replace`, which goes one version at a time: there may have been thousands. Nobody sees the gap, and a
        # run that is killed in it finds the record missing the next time.
        await self._target.delete(record.id)
        await self._create(record)

    async def _create(self, record: Record) -> bool:
        # Once more, before each write: if this run was stopped meanwhile, another one may have finished, and what is
        # missing in the target may have been ended there (P1).
        await self._confirm()
        if await self._target.create(record) or await self._target.load(record.id) == record:
            return True
        self.tally.refused.add(record.id)
        return False

    async def _pages(self, store: WalkableStore, what: str) -> AsyncIterator[Page]:
        done, of = 0, await store.size()
        self._tell(Step(what, done, of))
        async with aclosing(cast("Any", store.walk())) as pages:
            async for page in pages:
                yield page
                done += len(page.records) + len(page.damaged)
                self._tell(Step(what, done, of))
        self._tell(Step(what, done, done))

    async def _each(self, records: Sequence[Record], work: Callable[[Record], Coroutine[Any, Any, None]]) -> None:
        for some in portions(records, _AT_ONCE):
            await self._confirm()
            await together(work(record) for record in some)


def walkable(store: Store) -> WalkableStore:
    """Return the store, if it can be walked.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(store, Walkable):
        raise ConfigurationError("this store cannot tell what is in it: it is no `coatcheck.store.Walkable`")
    return cast("WalkableStore", store)


def portions(things: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return the things, some at a time."""
    return [things[start : start + size] for start in range(0, len(things), size)]


async def together(works: Iterable[Awaitable[None]]) -> None:
    """Do several things at once, all of them to their end, and raise what the first one raised that did."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _lives(record: Record, now: int) -> bool:
    """Say whether a record can still be of use; stumps are, to requests in flight."""
    return now < record.expires_at and now < record.ends_at


def _only_touched(there: Record, record: Record) -> bool:
    """Say whether `touch` makes the one of the other."""
    later = there.seen_at <= record.seen_at and there.expires_at <= record.expires_at
    same = msgspec.structs.replace(there, seen_at=record.seen_at, expires_at=record.expires_at) == record
    return later and same and record.successor is None
