"""LocalFeed: revocations within one process, for tests and for applications that are one process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from typing import Final

from coatcheck.core.revocation import Revoked
from coatcheck.feed import Batch

_HEARTBEAT: Final = 0.5  # seconds
_PRUNE_EVERY: Final = 128  # a pass over the log per this many entries keeps it a constant cost per entry


class LocalFeed:
    """A feed whose followers hear at once. Publishing needs no event loop, and works from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: list[tuple[int, Revoked]] = []
        self._position = 0
        self._next_pass = _PRUNE_EVERY
        self._last_pass = 0
        self._closings = 0
        self._followers: set[_Follower] = set()

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """End the followers."""
        with self._lock:
            self._closings += 1
        self._wake()

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower; see `Feed.publish`."""
        with self._lock:
            for entry in revoked:
                self._position += 1
                self._log.append((self._position, entry))
            if self._position >= self._next_pass:
                self._prune(now)
        self._wake()

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use; see `Feed.snapshot`."""
        with self._lock:
            revoked = tuple(entry for _, entry in self._log if entry.until > now)
            return Batch(after=0, position=self._position, revoked=revoked)

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and a heartbeat every half second; see `Feed.follow`."""
        follower = _Follower(asyncio.get_running_loop())
        closings = self._closings
        with self._lock:
            self._followers.add(follower)
        try:
            while self._closings == closings:
                follower.woken.clear()
                batch = self._after(position)
                yield batch
                position = batch.position
                if position == self._position and self._closings == closings:
                    await follower.wait()
        finally:
            with self._lock:
                self._followers.discard(follower)

    def _after(self, position: int) -> Batch:
        with self._lock:
            after = min(position, self._position)  # a position that we never reached is another feed's: a gap
            first = len(self._log)
            while first and self._log[first - 1][0] > after:
                first -= 1
            revoked = tuple(entry for _, entry in self._log[first:])
            return Batch(after=after, position=self._position, revoked=revoked)

    def _prune(self, now: int) -> None:
        # By the time of the pass before, if it was earlier: a clock that was ahead for a moment costs nothing (P7).
        limit, self._last_pass = min(now, self._last_pass), now
        self._log = [(position, entry) for position, entry in self._log if entry.until > limit]
        self._next_pass = self._position + _PRUNE_EVERY

    def _wake(self) -> None:
        with self._lock:
            followers = list(self._followers)
        for follower in followers:
            follower.wake()


class _Follower:
    __slots__ = ("loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken = asyncio.Event()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop was closed, and with it the follower
            self.loop.call_soon_threadsafe(self.woken.set)

    async def wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.woken.wait(), _HEARTBEAT)
