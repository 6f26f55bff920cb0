"""FaultProxy: a TCP proxy for tests, which delays, holds, drips, resets or cuts what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from math import inf
from types import TracebackType
from typing import Any, Final, Literal, Self

from coatcheck.errors import InvalidValue

Direction = Literal["requests", "replies"]

_LOOPBACK: Final = "127.0.0.1"
_MOST_CONNECTIONS: Final = 2000
_CHUNK: Final = 4096  # octets
_MOST_CHUNKS: Final = 256  # on their way in one direction of one connection: then its sender has to wait
_DRIP_EVERY: Final = 0.01  # seconds
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PATIENCE: Final = 10.0  # seconds in which the proxy must have done what it is told


@dataclass(frozen=True)
class _Faults:
    latency: float = 0.0  # seconds
    rate: float = inf  # octets per second
    held: frozenset[Direction] = frozenset()

    def wait(self, direction: Direction, age: float) -> float:
        """Return for how many more seconds something is not passed on that came `age` seconds ago."""
        return inf if direction in self.held else self.latency - age

    @property
    def piece(self) -> int:
        """How many octets go at once."""
        return _CHUNK if self.rate == inf else max(1, int(self.rate * _DRIP_EVERY))


class FaultProxy:
    """Stands between a client and a server, and spoils what they say to each other, as a test tells it to.

    It works for any protocol over TCP, listens on the loopback at `port`, and runs in a thread of its own: tests with
    an event loop and without one use it alike (`async with` or `with`), and so do clients in other processes. What a
    verb says is so when it returns, for the connections that are open as well. `delay`, `drip` and `hold` add up until
    `heal`. At the end all connections are closed; nothing of it is left.

    Args:
        host: where the server is.
        port: the server's port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._faults = _Faults()
        self._connections: dict[asyncio.Task[Any], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens; the same from the beginning to the end, also after `cut`."""
        port: int = self._place.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._connections)

    def __enter__(self) -> Self:
        self._loop = asyncio.SelectorEventLoop()
        self._changed = asyncio.Event()
        # Bound and never listening: it keeps the port while connections are refused.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind((_LOOPBACK, 0))
        self._thread = threading.Thread(target=self._loop.run_forever, name="FaultProxy", daemon=True)
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    # -- verbs

    def delay(self, seconds: float) -> None:
        """Pass on everything so many seconds later, each way; what follows is not held up by what goes before."""
        self._do(self._become(replace(self._faults, latency=seconds)))

    def drip(self, octets_per_second: float) -> None:
        """Pass on so much each way, for each connection, in small pieces.

        Raises:
            InvalidValue: that is nothing; `hold` stops everything.
        """
        if not octets_per_second > 0:
            raise InvalidValue("drip takes more than 0 octets per second; hold() lets nothing pass")
        self._do(self._become(replace(self._faults, rate=octets_per_second)))

    def hold(self) -> None:
        """Pass on nothing; connections stay, and new ones are accepted. It goes on where it stood after `heal`."""
        self._do(self._become(replace(self._faults, held=frozenset(("requests", "replies")))))

    def hold_replies(self) -> None:
        """Pass on nothing of what the server says: it does what it is asked to, and nobody hears of it."""
        self._do(self._become(replace(self._faults, held=frozenset(("replies",)))))

    def reset(self) -> None:
        """Reset the present connections (RST), at both ends; new ones are accepted."""
        self._do(self._end(reset=_RESET_ON_CLOSE))

    def cut(self) -> None:
        """Close the present connections, and refuse new ones until `heal`."""
        self._do(self._cut())

    def heal(self) -> None:
        """Pass on everything at once from now on, and what was held too."""
        self._do(self._heal())

    # -- inside, in the proxy's own thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    async def _become(self, faults: _Faults) -> None:
        self._faults, changed = faults, self._changed
        self._changed = asyncio.Event()
        changed.set()

    async def _heal(self) -> None:
        await self._become(_Faults())
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, _LOOPBACK, self.port, limit=_CHUNK, backlog=_MOST_CONNECTIONS, reuse_port=True
            )

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._end()

    async def _end(self, reset: bytes | None = None) -> None:
        tasks = list(self._connections)
        for task in tasks:
            for writer in self._connections[task]:
                _linger(writer, reset)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = [writer]
        self._connections[task] = writers
        try:
            if self._server is None or len(self._connections) > _MOST_CONNECTIONS:
                return
            there_reader, there = await asyncio.open_connection(*self._upstream, limit=_CHUNK)
            writers.append(there)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry("requests", reader, there))
                group.create_task(self._carry("replies", there_reader, writer))
            for each in writers:
                each.close()
                await each.wait_closed()  # what is on its way still arrives
        except* OSError:  # one end has gone; the other one is told in the same way
            for each in writers:
                _linger(each, _RESET_ON_CLOSE)
        except* asyncio.CancelledError:
            pass
        finally:
            await _closed(writers)
            del self._connections[task]

    async def _carry(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue = asyncio.Queue[tuple[float, bytes]](_MOST_CHUNKS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(reader, queue))
            group.create_task(self._give(direction, queue, writer))

    async def _take(self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while chunk := await reader.read(_CHUNK):
            await queue.put((self._loop.time(), chunk))
        await queue.put((self._loop.time(), b""))

    async def _give(
        self, direction: Direction, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            came, rest = await queue.get()
            await self._ripe(direction, came)
            if not rest:
                writer.write_eof()
                return
            while rest:
                piece, rest = rest[: self._faults.piece], rest[self._faults.piece :]
                writer.write(piece)
                await writer.drain()
                await self._nap(len(piece) / self._faults.rate)
                await self._ripe(direction, came)

    async def _ripe(self, direction: Direction, came: float) -> None:
        while (wait := self._faults.wait(direction, self._loop.time() - came)) > 0:
            await self._nap(wait)

    async def _nap(self, seconds: float) -> None:
        """Wait, but not longer than until the faults are others."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if seconds == inf else seconds)


def _linger(writer: asyncio.StreamWriter, option: bytes | None) -> None:
    if option is not None:
        with contextlib.suppress(OSError):  # it may be closed already
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


async def _closed(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()
