"""Figures of networked stores behind proxies: outages, servers that are killed, cancelled requests, leaks."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]
import pytest
from asgi_browser import Browser
from cancellations import cancelled_requests
from ledger import Ledger, killed
from outages import AWAY, application, coat_on, held, nothing_leaked, outage, shaken, signed_in
from sites import NETWORKED, Site
from soaking import MINUTES, Soak

from coatcheck.testing import FaultProxy

pytestmark = pytest.mark.anyio

BOUND = 1.2  # seconds until a refusal
RECOVERY = 2.0  # seconds until all is as usual, once a store is back
MANY = 100_000
each_kind = pytest.mark.parametrize("kind", NETWORKED)


# -- a store that is away (P6)


@pytest.mark.parametrize("seconds", [seconds for seconds in (1, 5, 30) if seconds <= MINUTES])
@pytest.mark.parametrize("fault", list(AWAY))
@each_kind
async def test_p6_a_store_is_away(site: Site, fault: str, seconds: int, soak: Soak) -> None:
    async with nothing_leaked():
        seen = await outage(site, AWAY[fault], seconds=seconds)
    times = f"at most {seen.slowest:.2f} s each, {seen.recovery:.2f} s to recover"
    soak.report(f"store {fault} for {seconds} s", f"{seen.refused} refusals", times)
    assert seen.slowest < BOUND
    assert seen.recovery < RECOVERY


@each_kind
async def test_p6_200_ms_of_latency(site: Site, soak: Soak) -> None:
    seen = await shaken(site, lambda proxy: proxy.delay(0.1), 1)
    soak.report("200 ms of latency", f"{seen.refused} refusals", f"at most {seen.slowest:.2f} s each")
    assert seen.slowest < BOUND


@each_kind
async def test_p6_resets(site: Site, soak: Soak) -> None:
    async with nothing_leaked():
        seen = await shaken(site, FaultProxy.reset, 100)
    soak.report("100 resets of all connections", f"{seen.refused} refusals", f"at most {seen.slowest:.2f} s each")
    assert seen.slowest < BOUND


# -- servers that are killed (P1, P2)


@pytest.mark.parametrize(("kind", "options"), [("redis", {}), ("cluster", {"wait_replicas": 1}), ("postgres", {})])
async def test_p1_p2_kill_9_of_the_servers(site: Site, options: dict[str, int], soak: Soak) -> None:
    store, kills = site.store(**options), 0
    ledger = Ledger(store)
    while kills == 0 or soak.going(0.08, done=min(kills * MANY // 100, len(ledger.ended)), aim=MANY):
        await killed(site, ledger, 1, more=25)  # about 1000 sign-outs
        kills += 1
    await store.close()
    soak.report(f"kill -9 of the servers, {kills} times", f"{len(ledger.ended)} sign-outs", "0 came back")
    soak.report(f"kill -9 of the servers, {kills} times", f"{len(ledger.kept)} sign-ins", "0 lost")


# -- replies, descriptors, memory: P4 and P9


@each_kind
async def test_p4_cancelled_requests(site: Site, soak: Soak) -> None:
    done = cancelled = 0
    while done == 0 or soak.going(0.02, done=done, aim=MANY):
        seen = await cancelled_requests(site, 5000, random.Random(done))  # noqa: S311 (a seed is to be repeatable)
        done, cancelled = done + 5000, cancelled + seen.cancelled
    soak.report("requests cancelled at a random await", f"{cancelled} of {done}", "0 replies to another")


@each_kind
async def test_p9_nothing_grows(site: Site, soak: Soak) -> None:
    """Under load, with a reset now and then; the first part is for what is filled once."""
    async with nothing_leaked(), coat_on(site.store()) as coat:
        app = application(coat)
        people = [await signed_in(app, f"user{number}") for number in range(16)]
        await _load(site, people, lambda: soak.going(0.01))
        before, memory, began = held(), _memory(), time.monotonic()
        count = await _load(site, people, lambda: soak.going(0.04))
        grown, seconds, after = _memory() - memory, time.monotonic() - began, held()
    soak.report("memory under load", f"{count} requests", f"{grown:+.2f} MiB in {seconds:.0f} s")
    soak.report("held under load", f"{count} requests", f"{dict(before)}, then {dict(after)}")
    assert grown < 8
    assert after["threads"] == before["threads"]
    # As many connections as there may be to each server, of three descriptors, for the proxies are here as well.
    assert after["descriptors"] - before["descriptors"] <= 16 * 3 * len(site.servers)


async def _load(site: Site, people: list[Browser], going: Callable[[], bool]) -> int:
    count = 0

    async def visit(number: int) -> None:
        nonlocal count
        while going():
            answer = await people[number]("GET", "/me") if count % 4 else await people[number]("POST", "/write?key=k")
            assert (answer.status, answer.body) in ((503, answer.body), (200, f"user{number} user{number}".encode()))
            count += 1
            if count % 5000 == 0:
                await asyncio.to_thread(site.spoil, FaultProxy.reset)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(visit(number) for number in range(len(people))))
    return count


def _memory() -> float:
    """Return how many MiB this process has in memory."""
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)
