"""The loads of one tick are one call, and those who wait for it do not depend on each other (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.coalesce import Coalescer

pytestmark = pytest.mark.anyio


class Echo:
    """Answers each key with itself in capitals, once it may."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.called = asyncio.Semaphore(0)
        self.may = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[str]) -> Mapping[str, str | Exception]:
        self.calls.append(list(keys))
        self.called.release()
        await self.may.wait()
        if self.error:
            raise self.error
        found: dict[str, str | Exception] = {key: key.upper() for key in keys if key != "missing"}
        return found | {key: StoreUnavailable(key) for key in keys if key == "bad"}


async def test_one_tick_is_one_call_of_distinct_keys() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    keys = ["a", "b", "a", "missing"]
    assert await asyncio.gather(*(coalescer.load(key) for key in keys)) == ["A", "B", "A", None]
    assert echo.calls == [["a", "b", "missing"]]


async def test_who_asks_while_a_call_is_under_way_is_answered_by_the_next() -> None:
    """They may have written since it began, and must read what they wrote."""
    echo = Echo()
    coalescer = Coalescer(echo)
    first = asyncio.create_task(coalescer.load("a"))
    await echo.called.acquire()
    second = asyncio.create_task(coalescer.load("a"))
    await echo.called.acquire()
    echo.may.set()
    assert [await first, await second] == ["A", "A"]


@pytest.mark.parametrize("ticks", range(4))
async def test_a_cancelled_request_harms_no_other(ticks: int) -> None:
    """Whether the call has begun by then or not, and even for the same key."""
    echo = Echo()
    coalescer = Coalescer(echo)
    tasks = [asyncio.create_task(coalescer.load(key)) for key in ("a", "b", "a")]
    for _ in range(ticks):
        await asyncio.sleep(0)
    tasks[0].cancel()
    echo.may.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["B", "A"]


async def test_an_error_reaches_all_who_wait_and_the_next_call_begins_anew() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    echo.error = StoreUnavailable("down")
    results = await asyncio.gather(*(coalescer.load(key) for key in "abc"), return_exceptions=True)
    assert results == [echo.error] * 3
    echo.error = None
    assert await coalescer.load("a") == "A"


async def test_an_error_of_one_key_reaches_those_who_wait_for_it() -> None:
    echo = Echo()
    coalescer = Coalescer(echo)
    echo.may.set()
    good, bad = await asyncio.gather(coalescer.load("a"), coalescer.load("bad"), return_exceptions=True)
    assert good == "A"
    assert isinstance(bad, StoreUnavailable)
