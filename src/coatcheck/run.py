"""run() finishes a coroutine where no event loop runs; offload() and settle() wait in the way that fits the caller.

One body of code serves ASGI and WSGI: the desks and stores are coroutines, ASGI awaits
them, WSGI drives them with `run`. A blocking store never truly suspends when no loop is running.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

_under_way: set[asyncio.Future[Any]] = set()  # a loop alone would not keep them


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns, without an event loop.

    Raises:
        RuntimeError: the coroutine waits for something that only an event loop can give, or an event loop is running
            here, so that it should be awaited.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    if running_loop() is not None:
        raise RuntimeError("await it: run() is for where no event loop runs, and here one does")
    raise RuntimeError("this store or handler needs an event loop; run() can only drive coroutines that never suspend")


async def offload(work: Callable[[], T]) -> T:
    """Do blocking work: in a thread if an event loop is running here, else directly."""
    if running_loop() is not None:
        return await asyncio.to_thread(work)
    return work()


async def settle(future: Future[T]) -> T:
    """Wait for another thread's result without blocking the event loop, if there is one.

    The work goes on when the waiting request is cancelled: a revocation under way is not taken back.
    """
    if running_loop() is not None:
        return await asyncio.shield(asyncio.wrap_future(future))
    return future.result()


def to_the_end(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let what a coroutine method has begun go on when the request that waits for it is cancelled.

    A store does what it was told to whether or not somebody waits (see `settle`); what must follow, such as telling
    the other processes which sessions were ended, would be lost for good: no retry finds them again.
    """

    @functools.wraps(method)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        if running_loop() is None:
            return await method(*args, **kwargs)
        task = asyncio.ensure_future(method(*args, **kwargs))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
        return await asyncio.shield(task)

    return whole


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs here, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def retrieved(task: asyncio.Future[Any]) -> None:
    """Look at a task's error, as its callback: it is raised where it is waited for, if anybody still waits."""
    if not task.cancelled():
        task.exception()
