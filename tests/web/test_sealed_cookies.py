"""Sealed sessions from the wire: what the browser is given, what it sends back, and what becomes of that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgi_browser import Answer, Browser
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from coatcheck import Coatcheck, InvalidValue, Policy, Sealed
from coatcheck.core.set_cookie import parse_set_cookie
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.testing import SettableClock, signed_in
from coatcheck.web.asgi import CoatcheckMiddleware, exchange

pytestmark = pytest.mark.anyio

NAMES = ("__Host-session", "__Host-session-2")
SEEN = "__Host-seen"


async def read(request: Request) -> Response:
    principal = exchange(request).principal
    return JSONResponse({"subject": principal and principal.subject, **request.session})


async def plain(_: Request) -> Response:
    return PlainTextResponse("hello", headers={"cache-control": "public, max-age=60"})


async def write(request: Request) -> Response:
    for key, value in request.query_params.items():
        request.session[key] = "." * int(value) if value.isdigit() else value
    return PlainTextResponse("written")


async def sign_in(request: Request) -> Response:
    await exchange(request).sign_in("ann", persistent="remember" in request.query_params)
    return PlainTextResponse("ok")


async def sign_out(request: Request) -> Response:
    return JSONResponse(await exchange(request).sign_out())


async def everywhere(request: Request) -> Response:
    return JSONResponse(await exchange(request).sign_out_everywhere())


async def others(request: Request) -> Response:
    return JSONResponse(await exchange(request).sign_out_others())


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session["late"] = True

    return StreamingResponse(body())


HANDLERS = (read, plain, write, sign_in, sign_out, everywhere, others, stream)


class World:
    def __init__(self, **policy: Any) -> None:
        self.clock = SettableClock()
        self.coat = Coatcheck(Sealed(), policy=Policy(**policy), clock=self.clock)
        routes = [Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]) for handler in HANDLERS]
        self.app = Starlette(routes=routes, middleware=[Middleware(CoatcheckMiddleware, coatcheck=self.coat)])

    def browser(self, like: Browser | None = None) -> Browser:
        made = Browser(self.app)
        made.jar = dict(like.jar) if like else {}
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.coat:
        yield made


async def read_as(browser: Browser, **cookies: str) -> Any:
    sent = "; ".join(f"{name}={value}" for name, value in {**browser.jar, **cookies}.items())
    answer = await browser("GET", "/read", cookies=sent)
    assert answer.all("set-cookie") == []
    return answer.json()


def set_names(answer: Answer) -> list[str]:
    return [line.partition("=")[0] for line in answer.all("set-cookie")]


async def test_a_sign_in_gives_one_cookie_with_the_attributes_of_any_session(world: World) -> None:
    """C1, C7, C18."""
    browser = world.browser()
    answer = await browser("POST", "/sign_in")
    [line] = answer.all("set-cookie")
    assert line.startswith("__Host-session=21.A")
    assert line.partition(";")[2] == " Path=/; Secure; HttpOnly; SameSite=Lax"
    assert (answer.header("cache-control"), answer.header("vary")) == ("no-store", "Cookie, Authorization")
    assert await read_as(browser) == {"subject": "ann"}


async def test_a_request_that_only_reads_is_sent_nothing(world: World) -> None:
    """C18, S21: and one that does not even look is cached as ever, until its use is due to be noted."""
    browser = world.browser()
    assert (await browser("GET", "/read")).all("set-cookie") == []
    await browser("POST", "/sign_in")
    cached = await browser("GET", "/plain")
    assert (set_names(cached), cached.header("cache-control")) == ([], "public, max-age=60")
    world.clock.advance(timedelta(minutes=1))
    noted = await browser("GET", "/plain")
    assert (set_names(noted), noted.header("cache-control")) == ([SEEN], "no-store")
    assert set_names(await browser("GET", "/plain")) == []


async def test_a_persistent_session_s_cookies_all_last_as_long_as_it_does(world: World) -> None:
    browser = world.browser()
    await browser("POST", "/sign_in?remember=1")
    world.clock.advance(timedelta(days=6))
    for answer in (await browser("GET", "/read"), await browser("POST", "/write?x=5000")):
        for line in answer.all("set-cookie"):
            cookie = parse_set_cookie(line.encode(), now=world.clock())
            assert cookie is not None
            if "Max-Age=0" not in line:
                assert cookie.expires_at == world.clock() + timedelta(days=24) // timedelta(milliseconds=1)


async def test_a_session_grows_into_a_second_cookie_and_back(world: World) -> None:
    """C3: and the one that is not needed any more is taken back, in the same answer."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    assert set_names(await browser("POST", "/write?x=4000")) == list(NAMES)
    assert len((await read_as(browser))["x"]) == 4000
    assert set_names(await browser("POST", "/write?x=5000")) == list(NAMES)
    shrunk = await browser("POST", "/write?x=1")
    assert set_names(shrunk) == list(NAMES)
    assert "Max-Age=0" in shrunk.all("set-cookie")[1]
    assert set(browser.jar) == {NAMES[0]}
    assert await read_as(browser) == {"subject": "ann", "x": "."}


async def test_what_is_too_large_is_an_error_before_anything_is_sent(world: World) -> None:
    """C3: never silently cut, and the browser keeps what it had."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    await browser("POST", "/write?x=kept")
    before = dict(browser.jar)
    with pytest.raises(InvalidValue, match="5343"):
        await browser("POST", "/write?x=6000")
    assert browser.jar == before
    assert await read_as(browser) == {"subject": "ann", "x": "kept"}


async def test_p3_a_note_that_comes_late_undoes_no_write(world: World) -> None:
    """Two requests at once, a minute later: both are due, one of them writes, and its answer is the first to arrive."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    world.clock.advance(timedelta(minutes=1))
    slow = world.browser(browser)
    late = await slow("GET", "/read")
    await browser("POST", "/write?x=new")
    for line in late.all("set-cookie"):
        name, _, rest = line.partition("=")
        browser.jar[name] = rest.partition(";")[0]
    assert set_names(late) == [SEEN]
    assert await read_as(browser) == {"subject": "ann", "x": "new"}


async def test_p3_the_limit_of_two_writers_the_later_answer_wins(world: World) -> None:
    """What the page says: the state is with the browser, and there is no place where the two could meet."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    tabs = [world.browser(browser), world.browser(browser)]
    await asyncio.gather(tabs[0]("POST", "/write?a=one"), tabs[1]("POST", "/write?b=two"))
    assert [await read_as(tab) for tab in tabs] == [{"subject": "ann", "a": "one"}, {"subject": "ann", "b": "two"}]


async def test_s4_what_a_visit_had_stored_comes_along_and_its_cookie_is_dead(world: World) -> None:
    browser = world.browser()
    await browser("POST", "/write?cart=umbrella")
    before = world.browser(browser)
    await browser("POST", "/sign_in")
    assert await read_as(browser) == {"subject": "ann", "cart": "umbrella"}
    assert await read_as(before) == {"subject": None}


async def test_a_request_that_comes_late_does_not_undo_a_sign_in(world: World) -> None:
    """It carries the cookie of the visit before, writes something, and is given no session of its own."""
    browser = world.browser()
    await browser("POST", "/write?cart=umbrella")
    late = world.browser(browser)
    await browser("POST", "/sign_in")
    assert (await late("POST", "/write?cart=late")).all("set-cookie") == []
    world.clock.advance(timedelta(minutes=1))
    assert set_names(await late("POST", "/write?cart=new")) == [NAMES[0]]


async def test_p1_a_sign_out_takes_all_cookies_back_and_a_copy_of_them_is_dead(world: World) -> None:
    browser = world.browser()
    await browser("POST", "/sign_in")
    await browser("POST", "/write?x=5000")
    world.clock.advance(timedelta(minutes=2))
    await browser("GET", "/read")
    assert set(browser.jar) == {*NAMES, SEEN}
    thief = world.browser(browser)
    assert (await browser("POST", "/sign_out")).json() is True
    assert browser.jar == {}
    assert await read_as(thief) == {"subject": None}
    assert (await thief("POST", "/write?x=again")).all("set-cookie") == []


async def test_p1_signing_out_everywhere_ends_all_devices(world: World) -> None:
    devices = [world.browser() for _ in range(3)]
    for device in devices:
        await device("POST", "/sign_in")
    assert (await devices[0]("POST", "/everywhere")).json() == 0
    assert devices[0].jar == {}
    assert [await read_as(device) for device in devices] == [{"subject": None}] * 3
    await devices[0]("POST", "/sign_in")
    assert await read_as(devices[0]) == {"subject": "ann"}


async def test_p1_signing_the_others_out_leaves_this_one_and_kills_its_own_copies(world: World) -> None:
    here, there = world.browser(), world.browser()
    for device in (here, there):
        await device("POST", "/sign_in")
    await here("POST", "/write?x=kept")
    copy = world.browser(here)
    await here("POST", "/others")
    assert await read_as(here) == {"subject": "ann", "x": "kept"}
    assert [await read_as(each) for each in (there, copy)] == [{"subject": None}] * 2


async def test_what_a_streamed_body_changes_is_dropped_and_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The cookie left with the head of the response: saying so is better than pretending."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    with caplog.at_level(logging.WARNING, "coatcheck"):
        assert (await browser("GET", "/stream")).status == 200
    assert "edits dropped" in caplog.text
    assert await read_as(browser) == {"subject": "ann"}


async def test_f1_other_sites_cannot_use_the_cookie(world: World) -> None:
    browser = world.browser()
    await browser("POST", "/sign_in")
    assert (await browser("POST", "/write?x=1", headers=[("sec-fetch-site", "cross-site")])).status == 403


async def test_c13_cookies_that_do_not_belong_together_are_nobody_s_and_are_left_alone(world: World) -> None:
    """Refused, not read in part; and whoever signs in has all of them put right."""
    one, two = world.browser(), world.browser()
    for browser in (one, two):
        await browser("POST", "/sign_in")
        await browser("POST", "/write?x=5000")
    mixed = world.browser(one)
    mixed.jar[NAMES[1]] = two.jar[NAMES[1]]
    half = world.browser(one)
    del half.jar[NAMES[1]]
    for browser in (mixed, half):
        assert await read_as(browser) == {"subject": None}
        await browser("POST", "/sign_in")
        assert set(browser.jar) == {NAMES[0]}
        assert await read_as(browser) == {"subject": "ann"}


def test_a_test_client_is_signed_in_by_all_the_cookies_that_it_takes() -> None:
    world = World()
    with TestClient(world.app, base_url="https://app.example") as client:
        signed_in(client, world.coat, "ann", data={"x": "." * 4000})
        assert len(client.get("/read").json()["x"]) == 4000


def test_without_an_event_loop_it_works_as_well() -> None:
    """WSGI: nothing of it ever waits."""
    coat = Coatcheck(Sealed())
    visit = run(Exchange.begin(RequestHead("POST", "https", []), coat.sessions, coat.verifier))
    run(visit.sign_in("ann"))
    run(visit.finish())
    [cookie] = [value.partition(b";")[0] for name, value in visit.dress([]) if name == b"set-cookie"]
    again = run(Exchange.begin(RequestHead("POST", "https", [(b"cookie", cookie)]), coat.sessions, coat.verifier))
    assert again.require().subject == "ann"
    assert run(again.sign_out())


def test_p1_a_note_of_a_session_that_has_ended_is_not_sent() -> None:
    """A streamed answer's handler may sign out after the use was noted: what goes out takes the cookies back."""
    clock = SettableClock()
    coat = Coatcheck(Sealed(), clock=clock)
    made = run(coat.sessions.create("ann"))
    assert made.cookie is not None
    head = RequestHead("POST", "https", [(b"cookie", f"{NAMES[0]}={made.cookie.values[0]}".encode())])
    clock.advance(timedelta(minutes=1))
    found = run(Exchange.begin(head, coat.sessions, coat.verifier))
    run(found.finish())
    assert found.session.note
    assert run(found.sign_out())
    [line] = [value for name, value in found.dress([]) if name == b"set-cookie"]
    assert line.startswith(b"__Host-session=; Max-Age=0")


async def test_of_two_writes_at_once_the_later_answer_leaves_a_session(world: World) -> None:
    """P3, P8: also where the earlier one has set a second cookie of which the later one does not know."""
    browser = world.browser()
    await browser("POST", "/sign_in")
    large, small = world.browser(browser), world.browser(browser)
    await large("POST", "/write?x=4900")
    await small("POST", "/write?y=1")
    browser.jar = {**large.jar, **small.jar}
    assert sorted(browser.jar) == list(NAMES)
    assert await read_as(browser) == {"subject": "ann", "y": "."}
    await browser("POST", "/write?z=1")
    assert list(browser.jar) == [NAMES[0]]
    assert await read_as(browser) == {"subject": "ann", "y": ".", "z": "."}
