"""What takes too long is ended in time, and nothing else is (P9)."""

from __future__ import annotations

import asyncio

import pytest

from coatcheck.stores.time_limit import TimeLimit

pytestmark = pytest.mark.anyio

NEVER = 3600.0


async def value(event: asyncio.Event) -> str:
    await event.wait()
    return "done"


async def test_what_is_done_in_time_is_returned_and_may_take_no_time_at_all() -> None:
    limit, now, later = TimeLimit(NEVER), asyncio.Event(), asyncio.Event()
    now.set()
    assert await limit.keep(value(now)) == "done"
    waiting = asyncio.create_task(limit.keep(value(later)))
    await asyncio.sleep(0)
    later.set()
    assert await waiting == "done"
    assert not limit._steps


async def test_p9_each_is_ended_in_time_whatever_ended_before_it() -> None:
    limit, events = TimeLimit(0.01), [asyncio.Event() for _ in range(5)]
    for _ in range(2):  # the timer is set again
        waiting = [asyncio.create_task(limit.keep(value(event))) for event in events]
        await asyncio.sleep(0)
        events[0].set()
        answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert answers[0] == "done"
        assert [type(answer) for answer in answers[1:]] == [TimeoutError] * 4
        assert not limit._steps


async def test_who_began_later_has_as_much_time() -> None:
    """One timer watches the oldest; when that is overdue, the next one is not, and is watched from then on."""
    limit, later = TimeLimit(NEVER), asyncio.Event()
    first, second = (asyncio.create_task(limit.keep(value(event))) for event in (asyncio.Event(), later))
    await asyncio.sleep(0)
    next(iter(limit._steps)).until = 0
    limit._check(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        await first
    assert limit._watching
    later.set()
    assert await second == "done"


async def test_who_is_cancelled_is_cancelled_and_not_out_of_time() -> None:
    limit = TimeLimit(NEVER)
    waiting = asyncio.create_task(limit.keep(value(asyncio.Event())))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not limit._steps


async def test_who_is_cancelled_and_out_of_time_at_once_is_cancelled() -> None:
    limit = TimeLimit(NEVER)
    waiting = asyncio.create_task(limit.keep(value(asyncio.Event())))
    await asyncio.sleep(0)
    [step] = limit._steps
    step.until = 0
    limit._check(asyncio.get_running_loop())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_task_goes_on_after_it_was_out_of_time() -> None:
    """It is not left as one that somebody wants to end, else another limit around it would be taken for that."""

    async def twice() -> list[str]:
        said: list[str] = []
        for _ in range(2):
            try:
                await TimeLimit(0.01).keep(value(asyncio.Event()))
            except TimeoutError:
                said.append("late")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return said

    assert await asyncio.create_task(twice()) == ["late", "late"]


async def test_limits_within_each_other_are_told_apart() -> None:
    async def inner() -> str:
        try:
            return await TimeLimit(NEVER).keep(value(asyncio.Event()))
        except TimeoutError:
            return "the inner one"

    with pytest.raises(TimeoutError):
        await TimeLimit(0.01).keep(inner())


async def test_an_error_of_its_own_passes_through() -> None:
    async def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await TimeLimit(NEVER).keep(fails())
