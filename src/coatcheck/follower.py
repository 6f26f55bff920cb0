"""Follower: hears a feed without missing anything, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, NoReturn, Protocol

from coatcheck.clock import Clock, monotonic_clock
from coatcheck.core.revocation import Revocations
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch

# Seconds between two tries; of random length, so that the followers of a feed do not all try at once.
_PAUSES: Final = (0.1, 0.5)

_log = logging.getLogger("coatcheck")

Take = Callable[[Batch], None]
"""Takes a batch in. One that does not continue the last is a snapshot: everything that is still of use."""


class Heard(Protocol):
    """The half of a Feed that is heard."""

    async def snapshot(self, now: int) -> Batch:
        """See `Feed.snapshot`."""
        ...

    def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """See `Feed.follow`."""
        ...


class Follower:
    """Follows a feed. Whatever does not continue what was heard is a gap, and a snapshot fills it.

    Args:
        feed: opened, and closed, by somebody else.
        take: takes in what was heard, heartbeats included.
        clock: milliseconds since the epoch.
    """

    def __init__(self, feed: Heard, take: Take, clock: Clock) -> None:
        self._feed = feed
        self._take = take
        self._clock = clock
        self._position = 0
        self._trouble: str | None = None

    async def take_snapshot(self) -> None:
        """Take in everything that is still of use.

        Raises:
            StoreUnavailable: the feed cannot be heard.
        """
        self._hear(await self._feed.snapshot(self._clock()))

    async def begin(self) -> None:
        """Take the first snapshot, however often that has to be tried."""
        while not await self._tried(self.take_snapshot):
            pass

    async def follow(self) -> NoReturn:
        """Follow the feed from where the last snapshot ended, for ever."""
        while True:
            if await self._tried(self._until_gap):
                await self._tried(self.take_snapshot)

    async def _until_gap(self) -> None:
        async with aclosing(self._feed.follow(self._position)) as batches:
            async for batch in batches:
                if batch.after != self._position:
                    _log.warning("a gap in the feed: taking a snapshot")
                    return
                self._hear(batch)

    def _hear(self, batch: Batch) -> None:
        self._take(batch)
        self._position = batch.position
        self._trouble = None

    async def _tried(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Do a step, and say whether it was done; if not, after a pause."""
        try:
            await step()
        except StoreUnavailable as error:
            if str(error) != self._trouble:
                _log.warning("the feed cannot be heard; trying again: %s", error)
            self._trouble = str(error)
        except Exception:  # noqa: BLE001 - a follower that died would leave every token refused
            _log.exception("following the feed failed; trying again")
        else:
            return True
        await asyncio.sleep(random.uniform(*_PAUSES))  # noqa: S311 - it spreads load, and guards nothing
        return False


def into(revocations: Revocations, clock: Clock) -> Take:
    """Return what takes batches into a set of revocations, and notes when they were heard."""

    def take(batch: Batch) -> None:
        for revoked in batch.revoked:
            revocations.apply(revoked)
        revocations.prune(clock())
        revocations.position = batch.position
        revocations.heard_at = monotonic_clock() if batch.heard_at is None else batch.heard_at

    return take
