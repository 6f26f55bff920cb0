"""The scenario app on aiohttp."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from coatcheck import Coatcheck, Grant
from coatcheck.web.aiohttp import csrf_exempt, exchange, init_app

OK = {"ok": True}
COATCHECK = web.AppKey("COATCHECK", Coatcheck)

routes = web.RouteTableDef()


def make(coatcheck: Coatcheck) -> web.Application:
    app = web.Application()
    app[COATCHECK] = coatcheck
    init_app(app, coatcheck)
    app.add_routes(routes)
    return app


@routes.get("/plain")
async def plain(request: web.Request) -> web.Response:
    return web.json_response(OK)


@routes.post("/sign-in")
async def sign_in(request: web.Request) -> web.Response:
    session = await exchange(request).sign_in(request.query["subject"], amr=("pwd",), scopes=("notes",))
    return web.json_response({"subject": session.subject})


@routes.get("/me")
async def me(request: web.Request) -> web.Response:
    found = exchange(request).require()
    return web.json_response({"subject": found.subject, "session_id": found.session_id, "scopes": list(found.scopes)})


@routes.get("/read")
async def read(request: web.Request) -> web.Response:
    return web.json_response({**exchange(request).session})


@routes.post("/write")
async def write(request: web.Request) -> web.Response:
    exchange(request).session[request.query["key"]] = request.query["value"]
    return web.json_response(OK)


@routes.post("/append")
async def append(request: web.Request) -> web.Response:
    items = exchange(request).session.setdefault("items", [])
    items.append(request.query["value"])
    return web.json_response({"items": len(items)})


@routes.post("/count")
async def count(request: web.Request) -> web.Response:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await request.app[COATCHECK].sessions.update(exchange(request).session.id or "", one_more)
    return web.json_response(OK)


@routes.post("/rotate")
async def rotate(request: web.Request) -> web.Response:
    await exchange(request).rotate()
    return web.json_response(OK)


@routes.post("/tokens")
async def tokens(request: web.Request) -> web.Response:
    return _pair(await exchange(request).issue())


@routes.post("/token-cookies")
async def token_cookies(request: web.Request) -> web.Response:
    exchange(request).hand_out_tokens(await exchange(request).issue())
    return web.json_response(OK)


@routes.post("/refresh")
async def refresh(request: web.Request) -> web.Response:
    return _pair(await request.app[COATCHECK].sessions.refresh(request.query["token"]))


@routes.post("/sign-out")
async def sign_out(request: web.Request) -> web.Response:
    return web.json_response({"ended": await exchange(request).sign_out()})


@routes.post("/sign-out-everywhere")
async def sign_out_everywhere(request: web.Request) -> web.Response:
    return web.json_response({"ended": await exchange(request).sign_out_everywhere()})


@routes.post("/sign-out-others")
async def sign_out_others(request: web.Request) -> web.Response:
    return web.json_response({"ended": await exchange(request).sign_out_others()})


@routes.get("/notes")
async def notes(request: web.Request) -> web.Response:
    exchange(request).require(scopes=("notes",))
    return web.json_response(OK)


@routes.get("/admin")
async def admin(request: web.Request) -> web.Response:
    exchange(request).require(scopes=("admin",))
    return web.json_response(OK)


@routes.post("/hook")
@csrf_exempt
async def hook(request: web.Request) -> web.Response:
    return web.json_response(OK)


@routes.post("/fail")
async def fail(request: web.Request) -> web.Response:
    exchange(request).session["lost"] = "1"
    raise RuntimeError("this handler fails")


@routes.get("/socket")
async def socket(request: web.Request) -> web.WebSocketResponse:
    principal, talking = exchange(request).principal, web.WebSocketResponse()
    await talking.prepare(request)
    if principal is not None:
        await talking.send_str(principal.subject)
        async for message in talking:
            await talking.send_str(message.data)
    return talking


def _pair(grant: Grant) -> web.Response:
    return web.json_response({"access_token": grant.access_token, "refresh_token": grant.refresh_token})
