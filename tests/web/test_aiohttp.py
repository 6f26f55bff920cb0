"""aiohttp, over real connections: its responses, its errors, and its own ways of serving WebSockets and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, DummyCookieJar, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestServer
from counting_store import CountingStore

from coatcheck import Coatcheck, ConfigurationError, Cookie, InvalidValue, Policy
from coatcheck.web import open_connections
from coatcheck.web.aiohttp import csrf_exempt, exchange, init_app

pytestmark = pytest.mark.anyio

PATIENCE = 20  # seconds


class World:
    """An application, and a client of it that keeps no cookies."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.coat = Coatcheck(self.store, policy=Policy())
        self.app = web.Application()
        init_app(self.app, self.coat, csrf_exempt=["/by-path"])
        self.client = ClientSession(cookie_jar=DummyCookieJar())
        self.server = TestServer(self.app)
        self.gone = asyncio.Event()

    def route(self, path: str, handler: Any) -> None:
        self.app.router.add_route("*", path, handler)

    async def url(self, path: str) -> str:
        if not self.server.started:
            await self.server.start_server()
        return str(self.server.make_url(path))

    async def sign_in(self) -> dict[str, str]:
        made = await self.coat.sessions.create("ann")
        assert made.cookie is not None
        return {"cookie": f"__Host-session={made.cookie.values[0]}"}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(open_connections, "_EVERY_SECONDS", 0.02)
    made = World()
    async with asyncio.timeout(PATIENCE):
        yield made
        await made.client.close()
        await made.server.close()
    assert not made.coat.is_open


async def test_a_response_that_is_raised_is_as_good_as_one_that_is_returned(world: World) -> None:
    """aiohttp's redirects are exceptions. What the application sets itself stays."""

    async def sign_in(request: web.Request) -> web.Response:
        await exchange(request).sign_in("ann")
        answer = web.HTTPSeeOther("/home")
        answer.set_cookie("__Host-session", "theirs")
        answer.set_cookie("theme", "dark")
        raise answer

    world.route("/sign-in", sign_in)
    async with world.client.post(await world.url("/sign-in"), allow_redirects=False) as answer:
        cookies = answer.headers.getall("set-cookie")
        assert (answer.status, answer.headers["location"], len(cookies)) == (303, "/home", 2)
        assert [cookie.partition("=")[0] for cookie in sorted(cookies)] == ["__Host-session", "theme"]
        assert "theirs" not in str(cookies)
        assert answer.headers["cache-control"] == "no-store"


async def test_what_a_refused_request_wrote_is_not_saved(world: World) -> None:
    async def writes(request: web.Request) -> web.Response:
        exchange(request).session["half"] = True
        exchange(request).require(scopes=["admin"])
        return web.Response()

    async def read(request: web.Request) -> web.Response:
        return web.json_response({**exchange(request).session})

    world.route("/writes", writes)
    world.route("/read", read)
    cookie = await world.sign_in()
    async with world.client.get(await world.url("/writes"), headers=cookie) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "insufficient")
        assert "insufficient_scope" in answer.headers["www-authenticate"]
    async with world.client.get(await world.url("/read"), headers=cookie) as answer:
        assert await answer.json() == {}


@pytest.mark.parametrize("error", [InvalidValue("not plain data"), ValueError("a fault"), web.HTTPBadGateway()])
async def test_what_is_the_programs_fault_is_aiohttps_answer_and_nothing_is_saved(world: World, error: Any) -> None:
    async def wrong(request: web.Request) -> web.Response:
        exchange(request).session["half"] = True
        raise error

    world.route("/wrong", wrong)
    async with world.client.get(await world.url("/wrong")) as answer:
        assert answer.status in (500, 502)
        assert "set-cookie" not in answer.headers
    assert world.store.calls["create"] == 0


async def test_f1_exemptions_are_by_path_or_by_a_mark(world: World) -> None:
    async def ok(request: web.Request) -> web.Response:
        return web.Response()

    @csrf_exempt
    async def marked(request: web.Request) -> web.Response:
        return web.Response()

    world.route("/by-path", ok)
    world.route("/other", ok)
    world.route("/marked/{n}", marked)
    expected = {"/by-path": 200, "/marked/3": 200, "/other": 403, "/nowhere": 403}
    found = {}
    for path in expected:
        async with world.client.post(await world.url(path), headers={"sec-fetch-site": "cross-site"}) as answer:
            found[path] = answer.status
    assert found == expected


async def test_without_init_app_it_says_what_is_missing() -> None:
    from aiohttp.test_utils import make_mocked_request

    with pytest.raises(ConfigurationError, match="init_app"):
        exchange(make_mocked_request("GET", "/"))


async def test_one_path_is_not_several() -> None:
    with pytest.raises(ConfigurationError, match="csrf_exempt"):
        init_app(web.Application(), Coatcheck(), csrf_exempt="/hook")


async def test_what_a_stream_writes_is_saved_before_and_after_it(world: World) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        exchange(request).session["early"] = True
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        exchange(request).session["late"] = True
        await response.write_eof()
        return response

    world.route("/stream", stream)
    async with world.client.get(await world.url("/stream")) as answer:
        assert await answer.read() == b"one"
        value = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    session = await world.coat.sessions.find(value.partition(".")[0][1:])
    assert dict(session) == {"early": True, "late": True}


async def test_p6_a_stream_that_cannot_be_begun_is_503(world: World) -> None:
    """Though aiohttp has made ready to send it in chunks, and compressed."""

    async def stream(request: web.Request) -> web.StreamResponse:
        exchange(request).session["early"] = True
        response = web.StreamResponse()
        response.enable_compression()
        response.enable_chunked_encoding()
        world.store.broken = True
        await response.prepare(request)
        return response

    world.route("/stream", stream)
    async with world.client.get(await world.url("/stream"), headers=await world.sign_in()) as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_p6_an_application_starts_while_its_store_is_down(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so; who has no credential is served."""
    from coatcheck import StoreUnavailable

    async def down() -> None:
        raise StoreUnavailable("down")

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    world.route("/", hello)
    cookie = await world.sign_in()
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "open", down)
        async with world.client.get(await world.url("/")) as answer:
            assert answer.status == 200
        async with world.client.get(await world.url("/"), headers=cookie) as answer:
            assert (answer.status, "set-cookie" in answer.headers) == (503, False)
    assert "not opened at start-up" in caplog.text
    async with world.client.get(await world.url("/"), headers=cookie) as answer:
        assert answer.status == 200


# -- WebSockets and streams ------------------------------------------------------------------------------------------


async def talk(request: web.Request) -> web.WebSocketResponse:
    talking = web.WebSocketResponse()
    await talking.prepare(request)
    async for message in talking:
        await talking.send_str(message.data)
    return talking


async def push(request: web.Request) -> web.WebSocketResponse:
    """Waits for something that never comes, and does not listen."""
    pushing = web.WebSocketResponse()
    await pushing.prepare(request)
    try:
        await asyncio.Event().wait()
    finally:
        request.app[GONE].set()
    return pushing


GONE = web.AppKey("GONE", asyncio.Event)


async def test_f11_an_upgrade_is_judged_like_an_unsafe_request(world: World) -> None:
    world.route("/talk", talk)
    url, cookie = await world.url("/talk"), await world.sign_in()
    with pytest.raises(WSServerHandshakeError) as refused:
        await world.client.ws_connect(url, headers={**cookie, "origin": "https://evil.example"})
    assert refused.value.status == 403
    ours = await world.client.ws_connect(url, headers={**cookie, "origin": url.rpartition("/")[0]})
    await ours.send_str("hello")
    assert await ours.receive_str() == "hello"
    await ours.close()


@pytest.mark.parametrize("handler", [talk, push], ids=lambda handler: handler.__name__)
async def test_f11_a_websocket_is_closed_on_revocation(world: World, handler: Any) -> None:
    world.route("/it", handler)
    world.app[GONE] = world.gone
    url = await world.url("/it")
    socket, other = [await world.client.ws_connect(url, headers=await world.sign_in()) for _ in range(2)]
    anonymous = await world.client.ws_connect(url)
    [first, _] = await world.coat.sessions.list("ann")
    await world.coat.sessions.revoke_all("ann", keep=first.id)
    done, _ = await asyncio.wait(
        [asyncio.ensure_future(one.receive()) for one in (socket, other)], return_when=asyncio.FIRST_COMPLETED
    )
    [closed] = [task.result() for task in done]
    assert (closed.type, closed.data, closed.extra) == (WSMsgType.CLOSE, 1008, "revoked")
    await world.coat.sessions.revoke_all("ann")
    if handler is push:
        await world.gone.wait()
    assert not anonymous.closed


async def test_f11_streams_and_files_are_cut_on_revocation(world: World, tmp_path: Path) -> None:
    """And what the handler of a stream has to clean up it cleans up."""

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            await asyncio.Event().wait()
        finally:
            world.gone.set()
        return response

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    path = tmp_path / "large"
    with path.open("wb") as large:
        large.truncate(200 * 1024 * 1024)
    world.route("/events", events)
    world.route("/file", file)
    cookie = await world.sign_in()
    streams = [await world.client.get(await world.url(path), headers=cookie) for path in ("/events", "/file")]
    assert [stream.status for stream in streams] == [200, 200]
    await world.coat.sessions.revoke_all("ann")
    await world.gone.wait()
    for stream in streams:
        with pytest.raises((ClientError, ConnectionError)):
            await stream.read()
        stream.close()


async def test_c2_the_application_s_cookies_are_sent_once_however_the_response_starts(world: World) -> None:
    async def answered(request: web.Request) -> web.StreamResponse:
        await exchange(request).sign_in("ann")
        kinds = {"whole": web.Response, "stream": web.StreamResponse, "socket": web.WebSocketResponse}
        response: web.StreamResponse = kinds[request.match_info["kind"]]()
        response.set_cookie("theme", "dark")
        await response.prepare(request)
        await response.write_eof()
        return response

    world.route("/{kind}", answered)
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade["sec-websocket-key"] = "A" * 22 + "=="
    for kind, headers in {"whole": {}, "stream": {}, "socket": upgrade}.items():
        async with world.client.get(await world.url(f"/{kind}"), headers=headers) as answer:
            names = [line.partition("=")[0] for line in answer.headers.getall("set-cookie")]
            assert names == ["theme", "__Host-session"], kind


@pytest.mark.parametrize("kind", [web.Response, web.StreamResponse])
async def test_an_application_within_the_application_leaves_the_exchange_outside_alone(
    world: World, kind: type[web.StreamResponse]
) -> None:
    """Both have a coatcheck: each saves what is its own, and sends its own cookie, once, also with a stream."""
    inner = web.Application()

    @web.middleware
    async def outside(request: web.Request, handler: Any) -> web.StreamResponse:
        exchange(request).session["outer"] = 1
        response: web.StreamResponse = await handler(request)
        return response

    async def inside(request: web.Request) -> web.StreamResponse:
        exchange(request).session["inner"] = 1
        response = kind()
        await response.prepare(request)
        await response.write_eof()
        return response

    world.app.middlewares.append(outside)
    init_app(inner, Coatcheck(policy=Policy(cookie=Cookie("__Host-inner"))))
    inner.router.add_post("/", inside)
    world.app.add_subapp("/in", inner)
    async with world.client.post(await world.url("/in/")) as answer:
        names = [line.partition("=")[0] for line in answer.headers.getall("set-cookie")]
    assert sorted(names) == ["__Host-inner", "__Host-session"]
