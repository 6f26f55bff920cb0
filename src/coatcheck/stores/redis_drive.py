"""Drives: how coroutines that speak to Redis are driven: by an event loop, or by the thread that calls."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coatcheck.run import retrieved
from coatcheck.stores.coalesce import Asked, Coalescer
from coatcheck.stores.redis_pool import Gate, LoopGate, ThreadGate
from coatcheck.stores.redis_url import Address
from coatcheck.stores.redis_wire import Deadline, LoopWire, ThreadWire, Wire, late
from coatcheck.stores.time_limit import TimeLimit

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

AnswerAll = Callable[[Sequence[Q]], Coroutine[Any, Any, Sequence[A | Exception]]]
AtOnce = Callable[[Asked[Q, A]], bool]
Ask = Callable[[Q], Awaitable[A]]

_PAUSE = 0.01  # seconds


class Drive(Protocol):
    """How coroutines are driven here: by an event loop, or by whoever calls."""

    def wire(self, address: Address, arguments: dict[str, Any], *, tls: bool) -> Wire:
        """Return a connection, which is opened when it is first used."""
        ...

    def gate(self, size: int | None = None) -> Gate:
        """Return what lets only so many through at once, as many as a pool has by default, and has the others wait."""
        ...

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """Return what each of them returns; none of them raises."""
        ...

    def together(self, answer_all: AnswerAll[Q, A], at_once: AtOnce[Q, A] | None = None) -> Ask[Q, A]:
        """Return what asks one question, in one call with what else is asked at that moment, and in time.

        Args:
            answer_all: returns as many answers as there are questions, in their order. An answer that is an exception
                is raised to whoever asked; an exception that it raises reaches all.
            at_once: is tried first where an event loop runs: it sees to it that they are answered, in time, without a
                task, or says that this cannot be.
        """
        ...

    async def finish(self, coroutine: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """Finish it, even if the request that waits for it is cancelled, and in time if it is `limited` as a whole.

        Raises:
            StoreUnavailable: it took too long.
        """
        ...

    def deadline(self) -> float:
        """Return until when what begins now may take, for `in_time`."""
        ...

    async def in_time(self, step: Awaitable[T], *, until: float | None = None) -> T:
        """Finish it in time.

        Args:
            step: what is to be finished.
            until: the deadline, if it did not begin just now.

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
        return LoopWire(kind(retry=self._retry, socket_connect_timeout=self._timeout, **common), self._limit)

    def gate(self, size: int | None = None) -> Gate:
        """See `Drive`."""
        return LoopGate(size or self._pool_size)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """See `Drive`."""
        several = list(coroutines)
        return [await several[0]] if len(several) == 1 else await asyncio.gather(*several)

    def together(self, answer_all: AnswerAll[Q, A], at_once: AtOnce[Q, A] | None = None) -> Ask[Q, A]:
        """See `Drive`. Requests that are cancelled stop nothing."""

        def begin(asked: Asked[Q, A]) -> None:
            if at_once is None or not at_once(asked):
                asked.answer_later(self.in_time(answer_all(asked.questions)))

        coalescer = Coalescer(begin)
        self._coalescers.append(coalescer)
        return coalescer.ask

    async def finish(self, coroutine: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """See `Drive`."""
        task = asyncio.ensure_future(self.in_time(coroutine) if limited else coroutine)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def deadline(self) -> float:
        """See `Drive`."""
        return asyncio.get_running_loop().time() + self._timeout

    async def in_time(self, step: Awaitable[T], *, until: float | None = None) -> T:
        """See `Drive`."""
        try:
            if until is None:
                return await self._limit.keep(step)
            async with asyncio.timeout_at(until):
                return await step
        except TimeoutError:
            raise late(self._timeout) from None

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

    def gate(self, size: int | None = None) -> Gate:
        """See `Drive`."""
        return ThreadGate(size or self._pool_size, self._deadline)

    async def all(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> builtins.list[T]:
        """See `Drive`."""
        return [await coroutine for coroutine in coroutines]

    def together(self, answer_all: AnswerAll[Q, A], at_once: AtOnce[Q, A] | None = None) -> Ask[Q, A]:  # noqa: ARG002
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

    def deadline(self) -> float:
        """See `Drive`."""
        return monotonic() + self._timeout

    async def in_time(self, step: Awaitable[T], *, until: float | None = None) -> T:
        """See `Drive`."""
        before, until = self._deadline.until, self.deadline() if until is None else until
        self._deadline.until = min(before, until)
        try:
            return await step
        finally:
            self._deadline.until = before

    async def pause(self) -> None:
        """See `Drive`."""
        sleep(_PAUSE)  # noqa: ASYNC251 (here everything blocks the thread that drives it)

    async def settled(self) -> None:
        """See `Drive`: callers block, so nothing is."""


def _arguments(address: Address, arguments: dict[str, Any], *, timeout: float | None) -> dict[str, Any]:
    common = {"host": address[0], "port": address[1], "protocol": 2, "driver_info": None, "socket_timeout": timeout}
    return cast("dict[str, Any]", {**common, **arguments})
