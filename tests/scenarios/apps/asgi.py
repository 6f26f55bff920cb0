"""The scenario app on the middleware alone: ASGI as the specification has it, and no framework."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from coatcheck import Coatcheck, Exchange
from coatcheck.web.asgi import App, CoatcheckMiddleware, Receive, Scope, Send

Query = Mapping[str, str]
Handler = Callable[[Coatcheck, Exchange, Query], Awaitable[object]]
OK = {"ok": True}


async def plain(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    return OK


async def sign_in(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    session = await exchange.sign_in(query["subject"], amr=("pwd",), scopes=("notes",))
    return {"subject": session.subject}


async def me(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    principal = exchange.require()
    return {"subject": principal.subject, "session_id": principal.session_id, "scopes": list(principal.scopes)}


async def read(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    return {**exchange.session}


async def write(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    exchange.session[query["key"]] = query["value"]
    return OK


async def append(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    items = exchange.session.setdefault("items", [])
    items.append(query["value"])
    return {"items": len(items)}


async def count(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    def one_more(data: dict[str, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await coat.sessions.update(exchange.session.id or "", one_more)
    return OK


async def rotate(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    await exchange.rotate()
    return OK


async def tokens(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    grant = await exchange.issue()
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


async def token_cookies(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    exchange.hand_out_tokens(await exchange.issue())
    return OK


async def refresh(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    grant = await coat.sessions.refresh(query["token"])
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}


async def sign_out(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    return {"ended": await exchange.sign_out()}


async def sign_out_everywhere(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    return {"ended": await exchange.sign_out_everywhere()}


async def sign_out_others(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    return {"ended": await exchange.sign_out_others()}


async def notes(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    exchange.require(scopes=("notes",))
    return OK


async def admin(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    exchange.require(scopes=("admin",))
    return OK


async def fail(coat: Coatcheck, exchange: Exchange, query: Query) -> object:
    exchange.session["lost"] = "1"
    raise RuntimeError("this handler fails")


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", "/plain"): plain,
    ("POST", "/sign-in"): sign_in,
    ("GET", "/me"): me,
    ("GET", "/read"): read,
    ("POST", "/write"): write,
    ("POST", "/append"): append,
    ("POST", "/count"): count,
    ("POST", "/rotate"): rotate,
    ("POST", "/tokens"): tokens,
    ("POST", "/token-cookies"): token_cookies,
    ("POST", "/refresh"): refresh,
    ("POST", "/sign-out"): sign_out,
    ("POST", "/sign-out-everywhere"): sign_out_everywhere,
    ("POST", "/sign-out-others"): sign_out_others,
    ("GET", "/notes"): notes,
    ("GET", "/admin"): admin,
    ("POST", "/hook"): plain,
    ("POST", "/fail"): fail,
}


def make(coatcheck: Coatcheck) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        handler = ROUTES[scope["method"], scope["path"]]
        query = dict(parse_qsl(scope["query_string"].decode()))
        body = json.dumps(await handler(coatcheck, scope["coatcheck"], query)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return CoatcheckMiddleware(app, coatcheck=coatcheck, csrf_exempt=["/hook"])


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
