"""Connections to Redis, for coroutines on an event loop and for coroutines that `coatcheck.run.run` drives.

redis-py gives the connections: sockets, TLS, signing in. Its clients and pools are not used: they cost 60 to 75
microseconds a command, retry what must not be done twice, and raise where a caller should wait.
"""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from math import inf
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from coatcheck.errors import StoreUnavailable
from coatcheck.run import retrieved
from coatcheck.stores.coalesce import Coalescer
from coatcheck.stores.redis_resp import Replies, pack
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_url import Address
from coatcheck.stores.time_limit import TimeLimit

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

AnswerAll = Callable[[Sequence[Q]], Coroutine[Any, Any, Sequence[A | Exception]]]
Ask = Callable[[Q], Awaitable[A]]

FAILURES = (RedisError, OSError, EOFError)
_PAUSE = 0.01  # seconds
Reply = Any
"""What the server said, or the ResponseError that it is."""


class Wire(Protocol):
    """One connection."""

    async def fresh(self) -> bool:
        """Say whether it can be used again: still open, and nothing left to be read."""
        ...

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands, and return what each was answered."""
        ...

    async def drop(self) -> None:
        """Close it, whatever was under way."""
        ...


class LoopWire:
    """A connection that awaits. redis-py opens it and signs in; then what comes is read here."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._replies: Replies | None = None

    async def fresh(self) -> bool:
        """See `Wire`."""
        return self._replies is not None and self._replies.fresh

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Wire`."""
        replies = self._replies
        if replies is None:
            replies = self._replies = await self._opened()
        return await replies.ask(commands)

    async def _opened(self) -> Replies:
        await self._connection.connect()
        writer = self._connection._writer  # noqa: SLF001  there is no public way to its transport
        replies = Replies(writer.transport)
        if await self._connection.can_read():  # by its own reader, to which nothing comes any more
            raise RedisConnectionError("the server said more than it was asked, or closed the connection")
        return replies

    async def drop(self) -> None:
        """See `Wire`."""
        with suppress(*FAILURES):
            await self._connection.disconnect(nowait=True)


class Deadline(threading.local):
    """How long the call that a thread makes may take: until then, and no step of it longer than `most` seconds."""

    def __init__(self, most: float) -> None:
        self.most, self.until = most, inf

    def left(self) -> float:
        """Return how many seconds are left; 0 or less if none are."""
        return min(self.until - monotonic(), self.most)


class ThreadWire:
    """A connection that blocks, until the deadline at most."""

    def __init__(self, connection: Any, deadline: Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    async def fresh(self) -> bool:
        """See `Wire`."""
        try:
            return not self._connection.can_read(timeout=0)
        except FAILURES:
            return False

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """See `Wire`."""
        connection, replies = self._connection, list[Reply]()
        self._limit()
        connection.send_packed_command([pack(commands)], check_health=False)
        for _ in commands:
            self._limit()
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    def _limit(self) -> None:
        left, socket = self._deadline.left(), self._connection._sock  # noqa: SLF001  there is no public way to limit it
        if left <= 0:
            raise TimeoutError
        if socket is None:  # it is about to connect
            self._connection.socket_connect_timeout = self._connection.socket_timeout = left
        else:
            socket.settimeout(left)

    async def drop(self) -> None:
        """See `Wire`."""
        with suppress(*FAILURES):
            self._connection.disconnect()


class Drive(Protocol):
    """How coroutines are driven here: by an event loop, or by whoever calls."""

    def wire(self, address: Address, arguments: dict[str, Any], *, tls: bool) -> Wire:
        """Return a connection, which is opened when it is first used."""
        ...

    def gate(self, size: int | None = None) -> AbstractAsyncContextManager[object]:
        """Return what lets only so many through at once, as many as a pool has by default, and has the others wait."""
        ...

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """Return what each of them returns; none of them raises."""
        ...

    def together(self, answer_all: AnswerAll[Q, A]) -> Ask[Q, A]:
        """Return what asks one question, in one call with what else is asked at that moment, and in time.

        Args:
            answer_all: see `Coalescer`.
        """
        ...

    async def finish(self, coroutine: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """Finish it, even if the request that waits for it is cancelled, and in time if it is `limited` as a whole.

        Raises:
            StoreUnavailable: it took too long.
        """
        ...

    async def in_time(self, step: Awaitable[T]) -> T:
        """Finish it in time.

        Raises:
            StoreUnavailable: it took too long.
        """
        ...

    async def pause(self) -> None:
        """Wait for some milliseconds, to ask again."""
        ...

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        ...


class LoopDrive:
    """Drives coroutines on the running event loop."""

    def __init__(self, pool_size: int, timeout: float) -> None:
        import redis.asyncio
        import redis.asyncio.retry

        self._redis, self._retry = redis.asyncio, redis.asyncio.retry.Retry(NoBackoff(), 0)
        self._pool_size, self._timeout, self._limit = pool_size, timeout, TimeLimit(timeout)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._coalescers: builtins.list[Coalescer[Any, Any]] = []

    def wire(self, address: Address, arguments: dict[str, Any], *, tls: bool) -> Wire:
        """See `Drive`."""
        kind = self._redis.SSLConnection if tls else self._redis.Connection
        # `in_time` limits the whole, waiting for a connection included; a second timer per read would cost more.
        common = _arguments(address, arguments, timeout=None)
        return LoopWire(kind(retry=self._retry, socket_connect_timeout=self._timeout, **common))

    def gate(self, size: int | None = None) -> AbstractAsyncContextManager[object]:
        """See `Drive`."""
        return asyncio.Semaphore(size or self._pool_size)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """See `Drive`."""
        several = list(coroutines)
        return [await several[0]] if len(several) == 1 else await asyncio.gather(*several)

    def together(self, answer_all: AnswerAll[Q, A]) -> Ask[Q, A]:
        """See `Drive`. Requests that are cancelled stop nothing."""
        coalescer = Coalescer[Q, A](lambda questions: self.in_time(answer_all(questions)))
        self._coalescers.append(coalescer)
        return coalescer.ask

    async def finish(self, coroutine: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """See `Drive`."""
        task = asyncio.ensure_future(self.in_time(coroutine) if limited else coroutine)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    async def in_time(self, step: Awaitable[T]) -> T:
        """See `Drive`."""
        try:
            return await self._limit.keep(step)
        except TimeoutError:
            raise StoreUnavailable(f"the Redis server did not answer within {self._timeout:g} s") from None

    async def pause(self) -> None:
        """See `Drive`. All pauses end at the same moments: who asks again then asks together with the others."""
        await asyncio.sleep(_PAUSE - asyncio.get_running_loop().time() % _PAUSE)

    async def settled(self) -> None:
        """See `Drive`."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        for coalescer in self._coalescers:
            await coalescer.settled()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        retrieved(task)


class ThreadDrive:
    """Drives coroutines that never suspend: they block the thread that drives them."""

    def __init__(self, pool_size: int, timeout: float) -> None:
        self._pool_size, self._timeout, self._deadline = pool_size, timeout, Deadline(timeout)

    def wire(self, address: Address, arguments: dict[str, Any], *, tls: bool) -> Wire:
        """See `Drive`."""
        kind: Any = redis.SSLConnection if tls else redis.Connection
        retry = Retry(NoBackoff(), 0)
        common = _arguments(address, arguments, timeout=self._timeout)
        return ThreadWire(kind(retry=retry, socket_connect_timeout=self._timeout, **common), self._deadline)

    def gate(self, size: int | None = None) -> AbstractAsyncContextManager[object]:
        """See `Drive`."""
        return ThreadGate(size or self._pool_size, self._deadline)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """See `Drive`."""
        return [await coroutine for coroutine in coroutines]

    def together(self, answer_all: AnswerAll[Q, A]) -> Ask[Q, A]:
        """See `Drive`. Each thread asks for itself."""

        async def ask(question: Q) -> A:
            [answer] = await self.in_time(answer_all([question]))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    async def finish(self, coroutine: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """See `Drive`."""
        return await (self.in_time(coroutine) if limited else coroutine)

    async def in_time(self, step: Awaitable[T]) -> T:
        """See `Drive`."""
        before, self._deadline.until = self._deadline.until, min(self._deadline.until, monotonic() + self._timeout)
        try:
            return await step
        finally:
            self._deadline.until = before

    async def pause(self) -> None:
        """See `Drive`."""
        sleep(_PAUSE)  # noqa: ASYNC251 (here everything blocks the thread that drives it)

    async def settled(self) -> None:
        """See `Drive`: callers block, so nothing is."""


class ThreadGate:
    """A semaphore for threads that reads like asyncio's."""

    def __init__(self, size: int, deadline: Deadline) -> None:
        self._semaphore, self._deadline = threading.Semaphore(size), deadline

    async def __aenter__(self) -> None:
        if not self._semaphore.acquire(timeout=max(0, self._deadline.left())):
            raise StoreUnavailable("no connection to the Redis server became free in time")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._semaphore.release()


class Pool:
    """The connections to one server: as many as the gate lets through, the one used last first."""

    def __init__(self, connect: Callable[[], Wire], gate: AbstractAsyncContextManager[object]) -> None:
        self._connect, self._gate = connect, gate
        self._idle: list[Wire] = []  # its ends are atomic: threads take one and put it back

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


def _arguments(address: Address, arguments: dict[str, Any], *, timeout: float | None) -> dict[str, Any]:
    common = {"host": address[0], "port": address[1], "protocol": 2, "driver_info": None, "socket_timeout": timeout}
    return cast("dict[str, Any]", {**common, **arguments})
