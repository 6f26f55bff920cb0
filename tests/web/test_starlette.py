"""Starlette's own habits on the exchange: `request.user`, `request.auth`, `@requires`, routes that are exempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from counting_store import CountingStore
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck import Coatcheck, ConfigurationError
from coatcheck.web.starlette import CoatcheckBackend, CoatcheckMiddleware, CoatcheckUser, exchange

pytestmark = pytest.mark.anyio

THEIRS = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]


async def who(request: Request) -> Response:
    user = request.user
    assert isinstance(user, CoatcheckUser)
    return JSONResponse([user.is_authenticated, user.identity, user.display_name, list(request.auth.scopes)])


async def sign_in(request: Request) -> Response:
    before = request.user.is_authenticated
    await exchange(request).sign_in("ann", scopes=("notes",))
    return JSONResponse([before, request.user.is_authenticated, request.user.principal.subject])


@requires("authenticated", status_code=401)
async def mine(request: Request) -> Response:
    return PlainTextResponse("mine")


@requires(["authenticated", "notes"], redirect="sign_in")
async def notes(request: Request) -> Response:
    return PlainTextResponse("notes")


@requires("admin")
async def admin(request: Request) -> Response:
    return PlainTextResponse("admin")


@requires("authenticated")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.identity)
    await websocket.close()


async def done(request: Request) -> Response:
    return PlainTextResponse("done")


ROUTES = [
    Route("/plain", done),
    Route("/who", who),
    Route("/sign-in", sign_in, methods=["POST"], name="sign_in"),
    Route("/mine", mine),
    Route("/notes", notes),
    Route("/admin", admin),
    WebSocketRoute("/socket", socket),
    Route("/hooks/{sender}", done, methods=["POST"]),
    Route("/hooks/{sender}/more", done, methods=["POST"]),
    Mount("/in", routes=[Route("/hook/{number:int}", done, methods=["POST"])]),
]


def app_on(coat: Coatcheck, csrf_exempt: Sequence[str] = ()) -> Starlette:
    return Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(CoatcheckMiddleware, coatcheck=coat, csrf_exempt=csrf_exempt),
            Middleware(AuthenticationMiddleware, backend=CoatcheckBackend()),
        ],
    )


@pytest.fixture
def coat() -> Coatcheck:
    return Coatcheck(CountingStore())


async def test_request_user_and_auth_are_those_of_the_exchange(coat: Coatcheck, browser: Any) -> None:
    """Nobody at first; after the sign-in the subject, "authenticated" and the scopes, within the same request too."""
    one = browser(app_on(coat))
    assert (await one("GET", "/who")).json() == [False, "", "", []]
    assert (await one("POST", "/sign-in")).json() == [False, True, "ann"]
    assert (await one("GET", "/who")).json() == [True, "ann", "ann", ["authenticated", "notes"]]


async def test_requires_of_starlette_works(coat: Coatcheck, browser: Any) -> None:
    """With a status of its own, with a redirect, and with a scope that was not granted."""
    one = browser(app_on(coat))
    assert (await one("GET", "/mine")).status == 401
    sent_on = await one("GET", "/notes")
    assert sent_on.status == 303
    assert (sent_on.header("location") or "").startswith("https://app.example/sign-in?next=")
    await one("POST", "/sign-in")
    assert [(await one("GET", path)).status for path in ("/mine", "/notes", "/admin")] == [200, 200, 403]


async def test_requires_works_for_an_access_token(coat: Coatcheck, browser: Any) -> None:
    """And a refused one acts as nobody: house decision 8."""
    session = await coat.sessions.create("bob", scopes=("notes",))
    good = [("authorization", f"Bearer {(await coat.sessions.issue(session)).access_token}")]
    one = browser(app_on(coat))
    assert (await one("GET", "/notes", headers=good)).status == 200
    await coat.sessions.revoke(session.id or "")
    assert (await one("GET", "/mine", headers=good)).status == 401


async def test_c18_only_an_answer_that_looked_depends_on_the_cookie(coat: Coatcheck, browser: Any) -> None:
    """S21: the backend itself looks at nothing, so a public page stays cacheable and costs no store call."""
    one = browser(app_on(coat))
    assert (await one("GET", "/plain")).all("vary") == []
    assert "Cookie" in ((await one("GET", "/who")).header("vary") or "")
    assert "Cookie" in ((await one("GET", "/admin")).header("vary") or "")


def test_a_websocket_has_the_user(coat: Coatcheck) -> None:
    """`@requires` closes what nobody opened."""
    with TestClient(app_on(coat), base_url="https://app.example") as client:
        cookie = client.post("/sign-in").headers["set-cookie"].partition(";")[0]
        with client.websocket_connect("/socket", headers={"cookie": cookie}) as connection:
            assert connection.receive_text() == "ann"
        client.cookies.clear()
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
            pass


async def test_the_backend_outside_of_the_middleware_says_what_is_wrong(coat: Coatcheck, browser: Any) -> None:
    inside_out = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(AuthenticationMiddleware, backend=CoatcheckBackend()),
            Middleware(CoatcheckMiddleware, coatcheck=coat),
        ],
    )
    with pytest.raises(ConfigurationError, match="install"):
        await browser(inside_out)("GET", "/plain")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/hooks/pay", 200),
        ("/in/hook/7", 200),
        ("/hooks/pay/more", 403),
        ("/hooks", 403),
        ("/in/hook/x", 403),
        ("/hooks/%2F", 403),
        ("/hooks//more", 403),
        ("/sign-in", 403),
    ],
)
async def test_f1_a_route_with_parameters_is_exempt_by_its_template(
    coat: Coatcheck, browser: Any, path: str, status: int
) -> None:
    """The template's paths, and no others that begin or end like them."""
    one = browser(app_on(coat, ["/hooks/{sender}", "/in/hook/{number:int}"]))
    raw = path.replace("%2F", "/")
    assert (await one("POST", raw, headers=THEIRS)).status == status
