"""Coalescer: what is asked in one event-loop tick becomes one call, for stores whose every call is a round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 500
"""How many questions go into one call; those beyond go into calls of their own, beside it (P9)."""


class Coalescer(Generic[Q, A]):
    """Gathers what is asked in one tick of an event loop, and has it answered at once. It belongs to one loop.

    A task of its own does the asking: that one of those who wait is cancelled stops neither the others nor the call,
    so no reply is ever left unread. Whoever asks after the call has begun waits for the next one, and so is answered
    by a store that knows what was acknowledged before they asked.

    Args:
        answer_all: is handed the questions in the order in which they were asked, and returns as many answers. An
            answer that is an exception is raised to whoever asked; an exception that it raises reaches all. It should
            give up after some time by itself.
    """

    def __init__(self, answer_all: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._answer_all = answer_all
        self._asked: list[Q] = []
        self._waiting: list[asyncio.Future[A]] = []
        self._under_way: set[asyncio.Task[None]] = set()  # a loop alone would not keep them

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Ask a question, whose answer is awaited: it is what `answer_all` returned for it, or raises what that raised.

        It is asked whether or not anybody awaits the answer.
        """
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._begin)
        future: asyncio.Future[A] = loop.create_future()
        self._asked.append(question)
        self._waiting.append(future)
        return future

    def _begin(self) -> None:
        asked, self._asked = self._asked, []
        waiting, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        for start in range(0, len(asked), MOST):
            task = loop.create_task(self._answer(asked[start : start + MOST], waiting[start : start + MOST]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """Wait until everything that was asked is answered."""
        while self._asked or self._under_way:
            await (asyncio.wait(self._under_way) if self._under_way else asyncio.sleep(0))

    async def _answer(self, asked: Sequence[Q], waiting: Sequence[asyncio.Future[A]]) -> None:
        try:
            answered = list(zip(waiting, await self._answer_all(asked), strict=True))
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            answered = [(future, error) for future in waiting]
        except BaseException:  # the loop is being shut down
            for future in waiting:
                future.cancel()
            raise
        for future, answer in answered:
            if future.done():  # its request was cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
