"""Networked stores whose servers go away, are slow, or die: the same promises, and the same tests (P1, P2, P4, P6)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from asgi_browser import Browser
from cancellations import cancelled_requests
from ledger import Ledger, killed
from outages import AWAY, application, coat_on, nothing_leaked, outage, shaken, signed_in
from sites import NETWORKED, Site, Spoil

from coatcheck import StoreUnavailable
from coatcheck.run import run
from coatcheck.testing import FaultProxy, make_record
from coatcheck.testing.records import following
from coatcheck.web.asgi import App, CoatcheckMiddleware, Receive, Scope, Send

T = TypeVar("T")

pytestmark = pytest.mark.anyio

SHORT = timedelta(seconds=0.3)
BOUND = 1.2  # seconds until a refusal; these stores give up after 0.3

# Others take seconds to start again, and "held" is much like "paused": those are for `make soak`.
OUTAGES = [("redis", "killed"), *((kind, fault) for kind in NETWORKED for fault in ("cut", "replies held", "paused"))]
each_kind = pytest.mark.parametrize("kind", NETWORKED)


# -- a store that is away


@pytest.mark.parametrize(("kind", "fault"), OUTAGES)
async def test_p6_a_store_that_is_away_is_503_in_time_and_never_anything_else(site: Site, fault: str) -> None:
    """Whatever a protected page is asked; the cookie is left alone, and the same process goes on when it is back."""
    async with nothing_leaked():
        seen = await outage(site, AWAY[fault], timeout=SHORT)
    assert seen.slowest < BOUND


@each_kind
async def test_p6_connections_that_are_reset_are_200_or_503_and_replaced(site: Site) -> None:
    async with nothing_leaked():
        assert (await shaken(site, FaultProxy.reset, 5)).slowest < BOUND


@each_kind
async def test_p6_a_process_that_starts_while_its_store_is_away(site: Site) -> None:
    """503 in time for who comes with a cookie, and the page for who does not; no restart when it is back."""
    async with coat_on(site.store()) as earlier:
        jar = (await signed_in(application(earlier), "ann")).jar
    site.spoil(FaultProxy.hold)
    coat = coat_on(site.store(timeout=SHORT))
    app = application(coat)
    ann, nobody = Browser(app), Browser(app)
    ann.jar = dict(jar)
    began = time.monotonic()
    answers = await asyncio.gather(*(ann("GET", "/me") for _ in range(10)), nobody("GET", "/public"))
    assert time.monotonic() - began < BOUND
    assert [answer.status for answer in answers] == [503] * 10 + [200]
    assert ann.jar == jar
    site.heal()
    assert await settled(ann) == 200
    await coat.close()


@each_kind
def test_p6_a_store_that_is_away_where_no_event_loop_runs(site: Site) -> None:
    """As WSGI has it: each call blocks, says in time that it cannot be, and works again when the store is back."""
    patient, store = site.store(), site.store(timeout=timedelta(seconds=0.1))
    record = make_record("alice")
    assert run(patient.create(record))
    run(patient.close())
    eventually(lambda: run(store.open()))
    site.spoil(FaultProxy.hold)
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: store.load(record.id),
        lambda: store.create(make_record("alice")),
        lambda: store.replace(following(record)),
        lambda: store.touch(record.id, 1, 2),
        lambda: store.list("alice"),
        lambda: store.delete(make_record().id),
        lambda: store.revoke_subject("bob", 1),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            run(call())
        assert time.monotonic() - began < BOUND
    site.heal()
    assert eventually(lambda: run(store.load(record.id))) in (record, following(record))
    run(store.close())


def eventually(call: Callable[[], T]) -> T:
    deadline = time.monotonic() + 10
    while True:
        try:
            return call()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@each_kind
async def test_p6_connections_that_ended_while_nobody_used_them_cost_no_request(site: Site) -> None:
    """Their end is noticed before they are used."""
    store = site.store()
    records = [make_record() for _ in range(30)]
    assert all(await asyncio.gather(*map(store.create, records)))
    for end in (FaultProxy.reset, FaultProxy.cut):
        site.spoil(end)
        site.heal()
        await asyncio.sleep(0.01)  # the event loop hears of it
        assert await store.load(records[0].id) == records[0]
        assert all(await asyncio.gather(*(store.replace(following(record)) for record in records)))
        records = [following(record) for record in records]
    await store.close()


# -- servers that die


@pytest.mark.parametrize(("kind", "rounds"), [("redis", 5), ("postgres", 1)])
async def test_p1_p2_nothing_acknowledged_is_undone_by_kill_9(site: Site, rounds: int) -> None:
    """Killed amid writes: who was signed in is there, who was signed out is not, and nobody is restarted."""
    ledger = Ledger(site.store())
    try:
        await killed(site, ledger, rounds)
    finally:
        await ledger.store.close()
    assert len(ledger.kept) > 20
    assert len(ledger.ended) > 100
    assert ledger.refusals > 0


# -- sign-outs in doubt


DOUBTS: dict[str, Spoil] = {"not heard": FaultProxy.hold, "not answered": FaultProxy.hold_replies}


@pytest.mark.parametrize("doubt", list(DOUBTS))
@each_kind
async def test_p1_a_sign_out_in_doubt_is_503_and_refused_here_at_once(site: Site, doubt: str) -> None:
    """Whether the store has heard of it or not: never "done", the cookie is left alone, and a second try ends it."""

    async def sign_out(scope: Scope, receive: Receive, send: Send) -> None:
        site.spoil(DOUBTS[doubt])  # now, for the session had to be found first
        await scope["coatcheck"].sign_out()
        raise AssertionError("it cannot be done")

    async with coat_on(site.store(timeout=SHORT)) as coat, coat_on(site.store()) as elsewhere:
        jar = (await signed_in(application(coat), "ann")).jar
        apps: list[App] = [CoatcheckMiddleware(sign_out, coatcheck=coat), application(coat), application(elsewhere)]
        leaving, here, there = (Browser(app) for app in apps)
        for browser in (leaving, here, there):
            browser.jar = dict(jar)
        assert (await leaving("POST", "/")).status == 503
        site.heal()
        assert await settled(here) == 401
        assert await settled(there) == 401
        assert leaving.jar == here.jar == there.jar == jar


async def settled(browser: Browser) -> int:
    """Return the first status of a protected page that is not 503; it must come within 10 s."""
    deadline = time.monotonic() + 10
    while (answer := await browser("GET", "/me")).status == 503:
        assert time.monotonic() < deadline
    return answer.status


@each_kind
async def test_p1_a_sign_out_whose_request_was_cancelled_is_carried_out(site: Site) -> None:
    """What a store was told to do is done, whether or not somebody waits (see `run.settle`)."""
    store = site.store()
    record, other = make_record("alice"), make_record("bob")
    assert await store.create(record)
    assert await store.create(other)
    site.spoil(FaultProxy.hold)
    tasks = [asyncio.ensure_future(store.revoke_subject("alice", 1)), asyncio.ensure_future(store.delete(other.id))]
    await asyncio.sleep(0.01)  # they are under way
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    site.heal()
    async with asyncio.timeout(10):
        while await store.load(record.id) is not None or await store.load(other.id) is not None:
            pass
    await store.close()


@each_kind
async def test_p4_a_cancelled_request_leaves_its_reply_to_nobody(site: Site) -> None:
    """Requests that are cancelled at random awaits, before and amid replies: who is answered gets what is theirs."""
    seen = await cancelled_requests(site, 1200, random.Random(7))  # noqa: S311 (a seed is to be repeatable)
    assert seen.answered > 200
    assert seen.cancelled > 200


# -- many at once


@each_kind
async def test_p6_1000_requests_at_once_wait_for_a_connection_and_get_one(site: Site) -> None:
    """Through the middleware, reads and writes, each with a session of its own: nobody is refused."""
    async with coat_on(site.store(timeout=timedelta(seconds=10))) as coat:
        app = application(coat)
        people = await asyncio.gather(*(signed_in(app, f"user{number}") for number in range(250)))
        asked = [(browser, *ask) for browser in people for ask in (("GET", "/me"), ("POST", "/write?key=a")) * 2]
        answers = await asyncio.gather(*(browser(method, path) for browser, method, path in asked))
        assert {(answer.status, answer.body) for answer in answers[:4]} == {(200, b"user0 user0")}
        assert [answer.status for answer in answers] == [200] * 1000
        assert max(proxy.connections for proxy in site.proxies) <= 17


@each_kind
def test_p6_1000_calls_of_50_threads_get_a_connection(site: Site) -> None:
    store, record = site.store(timeout=timedelta(seconds=10)), make_record()
    assert run(store.create(record))
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: run(store.load(record.id)), range(1000)))
    assert found == [record] * 1000
    run(store.close())
