"""Guard: the outermost layer. Security headers on every response, and an end to large and slow request bodies.

A body is read in full before anybody looks at it: what the handlers see has arrived, and is small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from coatcheck.web.asgi import App, Message, Receive, Scope, Send

MAX_BODY: Final = 64 * 1024  # octets
BODY_SECONDS: Final = 10.0

POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    # Not no-referrer: with it browsers send "Origin: null" with our own forms, and older ones have nothing else.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
# Two years: S18 asks for one at least.
_HSTS: Final = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")


class _Refused(Exception):
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.code = code


class Guard:
    """Wraps an ASGI application.

    A header that the application has set itself stays as it is.

    Args:
        app: the application.
        secure: whether browsers reach it over https; they are then told to use nothing else (S18).
        max_body: octets that a request's body may have; more is 413.
        body_seconds: how long it may take to arrive; longer is 408.
        page: makes the answer for people out of scope and status, or None where JSON is wanted.
    """

    def __init__(
        self,
        app: App,
        *,
        secure: bool,
        max_body: int = MAX_BODY,
        body_seconds: float = BODY_SECONDS,
        page: Callable[[Scope, int], App | None] = lambda _scope, _status: None,
    ) -> None:
        self.app = app
        self._page = page
        self._headers = (*_HEADERS, _HSTS) if secure else _HEADERS
        self._max_body = max_body
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._dress(message.get("headers", ()))}
            await send(message)

        try:
            replay = await self._collect(scope, receive)
        except _Refused as refusal:
            answer = self._page(scope, refusal.status) or _Json(refusal)
            await answer(scope, receive, _closing(send_guarded))
            return
        if replay is not None:
            await self.app(scope, replay, send_guarded)

    async def _collect(self, scope: Scope, receive: Receive) -> Receive | None:
        """Return what hands out the request's body, which is here in full; None if the client has gone away."""
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        if not chunked and all(length == b"0" for length in lengths):
            return receive
        # The server in front of us has made sure that it is a number.
        if any(len(length) > 9 or int(length) > self._max_body for length in lengths):
            raise self._too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await self._read(receive)
        except TimeoutError:
            words = f"the request's body took more than {self._body_seconds:g} s"
            raise _Refused(408, "too_slow", words) from None
        return None if body is None else _replay(body, receive)

    async def _read(self, receive: Receive) -> bytes | None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> _Refused:
        return _Refused(413, "too_large", f"a request's body has at most {self._max_body} octets")

    def _dress(self, headers: object) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = list(headers)  # type: ignore[call-overload]
        present = {name.lower() for name, _ in found}
        return found + [header for header in self._headers if header[0] not in present]


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = True

    async def replay() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _closing(send: Send) -> Send:
    """Return `send` for an answer after which what is left of the request's body is not waited for."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close


class _Json:
    """A refusal's answer for programs."""

    def __init__(self, refusal: _Refused) -> None:
        problem = {"error": "invalid_request", "code": refusal.code, "error_description": str(refusal)}
        self._status = refusal.status
        self._body = msgspec.json.encode(problem)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._body)).encode("ascii")),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})
