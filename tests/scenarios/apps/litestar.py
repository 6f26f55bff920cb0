"""The scenario app in Litestar, by its dependencies and guards."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromQuery

from coatcheck import Coatcheck, Grant
from coatcheck.web.litestar import CoatcheckPlugin, CurrentExchange, CurrentPrincipal, require

OK = {"ok": True}
AnyRequest = Request[Any, Any, Any]


def tokens_of(grant: Grant) -> dict[str, str]:
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


@get("/plain")
async def plain() -> dict[str, bool]:
    return OK


@post("/sign-in", status_code=200)
async def sign_in(exchange: CurrentExchange, subject: FromQuery[str]) -> dict[str, str | None]:
    return {"subject": (await exchange.sign_in(subject, amr=("pwd",), scopes=("notes",))).subject}


@get("/me")
async def me(principal: CurrentPrincipal) -> dict[str, Any]:
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": principal.scopes}


@get("/read")
async def read(request: AnyRequest) -> dict[str, Any]:
    return {**request.session}


@post("/write", status_code=200)
async def write(request: AnyRequest, key: FromQuery[str], value: FromQuery[str]) -> dict[str, bool]:
    request.session[key] = value
    return OK


@post("/append", status_code=200)
async def append(request: AnyRequest, value: FromQuery[str]) -> dict[str, int]:
    items = request.session.setdefault("items", [])
    items.append(value)
    return {"items": len(items)}


@post("/count", status_code=200)
async def count(state: State, exchange: CurrentExchange) -> dict[str, bool]:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await state.coatcheck.sessions.update(exchange.session.id or "", one_more)
    return OK


@post("/rotate", status_code=200)
async def rotate(exchange: CurrentExchange) -> dict[str, bool]:
    await exchange.rotate()
    return OK


@post("/tokens", status_code=200)
async def tokens(exchange: CurrentExchange) -> dict[str, str]:
    return tokens_of(await exchange.issue())


@post("/token-cookies", status_code=200)
async def token_cookies(exchange: CurrentExchange) -> dict[str, bool]:
    exchange.hand_out_tokens(await exchange.issue())
    return OK


@post("/refresh", status_code=200)
async def refresh(state: State, token: FromQuery[str]) -> dict[str, str]:
    return tokens_of(await state.coatcheck.sessions.refresh(token))


@post("/sign-out", status_code=200)
async def sign_out(exchange: CurrentExchange) -> dict[str, bool]:
    return {"ended": await exchange.sign_out()}


@post("/sign-out-everywhere", status_code=200)
async def sign_out_everywhere(exchange: CurrentExchange) -> dict[str, int]:
    return {"ended": await exchange.sign_out_everywhere()}


@post("/sign-out-others", status_code=200)
async def sign_out_others(exchange: CurrentExchange) -> dict[str, int]:
    return {"ended": await exchange.sign_out_others()}


@get("/notes", guards=[require(scopes=("notes",))])
async def notes() -> dict[str, bool]:
    return OK


@get("/admin", guards=[require(scopes=("admin",))])
async def admin() -> dict[str, bool]:
    return OK


@post("/hook", status_code=200, csrf_exempt=True)
async def hook() -> dict[str, bool]:
    return OK


@post("/fail", status_code=200)
async def fail(request: AnyRequest) -> None:
    request.session["lost"] = "1"
    raise RuntimeError("this handler fails")


@websocket("/socket")
async def socket(socket: WebSocket[Any, Any, Any], exchange: CurrentExchange) -> None:
    principal = exchange.principal
    await socket.accept()
    if principal is None:
        await socket.close()
        return
    await socket.send_text(principal.subject)
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


HANDLERS = [
    plain, sign_in, me, read, write, append, count, rotate, tokens, token_cookies, refresh,
    sign_out, sign_out_everywhere, sign_out_others, notes, admin, hook, fail, socket,
]  # fmt: skip


def make(coatcheck: Coatcheck) -> Litestar:
    return Litestar(
        HANDLERS, plugins=[CoatcheckPlugin(coatcheck)], state=State({"coatcheck": coatcheck}), logging_config=None
    )
