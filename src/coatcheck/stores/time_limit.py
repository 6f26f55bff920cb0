"""TimeLimit: ends what takes too long, with one timer for all that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _Step:
    __slots__ = ("overdue", "task", "until")

    def __init__(self, task: asyncio.Task[Any], until: float) -> None:
        self.task, self.until, self.overdue = task, until, False


class TimeLimit:
    """A limit that is the same for all. It belongs to one event loop.

    `asyncio.timeout` does the same, but sets and cancels a timer for each of them, which costs more than a small
    command. Here they end in the order in which they begin, so that one timer watches the oldest.

    Args:
        seconds: how long each may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._steps: dict[_Step, None] = {}  # the oldest first
        self._watching = False

    async def keep(self, step: Awaitable[T]) -> T:
        """Finish it in time; if it is not, it is cancelled. Who cancels the task itself cancels it as ever.

        Raises:
            TimeoutError: it took too long.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        loop, before = asyncio.get_running_loop(), task.cancelling()
        mine = _Step(task, loop.time() + self._seconds)
        self._steps[mine] = None
        if not self._watching:
            self._watch(loop, mine.until)
        try:
            return await step
        except asyncio.CancelledError:
            if mine.overdue and task.cancelling() - 1 <= before:  # nobody else wants it to end
                raise TimeoutError from None
            raise
        finally:
            del self._steps[mine]
            if mine.overdue:
                task.uncancel()

    def _watch(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        self._watching = True
        loop.call_at(until, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = False
        now = loop.time()
        for step in self._steps:
            if step.until > now:
                self._watch(loop, step.until)
                return
            if not step.overdue:
                step.overdue = True
                step.task.cancel()
