"""FastAPI's dependencies: the principal, the session, the exchange, what is required, and the OpenAPI document."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import pytest
from counting_store import CountingStore
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from coatcheck import Coatcheck as Coat
from coatcheck import CoatcheckError, Cookie, Grant, InvalidValue, Policy, Principal
from coatcheck.testing import SettableClock
from coatcheck.web.fastapi import (
    CoatcheckMiddleware,
    CurrentExchange,
    CurrentPrincipal,
    CurrentSession,
    Token,
    current_principal,
    init_app,
    require,
)

pytestmark = pytest.mark.anyio

OURS: list[dict[str, list[str]]] = [{"SessionCookie": []}, {"AccessToken": []}]


class World:
    """An application with every dependency in it."""

    def __init__(self, **policy: Any) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.coat = Coat(self.store, policy=Policy(**policy), clock=self.clock)
        self.app = FastAPI()
        init_app(self.app, self.coat, csrf_exempt=["/hooks/{sender}"], token_url="token", scopes={"notes": "read"})
        self.app.include_router(routes)
        self.app.post("/grant", response_model=Token)(self.grant)

    async def grant(self, exchange: CurrentExchange) -> Grant:
        return await exchange.issue(await self.coat.sessions.create("ann", scopes=("notes", "more")))

    async def bearer(self, **sign_in: Any) -> list[tuple[str, str]]:
        session = await self.coat.sessions.create("ann", **sign_in)
        return [("authorization", f"Bearer {(await self.coat.sessions.issue(session)).access_token}")]


routes = APIRouter()


@routes.get("/plain")
async def plain() -> str:
    return "plain"


@routes.post("/sign-in")
async def sign_in(exchange: CurrentExchange) -> str | None:
    return (await exchange.sign_in("ann", amr=("pwd",), scopes=("notes",))).subject


@routes.get("/me")
def me(principal: CurrentPrincipal) -> str:
    return principal.subject  # in a thread of FastAPI's


@routes.get("/session")
async def session(session: CurrentSession) -> dict[str, Any]:
    return {**session, "id": session.id}


@routes.post("/session")
async def write(session: CurrentSession, request: Request) -> bool:
    session["seen"] = True
    return session == dict(request.session)


@routes.get("/notes")
async def notes(principal: Annotated[Principal, Depends(require(scopes=["notes"]))]) -> str:
    return principal.subject


@routes.get("/admin", dependencies=[Security(current_principal, scopes=["admin"])])
async def admin() -> str:
    return "admin"


@routes.get("/both", dependencies=[Security(require(scopes=["notes"]), scopes=["admin"])])
async def both() -> str:
    return "both"


@routes.get("/recent", dependencies=[Depends(require(max_age=timedelta(minutes=5)))])
async def recent() -> str:
    return "recent"


@routes.get("/strong", dependencies=[Depends(require(amr=["hwk"]))])
async def strong() -> str:
    return "strong"


@routes.post("/hooks/{sender}")
async def hook(sender: str) -> str:
    return sender


@routes.get("/wrong")
async def wrong() -> str:
    raise InvalidValue("what the program did")


@routes.websocket("/socket")
async def socket(websocket: WebSocket, principal: CurrentPrincipal, session: CurrentSession) -> None:
    await websocket.accept()
    await websocket.send_json([principal.subject, session.subject])
    await websocket.close()


@pytest.fixture
def world() -> World:
    return World()


async def test_the_current_principal_by_cookie_and_by_token(world: World, browser: Any) -> None:
    one = browser(world.app)
    await one("POST", "/sign-in")
    assert (await one("GET", "/me")).json() == "ann"
    assert (await browser(world.app)("GET", "/me", headers=await world.bearer())).json() == "ann"


async def test_a_refusal_keeps_its_answer(world: World, browser: Any) -> None:
    """RFC 6750, 3.1: FastAPI's own handlers of exceptions do not see it; it is 401 with a challenge, in our words."""
    answer = await browser(world.app)("GET", "/me")
    assert (answer.status, answer.header("www-authenticate"), answer.json()["code"]) == (401, "Bearer", "missing")
    bad = await browser(world.app)("GET", "/me", headers=[("authorization", "Bearer x.y.z")])
    assert (bad.status, bad.header("www-authenticate")) == (401, 'Bearer error="invalid_token"')


async def test_p6_a_store_that_is_down_is_503(world: World, browser: Any) -> None:
    one = browser(world.app)
    await one("POST", "/sign-in")
    world.store.broken = True
    assert ((await one("GET", "/me")).status, (await one("GET", "/plain", cookies="")).status) == (503, 200)


async def test_scopes_are_required_however_they_are_asked_for(world: World, browser: Any) -> None:
    """By `require`, by FastAPI's `Security`, and by both together, where all of them count."""
    one = browser(world.app)
    await one("POST", "/sign-in")
    assert (await one("GET", "/notes")).json() == "ann"
    for path, scope in (("/admin", "admin"), ("/both", "notes admin")):
        refused = await one("GET", path)
        assert refused.status == 403
        assert refused.header("www-authenticate") == f'Bearer error="insufficient_scope", scope="{scope}"'
    admin = await world.bearer(scopes=("admin",))
    assert [(await one("GET", path, headers=admin)).status for path in ("/admin", "/both", "/notes")] == [200, 403, 403]


async def test_s15_step_up(world: World, browser: Any) -> None:
    """RFC 9470: a sign-in that is too old, or of the wrong kind, is asked for again."""
    one = browser(world.app)
    await one("POST", "/sign-in")
    assert (await one("GET", "/recent")).status == 200
    world.clock.advance(timedelta(minutes=6))
    refused = await one("GET", "/recent")
    assert (refused.status, refused.header("www-authenticate")) == (
        401,
        'Bearer error="insufficient_user_authentication", max_age=300',
    )
    assert (await one("GET", "/strong")).status == 401


async def test_the_current_session_is_request_session_and_a_visitor_has_one(world: World, browser: Any) -> None:
    """S21: reading it makes none."""
    visitor = browser(world.app)
    assert (await visitor("GET", "/session")).json() == {"id": None}
    assert visitor.jar == {}
    assert (await visitor("POST", "/session")).json() is True
    assert (await visitor("GET", "/session")).json()["seen"] is True


async def test_the_current_session_of_an_access_token_is_fetched(world: World, browser: Any) -> None:
    """A route that asks for it pays the look-up; one that asks for the principal does not."""
    script, bearer = browser(world.app), await world.bearer()
    world.store.calls.clear()
    await script("GET", "/me", headers=bearer)
    assert world.store.calls["load"] == 0
    await script("POST", "/session", headers=bearer)
    found = (await script("GET", "/session", headers=bearer)).json()
    [session] = await world.coat.sessions.list("ann")
    assert found == {"seen": True, "id": session.id}


async def test_f1_other_sites_reach_the_exempt_routes_only(world: World, browser: Any) -> None:
    theirs = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]
    one = browser(world.app)
    assert (await one("POST", "/hooks/pay", headers=theirs)).json() == "pay"
    assert (await one("POST", "/sign-in", headers=theirs)).status == 403


async def test_a_handler_of_the_apps_own_answers_in_our_place(world: World, browser: Any) -> None:
    @world.app.exception_handler(CoatcheckError)
    async def ours(_: Request, error: CoatcheckError) -> JSONResponse:
        return JSONResponse({"theirs": error.code}, status_code=418)

    answer = await browser(world.app)("GET", "/me")
    assert (answer.status, answer.json()) == (418, {"theirs": "missing"})


def test_a_mistake_of_the_program_is_the_apps_500(world: World) -> None:
    """What went wrong is in the log, and not in the answer."""
    with TestClient(world.app, base_url="https://app.example", raise_server_exceptions=False) as client:
        answer = client.get("/wrong")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_a_websocket_has_the_dependencies(world: World) -> None:
    with TestClient(world.app, base_url="https://app.example") as client:
        cookie = client.post("/sign-in").headers["set-cookie"].partition(";")[0]
        with client.websocket_connect("/socket", headers={"cookie": cookie}) as connection:
            assert connection.receive_json() == ["ann", "ann"]
        client.cookies.clear()
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/socket"):
            pass
    assert (refused.value.code, refused.value.reason) == (1008, "missing")


async def test_a_grant_is_a_token_of_oauth(world: World, browser: Any) -> None:
    """RFC 6749, 5.1: its members and no others, never cached, and no cookie: the client gets tokens only."""
    answer = await browser(world.app)("POST", "/grant")
    found = answer.json()
    assert (found["token_type"], found["expires_in"], found["scope"]) == ("Bearer", 900, "notes more")
    assert set(found) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (answer.header("cache-control"), answer.all("set-cookie")) == ("no-store", [])
    authorization = [("authorization", f"Bearer {found['access_token']}")]
    assert (await browser(world.app)("GET", "/notes", headers=authorization)).json() == "ann"
    assert (await world.coat.sessions.refresh(found["refresh_token"])).scope == "notes more"


async def test_the_password_flow_of_the_documentation_page(browser: Any) -> None:
    """RFC 6749, 4.3, with FastAPI's own form: what the "Authorize" button sends, and what it reads."""
    app, coat = FastAPI(), Coat()
    init_app(app, coat, token_url="token", scopes={"notes": "read"})

    @app.post("/token", response_model=Token)
    async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], exchange: CurrentExchange) -> Grant:
        if form.password != "right":
            raise HTTPException(400, "name or password is wrong")
        return await exchange.issue(await coat.sessions.create(form.username, scopes=form.scopes))

    headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", "Basic Og==")]
    body = b"grant_type=password&username=ann&scope=notes&password="
    assert (await browser(app)("POST", "/token", headers=headers, body=body + b"wrong")).status == 400
    found = (await browser(app)("POST", "/token", headers=headers, body=body + b"right")).json()
    assert (found["token_type"], found["scope"]) == ("Bearer", "notes")


# -- the OpenAPI document --------------------------------------------------------------------------------------------


def test_the_document_names_the_real_cookie_and_the_token_route() -> None:
    schemes = World(cookie=Cookie("__Host-shop")).app.openapi()["components"]["securitySchemes"]
    assert schemes == {
        "SessionCookie": {"type": "apiKey", "in": "cookie", "name": "__Host-shop"},
        "AccessToken": {"type": "oauth2", "flows": {"password": {"tokenUrl": "token", "scopes": {"notes": "read"}}}},
    }


@pytest.mark.parametrize(
    ("path", "scopes", "refusals"),
    [
        ("/me", [], {"401"}),
        ("/recent", [], {"401"}),
        ("/notes", ["notes"], {"401", "403"}),
        ("/admin", ["admin"], {"401", "403"}),
        ("/both", ["admin", "notes"], {"401", "403"}),
    ],
)
def test_the_document_says_which_scopes_a_route_requires(
    world: World, path: str, scopes: list[str], refusals: set[str]
) -> None:
    """The cookie or the token, and how it is refused."""
    operation = world.app.openapi()["paths"][path]["get"]
    assert operation["security"] == [{"SessionCookie": scopes}, {"AccessToken": scopes}]
    assert set(operation["responses"]) == {"200"} | refusals


@pytest.mark.parametrize("path", ["/plain", "/session"])
def test_the_document_demands_nothing_where_nothing_is_required(world: World, path: str) -> None:
    assert "security" not in world.app.openapi()["paths"][path]["get"]


def test_the_document_is_the_same_each_time(world: World) -> None:
    assert world.app.openapi() == world.app.openapi()
    with TestClient(world.app, base_url="https://app.example") as client:
        assert client.get("/openapi.json").json() == world.app.openapi()


def test_the_middleware_alone_is_described_with_the_defaults() -> None:
    app = FastAPI()
    app.add_middleware(CoatcheckMiddleware, coatcheck=Coat())

    @app.get("/me")
    async def me(principal: CurrentPrincipal) -> str:
        return principal.subject

    document = app.openapi()
    assert document["paths"]["/me"]["get"]["security"] == OURS
    assert document["components"]["securitySchemes"] == {
        "SessionCookie": {"type": "apiKey", "in": "cookie", "name": "__Host-session"},
        "AccessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }
