"""What is asked in one tick is one call, and those who wait for it do not depend on each other (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.coalesce import MOST, Asked, Coalescer

pytestmark = pytest.mark.anyio


class Echo:
    """Answers each question with itself in capitals, once it may."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.called = asyncio.Semaphore(0)
        self.may = asyncio.Event()
        self.error: Exception | None = None

    def __call__(self, asked: Asked[str, str]) -> None:
        asked.answer_later(self.answers(asked.questions))

    async def answers(self, questions: Sequence[str]) -> Sequence[str | Exception]:
        self.calls.append(list(questions))
        self.called.release()
        await self.may.wait()
        if self.error:
            raise self.error
        return [StoreUnavailable("bad") if question == "bad" else question.upper() for question in questions]


async def test_one_tick_is_one_call_in_the_order_of_asking() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    questions = ["b", "a", "b", "c"]
    assert await asyncio.gather(*(coalescer.ask(question) for question in questions)) == ["B", "A", "B", "C"]
    assert echo.calls == [questions]


async def test_p9_a_call_has_a_bounded_number_of_questions() -> None:
    """What is beyond does not wait for the first call either: it is asked beside it."""
    echo = Echo()
    coalescer = Coalescer(echo)
    questions = [f"q{n}" for n in range(MOST + 1)]
    asking = [coalescer.ask(question) for question in questions]
    await echo.called.acquire()
    await echo.called.acquire()
    echo.may.set()
    assert await asyncio.gather(*asking) == [question.upper() for question in questions]
    assert echo.calls == [questions[:MOST], questions[MOST:]]


async def test_who_asks_while_a_call_is_under_way_is_answered_by_the_next() -> None:
    """They may have been answered since it began, and must read what they wrote."""
    echo = Echo()
    coalescer = Coalescer(echo)
    first = coalescer.ask("a")
    await echo.called.acquire()
    second = coalescer.ask("a")
    await echo.called.acquire()
    echo.may.set()
    assert [await first, await second] == ["A", "A"]


@pytest.mark.parametrize("ticks", range(4))
async def test_p4_a_cancelled_request_harms_no_other(ticks: int) -> None:
    """Whether the call has begun by then or not, it asks for all of them, and each gets their own answer."""
    echo = Echo()
    coalescer = Coalescer(echo)
    tasks = [coalescer.ask(question) for question in ("a", "b", "a")]
    for _ in range(ticks):
        await asyncio.sleep(0)
    tasks[0].cancel()
    echo.may.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["B", "A"]
    assert echo.calls == [["a", "b", "a"]]


async def test_a_call_is_finished_though_nobody_waits_for_it() -> None:
    """A write that was asked for is carried out; `settled` waits for it."""
    echo = Echo()
    coalescer = Coalescer(echo)
    coalescer.ask("a").cancel()
    echo.may.set()
    await coalescer.settled()
    assert echo.calls == [["a"]]


async def test_an_error_reaches_all_who_wait_and_the_next_call_begins_anew() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    echo.error = StoreUnavailable("down")
    results = await asyncio.gather(*(coalescer.ask(question) for question in "abc"), return_exceptions=True)
    assert results == [echo.error] * 3
    echo.error = None
    assert await coalescer.ask("a") == "A"


async def test_an_answer_that_is_an_error_is_raised_to_the_one_who_asked() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    good, bad = await asyncio.gather(coalescer.ask("a"), coalescer.ask("bad"), return_exceptions=True)
    assert good == "A"
    assert isinstance(bad, StoreUnavailable)


async def test_a_missing_answer_is_an_error_and_no_endless_wait() -> None:
    def none(asked: Asked[str, str]) -> None:
        asked.answer([])

    with pytest.raises(ValueError, match="0 answers to 1"):
        await Coalescer(none).ask("a")


# -- without a task


class Held:
    """Keeps what is asked, for somebody to answer it."""

    def __init__(self) -> None:
        self.calls: list[Asked[str, str]] = []

    def __call__(self, asked: Asked[str, str]) -> None:
        self.calls.append(asked)


async def test_what_is_answered_by_a_callback_needs_no_task() -> None:
    """Who asks hears the answer, an error among them, and another one of another call."""
    held = Held()
    coalescer = Coalescer(held)
    before, asking = asyncio.all_tasks(), [coalescer.ask(question) for question in ("a", "bad", "c")]
    await asyncio.sleep(0)
    later = coalescer.ask("d")
    await asyncio.sleep(0)
    assert [asked.questions for asked in held.calls] == [["a", "bad", "c"], ["d"]]
    assert asyncio.all_tasks() == before
    asking[2].cancel()
    held.calls[1].fail(StoreUnavailable("down"))
    held.calls[0].answer(["A", StoreUnavailable("bad"), "C"])
    results = await asyncio.gather(*asking, later, return_exceptions=True)
    assert [str(result) for result in results] == ["A", "bad", "", "down"]


async def test_what_is_answered_by_a_callback_is_waited_for() -> None:
    held = Held()
    coalescer = Coalescer(held)
    coalescer.ask("a").cancel()
    settled = asyncio.ensure_future(coalescer.settled())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not settled.done()
    held.calls[0].answer(["A"])
    await settled


async def test_who_cannot_make_answers_of_what_was_found_says_so_to_all() -> None:
    """Nobody waits for ever for something that a callback could not do."""

    known = {"a": "A"}

    def found_by(asked: Asked[str, str]) -> None:
        asked.answer_by(lambda: [known[question] for question in asked.questions])

    coalescer = Coalescer(found_by)
    assert await coalescer.ask("a") == "A"
    results = await asyncio.gather(coalescer.ask("a"), coalescer.ask("bad"), return_exceptions=True)
    assert [type(result) for result in results] == [KeyError, KeyError]
    await coalescer.settled()


async def test_who_fails_to_ask_says_so_to_all() -> None:
    def fails(_asked: Asked[str, str]) -> None:
        raise KeyError

    coalescer = Coalescer[str, str](fails)
    results = await asyncio.gather(coalescer.ask("a"), coalescer.ask("b"), return_exceptions=True)
    assert [type(result) for result in results] == [KeyError, KeyError]
    await coalescer.settled()


async def test_who_waits_is_cancelled_with_the_loop() -> None:
    """The task that looks for the answers is cancelled when the loop is shut down, and leaves nobody waiting."""
    before, coalescer = asyncio.all_tasks(), Coalescer(Echo())
    asking = coalescer.ask("a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    [looking] = asyncio.all_tasks() - before
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await coalescer.settled()
