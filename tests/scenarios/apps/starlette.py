"""The scenario app in Starlette."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck import Coatcheck
from coatcheck.web.starlette import CoatcheckMiddleware, exchange

OK = {"ok": True}


async def plain(request: Request) -> JSONResponse:
    return JSONResponse(OK)


async def sign_in(request: Request) -> JSONResponse:
    session = await exchange(request).sign_in(request.query_params["subject"], amr=("pwd",), scopes=("notes",))
    return JSONResponse({"subject": session.subject})


async def me(request: Request) -> JSONResponse:
    principal = exchange(request).require()
    found = {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}
    return JSONResponse(found)


async def read(request: Request) -> JSONResponse:
    return JSONResponse({**request.session})


async def write(request: Request) -> JSONResponse:
    request.session[request.query_params["key"]] = request.query_params["value"]
    return JSONResponse(OK)


async def append(request: Request) -> JSONResponse:
    items = request.session.setdefault("items", [])
    items.append(request.query_params["value"])
    return JSONResponse({"items": len(items)})


async def count(request: Request) -> JSONResponse:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await request.app.state.coatcheck.sessions.update(exchange(request).session.id or "", one_more)
    return JSONResponse(OK)


async def rotate(request: Request) -> JSONResponse:
    await exchange(request).rotate()
    return JSONResponse(OK)


async def tokens(request: Request) -> JSONResponse:
    grant = await exchange(request).issue()
    return JSONResponse({"access_token": grant.access_token, "refresh_token": grant.refresh_token})


async def token_cookies(request: Request) -> JSONResponse:
    exchange(request).hand_out_tokens(await exchange(request).issue())
    return JSONResponse(OK)


async def refresh(request: Request) -> JSONResponse:
    grant = await request.app.state.coatcheck.sessions.refresh(request.query_params["token"])
    return JSONResponse({"access_token": grant.access_token, "refresh_token": grant.refresh_token})


async def sign_out(request: Request) -> JSONResponse:
    return JSONResponse({"ended": await exchange(request).sign_out()})


async def sign_out_everywhere(request: Request) -> JSONResponse:
    return JSONResponse({"ended": await exchange(request).sign_out_everywhere()})


async def sign_out_others(request: Request) -> JSONResponse:
    return JSONResponse({"ended": await exchange(request).sign_out_others()})


async def notes(request: Request) -> JSONResponse:
    exchange(request).require(scopes=("notes",))
    return JSONResponse(OK)


async def admin(request: Request) -> JSONResponse:
    exchange(request).require(scopes=("admin",))
    return JSONResponse(OK)


async def fail(request: Request) -> JSONResponse:
    request.session["lost"] = "1"
    raise RuntimeError("this handler fails")


async def socket(websocket: WebSocket) -> None:
    principal = exchange(websocket).principal
    await websocket.accept()
    if principal is None:
        await websocket.close()
        return
    await websocket.send_text(principal.subject)
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


READ, CHANGE = ["GET"], ["POST"]
ROUTES = [
    Route("/plain", plain, methods=READ),
    Route("/sign-in", sign_in, methods=CHANGE),
    Route("/me", me, methods=READ),
    Route("/read", read, methods=READ),
    Route("/write", write, methods=CHANGE),
    Route("/append", append, methods=CHANGE),
    Route("/count", count, methods=CHANGE),
    Route("/rotate", rotate, methods=CHANGE),
    Route("/tokens", tokens, methods=CHANGE),
    Route("/token-cookies", token_cookies, methods=CHANGE),
    Route("/refresh", refresh, methods=CHANGE),
    Route("/sign-out", sign_out, methods=CHANGE),
    Route("/sign-out-everywhere", sign_out_everywhere, methods=CHANGE),
    Route("/sign-out-others", sign_out_others, methods=CHANGE),
    Route("/notes", notes, methods=READ),
    Route("/admin", admin, methods=READ),
    Route("/hook", plain, methods=CHANGE),
    Route("/fail", fail, methods=CHANGE),
    WebSocketRoute("/socket", socket),
]


def make(coatcheck: Coatcheck) -> Starlette:
    app = Starlette(
        routes=ROUTES, middleware=[Middleware(CoatcheckMiddleware, coatcheck=coatcheck, csrf_exempt=["/hook"])]
    )
    app.state.coatcheck = coatcheck
    return app
