"""FeedHub: one follower of the feed in this process, for all who listen to it over HTTP.

The recent past is kept, once for all of them, so that whoever was away for a moment goes on where it was. That is the
only buffer there is: who reads so slowly that it falls out of the past hears of a gap. Of a position that is not known
here, such as one that another server of the same store has told, the feed itself says what comes after it, if anything
does: positions of two histories can look alike, where a store has lost its newest entries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from coatcheck.clock import Clock, monotonic_clock
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch, Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.follower import Follower
from coatcheck.run import retrieved

T = TypeVar("T")

REMEMBERED: Final = 10_000  # revocations
MOST_AT_ONCE: Final = 500  # revocations in one batch: less than 1 MiB, whatever the subjects are called
_ALIVE: Final = 2_000  # milliseconds: a feed speaks at least once a second
_PATIENCE_SECONDS: Final = 1.0
_MOST_ASKING: Final = 4  # of the feed at once
_MOST_CATCHING_UP: Final = 5  # times that the feed is asked, until both have come equally far
NOWHERE: Final = -1  # no position is


class Snapshot(NamedTuple):
    """What a feed says is of use, at a position; the revocations in JSON, and when, by `monotonic_clock`, it was so."""

    position: int
    heard_at: int
    revoked: bytes

    def batch(self) -> Batch:
        """Return it as what continues no position."""
        members = (NOWHERE, self.position, self.heard_at, self.revoked)
        return msgspec.json.decode(b'{"after":%d,"position":%d,"heard_at":%d,"revoked":%b}' % members, type=Batch)


class FeedHub:
    """Hears a feed, and passes it on. It begins when it is first needed.

    Args:
        feed: opened and closed by somebody else.
        clock: milliseconds since the epoch.
        remembered: how many revocations are kept for those who come back.
    """

    def __init__(self, feed: Feed, *, clock: Clock, remembered: int = REMEMBERED) -> None:
        self._feed = feed
        self._clock = clock
        self._remembered = remembered
        # A feed in memory begins at 0 with each process: its listeners must not take one life for another.
        self._offset = clock() * 1000 if isinstance(feed, LocalFeed) else 0
        self._oldest = self._position = self._offset
        self._past: deque[Batch] = deque()
        self._kept = 0
        self._gaps = 0
        self._heard_at: int | None = None
        self._asked: dict[int, asyncio.Task[Batch]] = {}
        self._asking = asyncio.Semaphore(_MOST_ASKING)
        self._beat = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._snapshot: asyncio.Task[Snapshot] | None = None
        self._ended = False

    @property
    def position(self) -> int:
        """Up to where the feed was heard."""
        return self._position

    async def open(self) -> None:
        """Begin to follow, if that has not been done, and make sure that the feed is heard.

        Raises:
            StoreUnavailable: it is not.
        """
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not self._is_alive():
                    await self._beat.wait()
        if not self._is_alive():
            raise StoreUnavailable("the feed is not heard here")

    def end(self) -> None:
        """Let everybody go who listens."""
        self._ended = True
        self._beat.set()

    async def close(self) -> None:
        """Let everybody go, and follow no more; calling it again does nothing."""
        self.end()
        for task in (self._following, self._snapshot, *self._asked.values()):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
                    await task
        self._following = self._snapshot = None

    async def snapshot(self) -> Snapshot:
        """Return everything that is still of use. Whoever asks while it is being made gets the same one.

        Raises:
            StoreUnavailable
        """
        if self._snapshot is None:
            self._snapshot = _shared(self._take_snapshot())
        return await asyncio.shield(self._snapshot)

    async def listen(self, position: int | None) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, or after now, and a heartbeat with each of the feed's.

        A batch that does not continue it is the last: there is a gap. It also ends where the feed is not heard.
        """
        position, gaps = self._position if position is None else position, self._gaps
        for _ in range(_MOST_CATCHING_UP):
            if self._knows(position):
                break
            try:
                first = await self._from_feed(position)
            except StoreUnavailable:
                return
            for batch in _parts(first):
                yield batch
            if first.after != position or not await self._reached(first.position):
                return
            position = first.position
        # After the last try it may be inside of a batch that is kept here, and some of that is heard again.
        while not self._ended:
            beat = self._beat
            for batch in self._since(position) if gaps == self._gaps else [self._gap()]:
                yield batch
                if batch.after != position:
                    return
                position = batch.position
            await beat.wait()

    async def hear(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and heartbeats: for whoever lives in this process.

        Where the feed does not say what came after it, everything that is still of use comes first. It ends where the
        feed is not heard, and with the server.

        Raises:
            StoreUnavailable
        """
        await self.open()
        while not self._ended:
            if position != NOWHERE:
                async with aclosing(self.listen(position)) as batches:
                    async for batch in batches:
                        if batch.after != position:
                            break
                        yield batch
                        position = batch.position
                    else:
                        return
            whole = (await self.snapshot()).batch()
            yield whole
            position = whole.position

    def _is_alive(self) -> bool:
        return self._heard_at is not None and monotonic_clock() - self._heard_at <= _ALIVE

    def _knows(self, position: int) -> bool:
        known = (self._oldest, self._position, *(batch.position for batch in self._past))
        return position in known

    async def _from_feed(self, position: int) -> Batch:
        """Return what the feed has after a position; those who ask for the same at once get the same answer."""
        if position < self._offset:
            return self._gap()
        if position not in self._asked:
            self._asked[position] = _shared(self._ask(position))
        return await asyncio.shield(self._asked[position])

    async def _ask(self, position: int) -> Batch:
        try:
            async with (
                asyncio.timeout(_PATIENCE_SECONDS),  # waiting for one's turn included: there may be a thousand (P9)
                self._asking,
                aclosing(self._feed.follow(position - self._offset)) as batches,
            ):
                batch = await anext(batches)
        except (TimeoutError, StopAsyncIteration):
            raise StoreUnavailable("the feed is not heard here") from None
        finally:
            del self._asked[position]
        heard_at = monotonic_clock() if batch.heard_at is None else batch.heard_at
        moved = {"after": batch.after + self._offset, "position": batch.position + self._offset}
        return msgspec.structs.replace(batch, heard_at=heard_at, **moved)

    async def _reached(self, position: int) -> bool:
        """Wait until this process has heard as much as a listener, who may come from another one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._position < position and not self._ended:
                    await self._beat.wait()
        return self._position >= position

    def _since(self, position: int) -> list[Batch]:
        """Return what continues a position of this history, in parts; or a gap, if that is not kept any more."""
        if not self._oldest <= position <= self._position:
            return [self._gap()]
        revoked = tuple(each for batch in self._past if batch.position > position for each in batch.revoked)
        return _parts(Batch(after=position, position=self._position, revoked=revoked, heard_at=self._heard_at))

    def _gap(self) -> Batch:
        return Batch(after=NOWHERE, position=self._position, heard_at=self._heard_at)

    async def _follow(self) -> None:
        follower = Follower(self._feed, self._take, self._clock)
        await follower.begin()
        await follower.follow()

    def _take(self, batch: Batch) -> None:
        after, position = batch.after + self._offset, batch.position + self._offset
        if after != self._position:
            self._past.clear()
            self._kept, self._oldest = 0, position
            self._gaps += 1
        elif batch.revoked:
            self._past.append(msgspec.structs.replace(batch, after=after, position=position))
            self._kept += len(batch.revoked)
        self._position = position
        while self._kept > self._remembered:
            dropped = self._past.popleft()
            self._kept -= len(dropped.revoked)
            self._oldest = dropped.position
        self._heard_at = monotonic_clock() if batch.heard_at is None else batch.heard_at
        beat, self._beat = self._beat, asyncio.Event()
        beat.set()

    async def _take_snapshot(self) -> Snapshot:
        try:
            heard_at = monotonic_clock()
            batch = await self._feed.snapshot(self._clock())
            return Snapshot(batch.position + self._offset, heard_at, msgspec.json.encode(batch.revoked))
        finally:
            self._snapshot = None


def _shared(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin what several wait for, or, when all of them have gone away, nobody."""
    task = asyncio.create_task(work)
    task.add_done_callback(retrieved)
    return task


def _parts(batch: Batch) -> list[Batch]:
    """Return a batch in parts of a bearable size.

    All but the last lead nowhere yet: whoever loses the connection in between hears them again.
    """
    revoked = batch.revoked
    parts = [revoked[start : start + MOST_AT_ONCE] for start in range(0, len(revoked) or 1, MOST_AT_ONCE)]
    reached = [batch.after] * (len(parts) - 1) + [batch.position]
    return [
        msgspec.structs.replace(batch, position=position, revoked=part)
        for position, part in zip(reached, parts, strict=True)
    ]
