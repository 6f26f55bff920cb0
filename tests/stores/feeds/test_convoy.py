"""Convoy: what comes while a call is under way goes together with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coatcheck.feeds.convoy import Convoy

pytestmark = pytest.mark.anyio


class Road:
    """Where calls are under way until they are let through; what is called "bad" fails."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.free = asyncio.Event()

    async def send_all(self, items: Sequence[str]) -> None:
        self.calls.append(list(items))
        await self.free.wait()
        if "bad" in items:
            raise ConnectionError("bad")


async def test_what_comes_meanwhile_goes_together_and_each_learns_how_their_own_call_went() -> None:
    road = Road()
    convoy = Convoy(road.send_all)
    first = asyncio.create_task(convoy.send(["a", "b"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    behind = [asyncio.create_task(convoy.send([item])) for item in ("c", "bad", "d")]
    await asyncio.sleep(0)
    assert road.calls == [["a", "b"]]
    road.free.set()
    await first
    await asyncio.wait(behind)
    for each in behind:
        assert isinstance(each.exception(), ConnectionError)
    await convoy.send(["e"])
    assert road.calls == [["a", "b"], ["c", "bad", "d"], ["e"]]


async def test_that_somebody_stops_waiting_stops_nothing() -> None:
    road = Road()
    convoy = Convoy(road.send_all)
    impatient = [asyncio.create_task(convoy.send([item])) for item in ("bad", "b")]
    await asyncio.sleep(0)
    for each in impatient:
        each.cancel()
    await asyncio.wait(impatient)
    patient = asyncio.create_task(convoy.send(["c"]))
    await asyncio.sleep(0)
    road.free.set()
    await patient
    await convoy.settled()
    assert road.calls == [["bad", "b"], ["c"]]


async def test_settled_when_everything_has_arrived() -> None:
    road = Road()
    convoy = Convoy(road.send_all)
    await convoy.settled()
    sending = [asyncio.create_task(convoy.send([item])) for item in "ab"]
    await asyncio.sleep(0)
    settling = asyncio.create_task(convoy.settled())
    await asyncio.sleep(0)
    assert not settling.done()
    road.free.set()
    await settling
    await asyncio.wait(sending)
    assert [item for call in road.calls for item in call] == ["a", "b"]
