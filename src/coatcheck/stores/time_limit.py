"""TimeLimit: ends what takes too long, with one timer for all that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Step:
    """Something that is under way."""

    __slots__ = ("end", "overdue", "until")

    def __init__(self, end: Callable[[], object], until: float) -> None:
        self.end, self.until, self.overdue = end, until, False


class TimeLimit:
    """A limit that is the same for all. It belongs to one event loop.

    `asyncio.timeout` does the same, but sets and cancels a timer for each of them, which costs more than a small
    command. Here they end in the order in which they begin, so that one timer watches the oldest.

    Args:
        seconds: how long each may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._steps: dict[Step, None] = {}  # the oldest first
        self._watching = False

    def begin(self, end: Callable[[], object]) -> Step:
        """Begin what is no task: a callback finishes it, and calls `finish`; if it is late, `end` is called.

        Args:
            end: ends it.
        """
        loop = asyncio.get_running_loop()
        step = Step(end, loop.time() + self.seconds)
        self._steps[step] = None
        if not self._watching:
            self._watch(loop, step.until)
        return step

    def finish(self, step: Step) -> None:
        """Stop watching it."""
        del self._steps[step]

    async def keep(self, step: Awaitable[T]) -> T:
        """Finish it in time; if it is not, it is cancelled. Who cancels the task itself cancels it as ever.

        Raises:
            TimeoutError: it took too long.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        before, mine = task.cancelling(), self.begin(task.cancel)
        try:
            return await step
        except asyncio.CancelledError:
            if mine.overdue and task.cancelling() - 1 <= before:  # nobody else wants it to end
                raise TimeoutError from None
            raise
        finally:
            self.finish(mine)
            if mine.overdue:
                task.uncancel()

    def _watch(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        self._watching = True
        loop.call_at(until, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = False
        now = loop.time()
        for step in list(self._steps):  # one that is ended may be finished at once
            if step.until > now:
                self._watch(loop, step.until)
                return
            if not step.overdue:
                step.overdue = True
                step.end()
