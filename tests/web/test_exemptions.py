"""F1: what other sites may send is what the application has named, wherever its framework finds the route."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from asgi_browser import request
from flask import Flask
from litestar import Litestar, asgi, post
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from wsgi_browser import Browser, environ
from wsgi_browser import request as wsgi_request
from yarl import URL

from coatcheck import Coatcheck
from coatcheck.web import aiohttp, flask, quart
from coatcheck.web.asgi import App, Receive, Scope, Send
from coatcheck.web.litestar import CoatcheckPlugin
from coatcheck.web.starlette import CoatcheckMiddleware
from coatcheck.web.wsgi import CoatcheckWSGI, Environ, StartResponse

pytestmark = pytest.mark.anyio

CROSS = ("sec-fetch-site", "cross-site")


async def post_to(app: App, path: str, *, root_path: str = "", host: str = "app.example") -> int:
    """Return the status of what another site sends, through a proxy that has put the application elsewhere."""

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = root_path
        await app(scope, receive, send)

    return (await request(below, "POST", path, [("host", host), CROSS])).status


@pytest.mark.parametrize(("mount", "root_path"), [("", ""), ("", "/api"), ("/api", ""), ("/in", "/api")])
async def test_starlette_s_routes_are_exempt_by_the_path_that_they_have(mount: str, root_path: str) -> None:
    async def hook(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    ours = Middleware(CoatcheckMiddleware, coatcheck=Coatcheck(), csrf_exempt=["/hook", "/hooks/{sender}"])
    routes = [Route(path, hook, methods=["POST"]) for path in ("/hook", "/hooks/{sender}", "/api/hook", "/apihook")]
    app = Starlette(routes=routes, middleware=[ours])
    outer: Any = Starlette(routes=[Mount(mount, app)]) if mount else app
    expected = {"/hook": 200, "/hooks/pay": 200, "/api/hook": 403, "/apihook": 403}
    if root_path and not mount:
        del expected["/api/hook"]  # which would be below /api/api
    found = {path: await post_to(outer, f"{root_path}{mount}{path}", root_path=root_path) for path in expected}
    assert found == expected


async def test_quart_s_views_are_exempt_where_quart_itself_finds_them() -> None:
    """By subdomain, and below where a proxy has put the application; not by a path that only looks the same."""

    async def ok(rest: str = "") -> str:
        return "ok"

    app = Quart("app", subdomain_matching=True)
    app.config["SERVER_NAME"] = "app.example"
    quart.init_app(app, Coatcheck())
    app.add_url_rule("/hook", "hook", quart.csrf_exempt(ok), methods=["POST"])

    @app.post("/hooks/<path:rest>")
    @quart.csrf_exempt
    async def hooks(rest: str) -> str:
        return rest

    @app.post("/hook", subdomain="shop")
    @app.post("/transfer")
    async def transfer() -> str:
        return "sent"

    outer: Any = app
    assert await post_to(outer, "/hook") == 200
    assert await post_to(outer, "/hook", host="shop.app.example") == 403
    assert await post_to(outer, "/api/hook", root_path="/api") == 200
    assert await post_to(outer, "/hooks/transfer") == 200
    assert await post_to(outer, "/hooks/transfer", root_path="/hooks") == 403
    assert await post_to(outer, "/elsewhere/hook", root_path="/api") == 403


async def test_what_litestar_mounts_is_not_exempt_by_the_path_below_its_mount() -> None:
    @post("/hook", status_code=200)
    async def hook() -> str:
        return "ok"

    async def ok(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    handlers = [hook, asgi("/in", is_mount=True, copy_scope=True)(ok)]
    handlers += [asgi("/marked", is_mount=True, copy_scope=True, csrf_exempt=True)(ok)]
    plugin = CoatcheckPlugin(Coatcheck(), csrf_exempt=["/hook", "/hook/"])
    app: Any = Litestar(handlers, plugins=[plugin], logging_config=None)
    expected = {"/hook": 200, "/hook/": 200, "/in/hook": 403, "/in/hook/": 403, "/in/x": 403, "/marked/x": 200}
    assert {path: await post_to(app, path) for path in expected} == expected


async def test_aiohttp_s_paths_are_exempt_as_its_router_reads_them() -> None:
    """A slash that is written %2F is part of a segment there, and leads to another route."""

    async def ok(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info.get("name", ""))

    app = web.Application()
    aiohttp.init_app(app, Coatcheck(), csrf_exempt=["/hooks/pay", "/häk"])
    for path in ("/hooks/pay", "/häk", "/{name}"):
        app.router.add_post(path, ok)
    expected = {"/hooks/pay": 200, "/hooks/%70ay": 200, "/h%C3%A4k": 200, "/hooks%2Fpay": 403, "/hooks%2fpay": 403}
    found = {}
    async with TestServer(app) as server, ClientSession() as client:
        for path in expected:
            url = URL(str(server.make_url("/")).rstrip("/") + path, encoded=True)
            async with client.post(url, headers=[CROSS]) as answer:
                found[path] = answer.status
    assert found == expected


@pytest.mark.parametrize("trusted", [None, ["app.example"]])
def test_flask_has_an_answer_for_a_host_that_it_does_not_trust(trusted: Collection[str] | None) -> None:
    app = Flask("app")
    app.config["TRUSTED_HOSTS"] = trusted
    background = flask.init_app(app, Coatcheck())
    app.post("/")(lambda: "ok")
    assert Browser(app, host="evil.example")("POST", "/", headers=[CROSS]).status == 403
    background.close()


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), (None, 200)]
)
def test_f11_a_websocket_handshake_over_wsgi_is_judged_although_it_is_a_get(site: str | None, status: int) -> None:
    """As Flask-Sock and others serve them."""

    def served(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"connected"]

    app = CoatcheckWSGI(served, coatcheck=Coatcheck())
    sent = [("host", "app.example"), ("upgrade", "WebSocket"), ("connection", "Upgrade")]
    sent += [("sec-fetch-site", site)] if site else []
    assert wsgi_request(app, environ("GET", "/", sent)).status == status
    app.background.close()
