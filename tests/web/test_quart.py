"""Quart: its session object, its errors, and its own ways of serving WebSockets and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgi_line import CLOSED, Line
from quart import Quart, flash, get_flashed_messages, request, session, websocket

from coatcheck import Coatcheck, ConfigurationError, InvalidValue
from coatcheck.web import open_connections
from coatcheck.web.quart import csrf_exempt, current_exchange, init_app

pytestmark = pytest.mark.anyio

CROSS = [("sec-fetch-site", "cross-site")]


class World:
    def __init__(self) -> None:
        self.coat = Coatcheck()
        self.app = Quart("pasted")
        init_app(self.app, self.coat, csrf_exempt=["/by-path"])

    def view(self, rule: str, view: Any, **options: Any) -> None:
        self.app.add_url_rule(rule, rule.strip("/"), view, methods=["GET", "POST"], **options)

    async def sign_in(self) -> dict[str, str]:
        made = await self.coat.sessions.create("ann")
        assert made.cookie is not None
        return {"cookie": f"__Host-session={made.cookie.values[0]}"}


@pytest.fixture
def world() -> World:
    return World()


async def test_its_session_has_what_quart_and_its_extensions_look_at(world: World, browser: Any) -> None:
    async def attributes() -> Any:
        before = (session.new, session.modified, session.permanent)
        session["n"] = 1
        session.modified = True
        await flash("saved")
        return {"before": before, "after": (session.new, session.modified), "keys": sorted(session)}

    async def shown() -> Any:
        return {"messages": get_flashed_messages(), "new": session.new}

    world.view("/attributes", attributes)
    world.view("/shown", shown)
    one = browser(world.app)
    answer = (await one("POST", "/attributes")).json()
    assert answer == {"before": [True, False, False], "after": [True, True], "keys": ["_flashes", "n"]}
    assert (await one("GET", "/shown")).json() == {"messages": ["saved"], "new": False}
    assert (await one("GET", "/shown")).json()["messages"] == []


async def test_what_a_refused_request_wrote_is_not_saved(world: World, browser: Any) -> None:
    """The answer is that of every adapter, and nothing of Quart's is in it."""

    async def writes() -> Any:
        session["half"] = True
        current_exchange().require(scopes=["admin"])

    async def read() -> Any:
        return {**session}

    world.view("/writes", writes)
    world.view("/read", read)
    one = browser(world.app)
    one.jar["__Host-session"] = (await world.sign_in())["cookie"].partition("=")[2]
    answer = await one("POST", "/writes")
    assert (answer.status, answer.json()["code"]) == (403, "insufficient")
    assert "insufficient_scope" in (answer.header("www-authenticate") or "")
    assert (await one("GET", "/read")).json() == {}


@pytest.mark.parametrize("settings", [{}, {"TESTING": True}, {"DEBUG": True}])
async def test_an_error_of_ours_from_after_request_is_answered_as_elsewhere(
    world: World, browser: Any, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Quart asks no error handler about it. Nothing is saved, and no failure of the program is logged."""
    world.app.config.update(settings)

    async def hook(response: Any) -> Any:
        if request.path == "/writes":
            current_exchange().require(scopes=["admin"])
        return response

    async def writes() -> Any:
        session["half"] = True
        return "ok"

    async def read() -> Any:
        return {**session}

    world.app.after_request(hook)
    world.view("/writes", writes)
    world.view("/read", read)
    one = browser(world.app)
    assert (await one("POST", "/writes")).status == 401
    one.jar["__Host-session"] = (await world.sign_in())["cookie"].partition("=")[2]
    answer = await one("POST", "/writes")
    assert (answer.status, answer.json()["code"], answer.all("set-cookie")) == (403, "insufficient", [])
    assert (await one("GET", "/read")).json() == {}
    assert caplog.records == []


async def test_an_error_about_the_program_is_quarts_500(world: World, browser: Any) -> None:
    async def wrong() -> Any:
        raise InvalidValue("not plain data")

    async def hook(response: Any) -> Any:
        if request.path == "/hooked":
            raise InvalidValue("not plain data")
        return response

    async def hooked() -> Any:
        return "ok"

    world.app.after_request(hook)
    world.view("/wrong", wrong)
    world.view("/hooked", hooked)
    for path in ("/wrong", "/hooked"):
        assert (await browser(world.app)("GET", path)).status == 500


async def test_f1_exemptions_are_by_path_or_by_a_mark(world: World, browser: Any) -> None:
    async def ok() -> str:
        return "ok"

    @csrf_exempt
    async def marked(n: int) -> str:
        return "ok"

    world.view("/by-path", ok)
    world.view("/other", ok)
    world.view("/marked/<int:n>", marked)
    one = browser(world.app)
    paths = {"/by-path": 200, "/marked/3": 200, "/other": 403, "/marked/x": 403, "/nowhere": 403}
    assert {path: (await one("POST", path, headers=CROSS)).status for path in paths} == paths


async def test_without_init_app_it_says_what_is_missing(browser: Any) -> None:
    app = Quart("pasted")
    async with app.test_request_context("/"):
        with pytest.raises(ConfigurationError, match="init_app"):
            current_exchange()


async def test_quarts_own_test_client_has_a_session(world: World) -> None:
    async def read() -> Any:
        return {**session}

    world.view("/read", read)
    client = world.app.test_client()
    async with client.session_transaction(scheme="https") as held:
        held["n"] = 1
    answer = await client.get("/read", scheme="https")
    assert await answer.get_json() == {"n": 1}


# -- WebSockets and streams ------------------------------------------------------------------------------------------


async def talk() -> None:
    await websocket.accept()
    while True:
        await websocket.send(await websocket.receive())


async def push() -> None:
    await websocket.accept()
    await asyncio.Event().wait()


async def refused_before() -> None:
    current_exchange().require(scopes=["admin"])


async def refused_after() -> None:
    await websocket.accept()
    current_exchange().require(scopes=["admin"])


@pytest.mark.parametrize(("view", "kinds"), [(refused_before, []), (refused_after, ["websocket.accept"])])
async def test_a_websocket_that_is_refused_is_closed_with_the_reason(world: World, view: Any, kinds: list[str]) -> None:
    world.app.add_websocket("/it", "it", view)
    line = Line(world.app, "websocket", "/it", await world.sign_in())
    assert await line.ended() == [*kinds, "websocket.close"]
    assert line.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "insufficient"}


@pytest.mark.parametrize("settings", [{}, {"TESTING": True}])
@pytest.mark.parametrize("kinds", [[], ["websocket.accept"]])
async def test_a_websocket_that_is_refused_by_after_websocket_is_closed_with_the_reason(
    world: World, kinds: list[str], settings: dict[str, Any]
) -> None:
    world.app.config.update(settings)

    async def accepts() -> None:
        if kinds:
            await websocket.accept()

    async def hook(response: Any) -> Any:
        current_exchange().require(scopes=["admin"])
        return response

    world.app.after_websocket(hook)
    world.app.add_websocket("/it", "it", accepts)
    line = Line(world.app, "websocket", "/it", await world.sign_in())
    assert await line.ended() == [*kinds, "websocket.close"]
    assert line.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "insufficient"}


async def test_f11_an_upgrade_is_judged_like_an_unsafe_request(world: World) -> None:
    world.app.add_websocket("/it", "it", talk)
    world.app.add_websocket("/open", "open", csrf_exempt(push))
    cross = {**await world.sign_in(), "origin": "https://evil.example"}
    line = Line(world.app, "websocket", "/it", cross)
    await line.ended()
    assert line.sent == [{"type": "websocket.close", "code": 1008, "reason": "cross_site"}]
    line = Line(world.app, "websocket", "/open", cross)
    await line.heard("websocket.accept")
    line.task.cancel()


@pytest.mark.parametrize("view", [talk, push], ids=lambda view: view.__name__)
async def test_f11_a_websocket_is_closed_on_revocation(
    world: World, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of the tasks that Quart has made for it is left."""
    monkeypatch.setattr(open_connections, "_EVERY_SECONDS", 0.02)
    world.app.add_websocket("/it", "it", view)
    line = Line(world.app, "websocket", "/it", await world.sign_in())
    await line.heard("websocket.accept")
    await world.coat.sessions.revoke_all("ann")
    assert await line.ended() == ["websocket.accept", "websocket.close"]
    assert line.sent[-1] == CLOSED
    await nothing_is_left()


async def test_f11_a_stream_is_cut_on_revocation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "_EVERY_SECONDS", 0.02)
    cleaned_up = asyncio.Event()

    async def events() -> Any:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"data: hello\n\n"
                await asyncio.Event().wait()
            finally:
                cleaned_up.set()

        return body(), {"content-type": "text/event-stream"}

    world.view("/events", events)
    line = Line(world.app, "http", "/events", await world.sign_in())
    await line.heard("http.response.body")
    await world.coat.sessions.revoke_all("ann")
    assert await line.ended() == ["http.response.start", "http.response.body"]
    assert cleaned_up.is_set()
    await nothing_is_left()


async def nothing_is_left() -> None:
    def quarts() -> list[Any]:
        return [task for task in asyncio.all_tasks() if "quart" in repr(task.get_coro())]

    async with asyncio.timeout(20):
        while quarts():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
