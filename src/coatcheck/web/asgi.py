"""The ASGI middleware: `scope["coatcheck"]` is the request's Exchange, `scope["session"]` its session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError, ConfigurationError, StoreUnavailable
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.web.answer import (
    OPENING_SECONDS,
    SERVER_ERROR,
    PlainHTTP,
    answer,
    is_ours_to_answer,
    presents_a_credential,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a refused WebSocket is closed with (RFC 6455, 7.4.1 and its IANA registry).
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
_CARRIES_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_log = logging.getLogger("coatcheck")


class CoatcheckMiddleware:
    """Gives every request of an ASGI application its Exchange.

    Handlers find it with `exchange(request)`, or in `scope["coatcheck"]`; `request.session` of Starlette and FastAPI
    is the same session. The edits of a handler are saved before its response starts, and again at its end for
    what a streamed body changed; if the handler raises or answers 5xx, they are dropped.

    An error of coatcheck's that the application lets pass becomes its answer: 401, 403, 409 or 503, in JSON. In
    Starlette and FastAPI use `add_middleware`: wrapped around the whole application, it would come after
    Starlette has already made a 500 of it.

    Args:
        app: the application.
        coatcheck: opened with the application's lifespan, or at the first request where there is none.
        csrf_exempt: paths at which other sites may send unsafe requests, for webhooks and the like.
    """

    def __init__(self, app: App, *, coatcheck: Coatcheck, csrf_exempt: Collection[str] = ()) -> None:
        self.app = app
        self.coatcheck = coatcheck
        if isinstance(csrf_exempt, str):
            raise ConfigurationError("csrf_exempt is a collection of paths; a single one is [path]")
        self.csrf_exempt = frozenset(csrf_exempt)
        self._plain_http = PlainHTTP()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._serve(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_open() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.coatcheck.open()
                except StoreUnavailable as error:
                    # The application starts nevertheless, and each request tries again (P6).
                    _log.warning("not opened at start-up: %s (%s)", error, error.__cause__ or "no more is known")
            return message

        try:
            await self.app(scope, receive_and_open, send)
        finally:
            await self.coatcheck.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        responder = _Responder(send, self._plain_http)
        try:
            head = _head(scope)
            if not self.coatcheck.is_open:
                await self._open(head)
            found = await Exchange.begin(head, self.coatcheck.sessions, self.coatcheck.verifier)
            responder.exchange = found
            if scope["path"] not in self.csrf_exempt:
                found.require_same_site()
            scope["coatcheck"] = found
            scope["session"] = found.session
            await self.app(scope, receive, responder)
            if not responder.failed:
                await found.finish()
        except CoatcheckError as error:
            if responder.started or not is_ours_to_answer(error):
                raise
            await refuse(scope, send, error)

    async def _open(self, head: RequestHead) -> None:
        """Open the coatcheck; who comes without a credential needs no store (P6)."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                await self.coatcheck.open()
        except (StoreUnavailable, TimeoutError) as error:
            if presents_a_credential(head, self.coatcheck.policy):
                raise StoreUnavailable("the store is not open yet") from error


class _Responder:
    """The application's `send`: lets nothing leave before the session is saved and its headers are there."""

    __slots__ = ("_plain_http", "_send", "exchange", "failed", "started")

    def __init__(self, send: Send, plain_http: PlainHTTP) -> None:
        self._send = send
        self._plain_http = plain_http
        self.exchange: Exchange | None = None
        self.started = False
        self.failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in _CARRIES_HEADERS and self.exchange is not None:
            self.failed = message.get("status", 200) >= SERVER_ERROR
            if not self.failed:
                await self.exchange.finish()
            headers = self.exchange.dress(message.get("headers", ()))
            self._plain_http.notice(self.exchange.head, headers)
            message = {**message, "headers": headers}
            self.started = True
        await self._send(message)


def exchange(request: Any) -> Exchange:
    """Return the Exchange of a request or connection that has a `scope`, as Starlette's and FastAPI's have.

    Raises:
        ConfigurationError: the middleware is not installed.
    """
    found: Exchange | None = request.scope.get("coatcheck")
    if found is None:
        raise ConfigurationError("no exchange: install it, app.add_middleware(CoatcheckMiddleware, coatcheck=...)")
    return found


def _head(scope: Scope) -> RequestHead:
    client = scope.get("client")
    websocket = scope["type"] == "websocket"
    scheme: str = scope.get("scheme", "http")
    return RequestHead(
        method="CONNECT" if websocket else scope["method"],
        scheme=_HTTP_SCHEMES.get(scheme, scheme),
        headers=list(scope["headers"]),
        address=(client[0] or "") if client else "",
    )


async def refuse(scope: Scope, send: Send, error: CoatcheckError) -> None:
    """Answer with an error: its status, challenge and words in JSON, or the close of a WebSocket."""
    if scope["type"] == "websocket":
        code = _TRY_AGAIN_LATER if isinstance(error, StoreUnavailable) else _POLICY_VIOLATION
        await send({"type": "websocket.close", "code": code, "reason": error.code})
        return
    said = answer(error)
    await send({"type": "http.response.start", "status": said.status, "headers": said.headers})
    await send({"type": "http.response.body", "body": said.body})
