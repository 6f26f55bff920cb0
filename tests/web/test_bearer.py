"""BearerMiddleware: an API that takes access tokens, and keeps no store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from auth_server import TOKEN, AuthServer, until
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck import ConfigurationError, Policy, Principal, Verifier
from coatcheck.verifier import RemoteVerifier
from coatcheck.web.bearer import BearerMiddleware, bearer


@pytest.fixture(scope="module")
def auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    server = AuthServer(tmp_path_factory.mktemp("auth") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def verifier(auth: AuthServer) -> RemoteVerifier:
    return Verifier.from_issuer(auth.url, feed_token=TOKEN, policy=Policy(when_stale="ask"))


async def anybody(request: Any) -> JSONResponse:
    principal = bearer(request).principal
    return JSONResponse(principal and principal.subject)


async def reader(request: Any) -> JSONResponse:
    return JSONResponse(bearer(request).require(scopes=["read"]).subject)


async def writer(request: Any) -> JSONResponse:
    return JSONResponse(bearer(request).require(scopes=["read", "write"]).subject)


async def careful(request: Any) -> JSONResponse:
    return JSONResponse(bearer(request).require(max_age=timedelta(minutes=5), amr=["hwk"]).subject)


async def talk(socket: WebSocket) -> None:
    principal = bearer(socket).require()
    await socket.accept()
    await socket.send_text(principal.subject)
    await socket.close()


@pytest.fixture
def client(verifier: RemoteVerifier) -> Iterator[TestClient]:
    routes = [Route(f"/{each.__name__}", each) for each in (anybody, reader, writer, careful)]
    app = Starlette(routes=[*routes, WebSocketRoute("/talk", talk)])
    app.add_middleware(BearerMiddleware, verifier=verifier)
    with TestClient(app) as client:
        yield client


def by(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_says_who_is_asking(auth: AuthServer, client: TestClient) -> None:
    token = auth.token()
    assert client.get("/anybody").json() is None
    assert client.get("/anybody", headers=by(token)).json() == "ann"
    assert client.get("/reader", headers=by(token)).json() == "ann"
    with client.websocket_connect("/talk", headers=by(token)) as socket:
        assert socket.receive_text() == "ann"


def test_every_refusal_has_its_status_and_challenge(auth: AuthServer, client: TestClient) -> None:
    """RFC 6750, section 3; RFC 9470"""
    token, ended = auth.token(), auth.token("bob")
    auth.revoke_all("bob")
    until(lambda: client.get("/anybody", headers=by(ended)).status_code == 401)
    for path, headers, status, challenge in (
        ("/reader", {}, 401, "Bearer"),
        ("/reader", {"authorization": "Basic YTpi"}, 401, "Bearer"),
        ("/reader", {"cookie": f"__Host-access={token}"}, 401, "Bearer"),
        ("/anybody", by("nonsense"), 401, 'Bearer error="invalid_token"'),
        ("/anybody", by(token[:-8] + "AAAAAAAA"), 401, 'Bearer error="invalid_token"'),
        ("/anybody", by(ended), 401, 'Bearer error="invalid_token"'),
        ("/writer", by(token), 403, 'Bearer error="insufficient_scope", scope="read write"'),
        ("/careful", by(token), 401, 'Bearer error="insufficient_user_authentication", max_age=300'),
    ):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge), path
        assert answer.headers["cache-control"] == "no-store"
        assert token not in answer.text
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/talk", headers=by(ended)):
        pass


def test_where_nothing_can_be_said_the_answer_is_503_until_it_can(
    auth: AuthServer, client: TestClient, verifier: RemoteVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6; with the policy `ask` the issuer is asked."""
    token = auth.token()
    auth.requests.clear()
    monkeypatch.setattr(verifier, "is_stale", lambda: True)
    assert client.get("/reader", headers=by(token)).json() == "ann"
    assert auth.requests["/api/session"] == 1
    verifier.close()
    answer = client.get("/reader", headers=by(token))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "www-authenticate" not in answer.headers
    assert client.get("/anybody").status_code == 200, "who presents nothing needs no verifier"
    verifier.open()
    assert client.get("/reader", headers=by(token)).json() == "ann"


def test_an_application_without_a_lifespan_opens_it_with_the_first_token(
    auth: AuthServer, verifier: RemoteVerifier
) -> None:
    app = Starlette(routes=[Route("/reader", reader)])
    app.add_middleware(BearerMiddleware, verifier=verifier)
    client, token = TestClient(app), auth.token()
    assert client.get("/reader", headers=by(token)).status_code in (503, 200)
    until(lambda: client.get("/reader", headers=by(token)).status_code == 200)
    verifier.close()


def test_in_fastapi_it_is_a_dependency(auth: AuthServer, verifier: RemoteVerifier, tmp_path: Path) -> None:
    app = FastAPI()
    app.add_middleware(BearerMiddleware, verifier=verifier)

    def reading(request: Request) -> Principal:
        return bearer(request).require(scopes=["read"])

    async def me(principal: Principal = Depends(reading)) -> str:  # noqa: B008 - FastAPI's way
        return principal.subject

    app.get("/me")(me)
    with TestClient(app) as client:
        assert client.get("/me").status_code == 401
        assert client.get("/me", headers=by(auth.token())).json() == "ann"


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    with suppress(WebSocketDisconnect):
        await socket.receive_text()


def test_f11_a_socket_is_closed_when_its_token_is_revoked(auth: AuthServer, verifier: RemoteVerifier) -> None:
    """At the issuer, which is another process. One without a token is nobody's."""
    app = Starlette(routes=[WebSocketRoute("/listen", listen)])
    app.add_middleware(BearerMiddleware, verifier=verifier)
    with (
        TestClient(app) as client,
        client.websocket_connect("/listen"),
        client.websocket_connect("/listen", headers=by(auth.token("eve"))) as socket,
    ):
        auth.revoke_all("eve")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "revoked")


@pytest.mark.parametrize(("when_stale", "code"), [("ask", None), ("refuse", 1013)])
def test_p6_a_socket_is_asked_about_where_the_feed_is_silent(
    auth: AuthServer, when_stale: Any, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = Verifier.from_issuer(auth.url, feed_token=TOKEN, policy=Policy(when_stale=when_stale))
    app = Starlette(routes=[WebSocketRoute("/listen", listen)])
    app.add_middleware(BearerMiddleware, verifier=verifier)
    with TestClient(app) as client, client.websocket_connect("/listen", headers=by(auth.token("joe"))) as socket:
        auth.requests.clear()
        monkeypatch.setattr(verifier, "is_stale", lambda: True)
        if code is None:
            until(lambda: auth.requests["/api/session"] > 0)
            auth.revoke_all("joe")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == (code or 1008)


def test_a_missing_middleware_is_told_so() -> None:
    with (
        pytest.raises(ConfigurationError, match="BearerMiddleware"),
        TestClient(Starlette(routes=[Route("/reader", reader)])) as client,
    ):
        client.get("/reader")


@pytest.mark.anyio
async def test_p6_an_application_that_knows_no_lifespan_is_served_nevertheless(
    auth: AuthServer, verifier: RemoteVerifier
) -> None:
    """Servers ask for a lifespan, take the exception for a no, and serve."""

    async def app(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware, statuses = BearerMiddleware(app, verifier=verifier), list[int]()
    headers = [(b"authorization", b"Bearer " + auth.token().encode())]

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    with pytest.raises(AssertionError):
        await middleware({"type": "lifespan"}, receive, send)
    deadline = time.monotonic() + 10
    while statuses[-1:] != [200]:
        assert time.monotonic() < deadline, statuses
        await middleware({"type": "http", "path": "/", "headers": headers}, receive, send)
        await asyncio.sleep(0.01)
    verifier.close()
