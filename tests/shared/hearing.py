"""Hearing: a process that follows a feed through thick and thin, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from coatcheck.core.revocation import Revocations, Revoked
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch, Feed
from coatcheck.follower import Follower, into
from coatcheck.testing.clock import START
from coatcheck.testing.feeds import PATIENCE, session

LATER = START + 10**6


def entries(*names: str) -> tuple[Revoked, ...]:
    """Return revocations of sessions that are called so."""
    return tuple(Revoked(session_id=name, until=LATER) for name in names)


def names(batch: Batch) -> list[str | None]:
    """Return what the sessions are called that a batch revokes."""
    return [revoked.session_id for revoked in batch.revoked]


class Hearing:
    """Whatever happens, it hears everything in the end."""

    def __init__(self, feed: Feed) -> None:
        self.revocations = Revocations()
        self._follower = Follower(feed, into(self.revocations, lambda: START), lambda: START)

    async def __aenter__(self) -> Self:
        await self._follower.begin()
        self._task = asyncio.create_task(self._follower.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def of(self, *names: str) -> None:
        """Return when the revocations of these sessions were heard."""
        async with asyncio.timeout(PATIENCE):
            while not all(self.revocations.covers(name, None, 0) for name in names):  # noqa: ASYNC110 (there is none)
                await asyncio.sleep(0.01)


async def publish(feed: Feed, name: str) -> None:
    """Publish, and try again for as long as that takes, as whoever signs somebody out does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await feed.publish((session(name),), START)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def until(true: Callable[[], bool]) -> None:
    """Return when something is so."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.02)
