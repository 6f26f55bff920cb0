"""The scenario app in FastAPI, by its dependencies."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket, WebSocketDisconnect

from coatcheck import Coatcheck, Grant
from coatcheck.web.fastapi import CurrentExchange, CurrentPrincipal, init_app, require

OK = {"ok": True}
routes = APIRouter()


def coatcheck_of(request: Request) -> Coatcheck:
    found: Coatcheck = request.app.state.coatcheck
    return found


Coat = Annotated[Coatcheck, Depends(coatcheck_of)]


def tokens_of(grant: Grant) -> dict[str, str]:
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


@routes.get("/plain")
async def plain() -> dict[str, bool]:
    return OK


@routes.post("/sign-in")
async def sign_in(exchange: CurrentExchange, subject: str) -> dict[str, str | None]:
    return {"subject": (await exchange.sign_in(subject, amr=("pwd",), scopes=("notes",))).subject}


@routes.get("/me")
async def me(principal: CurrentPrincipal) -> dict[str, Any]:
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": principal.scopes}


@routes.get("/read")
async def read(request: Request) -> dict[str, Any]:
    return {**request.session}


@routes.post("/write")
async def write(request: Request, key: str, value: str) -> dict[str, bool]:
    request.session[key] = value
    return OK


@routes.post("/append")
async def append(request: Request, value: str) -> dict[str, int]:
    items = request.session.setdefault("items", [])
    items.append(value)
    return {"items": len(items)}


@routes.post("/count")
async def count(coat: Coat, exchange: CurrentExchange) -> dict[str, bool]:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await coat.sessions.update(exchange.session.id or "", one_more)
    return OK


@routes.post("/rotate")
async def rotate(exchange: CurrentExchange) -> dict[str, bool]:
    await exchange.rotate()
    return OK


@routes.post("/tokens")
async def tokens(exchange: CurrentExchange) -> dict[str, str]:
    return tokens_of(await exchange.issue())


@routes.post("/token-cookies")
async def token_cookies(exchange: CurrentExchange) -> dict[str, bool]:
    exchange.hand_out_tokens(await exchange.issue())
    return OK


@routes.post("/refresh")
async def refresh(coat: Coat, token: str) -> dict[str, str]:
    return tokens_of(await coat.sessions.refresh(token))


@routes.post("/sign-out")
async def sign_out(exchange: CurrentExchange) -> dict[str, bool]:
    return {"ended": await exchange.sign_out()}


@routes.post("/sign-out-everywhere")
async def sign_out_everywhere(exchange: CurrentExchange) -> dict[str, int]:
    return {"ended": await exchange.sign_out_everywhere()}


@routes.post("/sign-out-others")
async def sign_out_others(exchange: CurrentExchange) -> dict[str, int]:
    return {"ended": await exchange.sign_out_others()}


@routes.get("/notes", dependencies=[Depends(require(scopes=("notes",)))])
async def notes() -> dict[str, bool]:
    return OK


@routes.get("/admin", dependencies=[Depends(require(scopes=("admin",)))])
async def admin() -> dict[str, bool]:
    return OK


@routes.post("/hook")
async def hook() -> dict[str, bool]:
    return OK


@routes.post("/fail")
async def fail(request: Request) -> None:
    request.session["lost"] = "1"
    raise RuntimeError("this handler fails")


@routes.websocket("/socket")
async def socket(websocket: WebSocket, exchange: CurrentExchange) -> None:
    principal = exchange.principal
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


def make(coatcheck: Coatcheck) -> FastAPI:
    app = FastAPI()
    app.state.coatcheck = coatcheck
    init_app(app, coatcheck, csrf_exempt=["/hook"])
    app.include_router(routes)
    return app
