"""The scenario app on Quart."""

from __future__ import annotations

from typing import Any

from quart import Quart, request, session, websocket

from coatcheck import Coatcheck, Grant
from coatcheck.web.quart import csrf_exempt, current_exchange, init_app

OK = {"ok": True}


def make(coatcheck: Coatcheck) -> Quart:
    app = Quart(__name__)
    init_app(app, coatcheck)
    _sign_in_and_out(app)
    _session(app, coatcheck)
    _tokens(app, coatcheck)

    @app.get("/plain")
    async def plain() -> Any:
        return OK

    @app.post("/hook")
    @csrf_exempt
    async def hook() -> Any:
        return OK

    @app.post("/fail")
    async def fail() -> Any:
        session["lost"] = "1"
        raise RuntimeError("this handler fails")

    @app.websocket("/socket")
    async def socket() -> None:
        principal = current_exchange().principal
        await websocket.accept()
        if principal is None:
            await websocket.close(1000)
            return
        await websocket.send(principal.subject)
        while True:
            await websocket.send(await websocket.receive())

    return app


def _sign_in_and_out(app: Quart) -> None:
    @app.post("/sign-in")
    async def sign_in() -> Any:
        made = await current_exchange().sign_in(request.args["subject"], amr=("pwd",), scopes=("notes",))
        return {"subject": made.subject}

    @app.get("/me")
    async def me() -> Any:
        found = current_exchange().require()
        return {"subject": found.subject, "session_id": found.session_id, "scopes": list(found.scopes)}

    @app.get("/notes")
    async def notes() -> Any:
        current_exchange().require(scopes=("notes",))
        return OK

    @app.get("/admin")
    async def admin() -> Any:
        current_exchange().require(scopes=("admin",))
        return OK

    @app.post("/sign-out")
    async def sign_out() -> Any:
        return {"ended": await current_exchange().sign_out()}

    @app.post("/sign-out-everywhere")
    async def sign_out_everywhere() -> Any:
        return {"ended": await current_exchange().sign_out_everywhere()}

    @app.post("/sign-out-others")
    async def sign_out_others() -> Any:
        return {"ended": await current_exchange().sign_out_others()}


def _session(app: Quart, coatcheck: Coatcheck) -> None:
    @app.get("/read")
    async def read() -> Any:
        return {**session}

    @app.post("/write")
    async def write() -> Any:
        session[request.args["key"]] = request.args["value"]
        return OK

    @app.post("/append")
    async def append() -> Any:
        items = session.setdefault("items", [])
        items.append(request.args["value"])
        return {"items": len(items)}

    @app.post("/count")
    async def count() -> Any:
        def one_more(data: dict[str, Any]) -> None:
            data["count"] = data.get("count", 0) + 1

        await coatcheck.sessions.update(current_exchange().session.id or "", one_more)
        return OK

    @app.post("/rotate")
    async def rotate() -> Any:
        await current_exchange().rotate()
        return OK


def _tokens(app: Quart, coatcheck: Coatcheck) -> None:
    @app.post("/tokens")
    async def tokens() -> Any:
        return _pair(await current_exchange().issue())

    @app.post("/token-cookies")
    async def token_cookies() -> Any:
        current_exchange().hand_out_tokens(await current_exchange().issue())
        return OK

    @app.post("/refresh")
    async def refresh() -> Any:
        return _pair(await coatcheck.sessions.refresh(request.args["token"]))


def _pair(grant: Grant) -> dict[str, str]:
    return {"access_token": grant.access_token, "refresh_token": grant.refresh_token}
