"""Coalescer: what is asked in one event-loop tick becomes one call, for stores whose every call is a round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 500
"""How many questions go into one call; those beyond go into calls of their own, beside it (P9)."""


class Asked(Generic[Q, A]):
    """The questions of one call, and those who wait for the answers.

    Args:
        questions: in the order in which they were asked.
        waiting: a future for each of them.
        told: is called when everybody has been told.
    """

    __slots__ = ("_task", "_told", "_waiting", "questions")

    def __init__(
        self, questions: Sequence[Q], waiting: Sequence[asyncio.Future[A]], told: Callable[[Asked[Q, A]], None]
    ) -> None:
        self.questions = questions
        self._waiting, self._told = waiting, told
        self._task: asyncio.Task[None] | None = None  # a loop alone would not keep it

    def answer(self, answers: Sequence[A | Exception]) -> None:
        """Tell each who waits their answer; one that is an exception is raised to them."""
        if len(answers) != len(self._waiting):
            self.fail(ValueError(f"{len(answers)} answers to {len(self._waiting)} questions"))
            return
        for future, answer in zip(self._waiting, answers, strict=True):
            if future.done():  # its request was cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._told(self)

    def fail(self, error: Exception) -> None:
        """Raise an error to everybody."""
        self.answer([error] * len(self._waiting))

    def answer_by(self, find: Callable[[], Sequence[A | Exception]]) -> None:
        """Tell them what a function returns; what it raises reaches all."""
        try:
            answers = find()
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            self.fail(error)
        else:
            self.answer(answers)

    def answer_later(self, finding: Coroutine[Any, Any, Sequence[A | Exception]]) -> None:
        """Tell them what a coroutine finds, in a task of its own; what it raises reaches all.

        Args:
            finding: returns as many answers as there are questions, in their order.
        """
        self._task = asyncio.get_running_loop().create_task(self._answer_when_found(finding))

    async def _answer_when_found(self, finding: Coroutine[Any, Any, Sequence[A | Exception]]) -> None:
        try:
            answers = await finding
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            self.fail(error)
        except BaseException:  # the loop is being shut down
            for future in self._waiting:
                future.cancel()
            self._told(self)
            raise
        else:
            self.answer(answers)


class Coalescer(Generic[Q, A]):
    """Gathers what is asked in one tick of an event loop, and has it answered at once. It belongs to one loop.

    None of those who wait does the asking: that one of them is cancelled stops neither the others nor the call, so no
    reply is ever left unread. Whoever asks after the call has begun waits for the next one, and so is answered by a
    store that knows what was acknowledged before they asked.

    Args:
        begin: is handed the questions of each call, and sees to it that they are answered; what it raises reaches all.
            It should give up after some time by itself.
    """

    def __init__(self, begin: Callable[[Asked[Q, A]], None]) -> None:
        self._begin_call = begin
        self._questions: list[Q] = []
        self._waiting: list[asyncio.Future[A]] = []
        self._under_way: set[Asked[Q, A]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Ask a question, whose answer is awaited.

        It is asked whether or not anybody awaits the answer.
        """
        loop = asyncio.get_running_loop()
        if not self._questions:
            self._quiet.clear()
            loop.call_soon(self._begin)
        future: asyncio.Future[A] = loop.create_future()
        self._questions.append(question)
        self._waiting.append(future)
        return future

    async def settled(self) -> None:
        """Wait until everything that was asked is answered."""
        await self._quiet.wait()

    def _begin(self) -> None:
        questions, self._questions = self._questions, []
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(questions), MOST):
            asked = Asked(questions[start : start + MOST], waiting[start : start + MOST], self._told)
            self._under_way.add(asked)
            try:
                self._begin_call(asked)
            except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
                asked.fail(error)

    def _told(self, asked: Asked[Q, A]) -> None:
        self._under_way.discard(asked)
        if not self._questions and not self._under_way:
            self._quiet.set()
