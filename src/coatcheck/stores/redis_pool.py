"""Pool: the connections to one Redis server, no more of them than its gate lets through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.redis_resp import Answered, pack
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_wire import Deadline, Reply, Wire


class Gate(AbstractAsyncContextManager[object], Protocol):
    """Lets only so many through at once, and has the others wait."""

    def enter(self) -> bool:
        """Go through, if nobody has to wait for that, and say whether."""
        ...

    def release(self) -> None:
        """Let another one through."""
        ...


class LoopGate(asyncio.Semaphore):
    """A gate for the tasks of an event loop."""

    def enter(self) -> bool:
        """See `Gate`."""
        return not self.locked() and run(self.acquire())


class ThreadGate:
    """A gate for threads."""

    def __init__(self, size: int, deadline: Deadline) -> None:
        self._semaphore, self._deadline = threading.Semaphore(size), deadline

    def enter(self) -> bool:
        """See `Gate`."""
        return self._semaphore.acquire(blocking=False)

    def release(self) -> None:
        """See `Gate`."""
        self._semaphore.release()

    async def __aenter__(self) -> None:
        if not self._semaphore.acquire(timeout=max(0, self._deadline.left())):
            raise StoreUnavailable("no connection to the Redis server became free in time")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Pool:
    """The connections to one server: as many as the gate lets through, the one used last first."""

    def __init__(self, connect: Callable[[], Wire], gate: Gate) -> None:
        self._connect, self._gate = connect, gate
        self._idle: list[Wire] = []  # its ends are atomic: threads take one and put it back

    def ask(self, commands: Sequence[Command], answered: Answered) -> bool:
        """Send commands now, over one that is idle, and say whether that could be; see `Wire.ask`.

        One that has failed is put back too: it is not fresh, so whoever takes it next drops it.
        """
        if not self._idle:
            return False
        octets = pack(commands)
        if not self._gate.enter():
            return False
        wire = self._idle.pop()

        def put_back() -> None:
            self._idle.append(wire)
            self._gate.release()

        def back(found: list[Reply] | Exception) -> None:
            put_back()
            answered(found)

        if wire.ask(octets, len(commands), back):
            return True
        put_back()
        return False

    async def exchange(self, *round_trips: Sequence[Command]) -> list[Reply]:
        """Send commands over one connection. One with a reply left unread is never used again (P4)."""
        async with self._gate:
            wire = await self._take()
            try:
                replies = [reply for commands in round_trips for reply in await wire.exchange(commands)]
            except BaseException:
                await wire.drop()
                raise
            self._idle.append(wire)
            return replies

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().drop()

    async def _take(self) -> Wire:
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return self._connect()
            if await wire.fresh():
                return wire
            await wire.drop()
