"""Guard: headers on every response, and an end to large and slow bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.server.app import create_app
from coatcheck.server.guard import MAX_BODY, Guard
from coatcheck.web.asgi import Receive, Scope, Send

if TYPE_CHECKING:
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sign-in", 200),
        ("GET", "/", 303),
        ("GET", "/api/session", 401),
        ("GET", "/livez", 200),
        ("GET", "/.well-known/jwks.json", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nothing/here", 404),
        ("GET", "/api/nothing", 404),
        ("PUT", "/api/session", 405),
        ("PUT", "/livez", 405),
        ("POST", "/api/sign-in", 400),
        ("GET", "/static/coatcheck.css", 200),
    ],
)
async def test_f10_every_response_has_the_security_headers(client: Client, method: str, path: str, status: int) -> None:
    answer = await client(method, path)
    assert answer.status == status
    for name, value in HEADERS.items():
        assert answer.all(name) == [value]
    assert answer.header("strict-transport-security") is None


async def test_f10_refusals_and_defects_have_them_too(client: Client, server: Any, monkeypatch: Any) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    refused = await client("POST", "/api/sign-out", json={}, headers={"sec-fetch-site": "cross-site"})
    large = await client("POST", "/api/sign-out", body=b"x" * (MAX_BODY + 1))
    assert (refused.status, large.status) == (403, 413)
    for answer in (refused, large):
        assert answer.all("x-content-type-options") == ["nosniff"]
    monkeypatch.setattr(server.proof, "prove", broken)
    starts: list[Any] = []

    async def catching(scope: Scope, receive: Receive, send: Send) -> None:
        async def spy(message: Any) -> None:
            starts.append(message)
            await send(message)

        with pytest.raises(RuntimeError):
            await create_app(server)(scope, receive, spy)

    client.app = catching
    defect = await client("POST", "/api/sign-in", json={"account": "ann", "password": "x"})
    assert (defect.status, defect.json["code"]) == (500, "error")
    assert b"a defect" not in defect.body
    assert defect.all("x-content-type-options") == ["nosniff"]


async def test_s18_over_https_browsers_are_told_to_use_nothing_else(make_server: Any, client_of: Any) -> None:
    client = client_of(await make_server(issuer="https://auth.example"))
    for path in ("/sign-in", "/livez", "/nothing/here"):
        assert (await client("GET", path)).all("strict-transport-security") == ["max-age=63072000; includeSubDomains"]


# -- the guard alone -------------------------------------------------------------------------------------------------


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    body = message.get("body", b"")
    headers = [(b"x-size", str(len(body)).encode()), (b"referrer-policy", b"no-referrer")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def guarded(new_client: Callable[..., Client]) -> Client:
    client = new_client()
    client.app = Guard(_echo, secure=False, max_body=100, body_seconds=30)
    return client


async def test_a_header_that_the_application_has_set_stays(guarded: Client) -> None:
    assert (await guarded("GET", "/")).all("referrer-policy") == ["no-referrer"]


@pytest.mark.parametrize("chunks", [[b"x" * 100], [b"x" * 50, b"x" * 50], [b"", b"x" * 100, b""]])
async def test_a_body_up_to_the_limit_arrives_whole(guarded: Client, chunks: list[bytes]) -> None:
    answer = await guarded("POST", "/", chunks=chunks)
    assert (answer.status, answer.header("x-size")) == (200, "100")


@pytest.mark.parametrize("chunks", [[b"x" * 101], [b"x" * 50] * 3, [b"x"] * 1000])
async def test_p9_a_larger_body_is_413_and_names_the_limit(guarded: Client, chunks: list[bytes]) -> None:
    answer = await guarded("POST", "/", chunks=chunks)
    assert (answer.status, answer.json["code"], answer.header("connection")) == (413, "too_large", "close")
    assert "at most 100 octets" in answer.json["error_description"]


@pytest.mark.parametrize("length", ["101", "9999999999", "4" * 5000])
async def test_a_length_over_the_limit_is_refused_before_anything_is_read(guarded: Client, length: str) -> None:
    answer = await guarded("POST", "/", body=b"x", headers={"content-length": length})
    assert answer.status == 413


async def _call(app: Guard, receive: Receive) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}, receive, send)
    return sent


async def test_p9_a_body_that_does_not_arrive_is_408_and_names_the_limit() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    [start, body] = await _call(Guard(_echo, secure=False, body_seconds=0.01), never)
    assert (start["status"], dict(start["headers"])[b"connection"]) == (408, b"close")
    assert b"more than 0.01 s" in body["body"]


async def test_who_leaves_in_the_middle_of_a_body_is_not_answered() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    assert await _call(Guard(_echo, secure=False), receive) == []


async def test_what_is_not_http_goes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return None

    await Guard(app, secure=True)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
