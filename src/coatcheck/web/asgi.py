"""The ASGI middleware: `scope["coatcheck"]` is the request's Exchange, `scope["session"]` its session."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from coatcheck.compose import Coatcheck
from coatcheck.core import challenge, credentials, csrf
from coatcheck.core.policy import Policy
from coatcheck.errors import CoatcheckError, ConfigurationError, CredentialError, StoreUnavailable
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a refused WebSocket is closed with (RFC 6455, 7.4.1 and its IANA registry).
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013
# What a refusal depends on: the credential, and where the request comes from (F9).
_VARY = ", ".join(("Cookie", "Authorization", *csrf.VARY)).encode("ascii")
_SERVER_ERROR = 500
_OPENING_SECONDS = 1.0  # so long a request waits for the store to be opened; that goes on for those who come later
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
_CARRIES_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
# Hosts at which browsers keep a Secure cookie that came over http.
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
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
        self._told_of_http = False

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
        responder = _Responder(send, self._tell_of_http)
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
            if responder.started or error.status == 500:
                raise
            await refuse(scope, send, error)

    async def _open(self, head: RequestHead) -> None:
        """Open the coatcheck; who comes without a credential needs no store (P6)."""
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                await self.coatcheck.open()
        except (StoreUnavailable, TimeoutError) as error:
            if _presents_a_credential(head, self.coatcheck.policy):
                raise StoreUnavailable("the store is not open yet") from error

    def _tell_of_http(self, head: RequestHead) -> None:
        """Say once why a sign-in that worked has no effect: over http a Secure cookie is dropped without a word."""
        host = (head.value(b"host") or b"").decode("latin-1")
        here = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._told_of_http or head.scheme != "http" or here in _LOCAL or here.endswith(".localhost"):
            return
        self._told_of_http = True
        _log.warning(
            "a Secure cookie goes out over http to %.99r, and will be dropped: use https or localhost (a test client: "
            'base_url="https://..."); behind a proxy, let the server believe its X-Forwarded-Proto',
            host,
        )


class _Responder:
    """The application's `send`: lets nothing leave before the session is saved and its headers are there."""

    __slots__ = ("_send", "_tell_of_http", "exchange", "failed", "started")

    def __init__(self, send: Send, tell_of_http: Callable[[RequestHead], None]) -> None:
        self._send = send
        self._tell_of_http = tell_of_http
        self.exchange: Exchange | None = None
        self.started = False
        self.failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in _CARRIES_HEADERS and self.exchange is not None:
            self.failed = message.get("status", 200) >= _SERVER_ERROR
            if not self.failed:
                await self.exchange.finish()
            headers = self.exchange.dress(message.get("headers", ()))
            http = self.exchange.head.scheme == "http"
            if http and any(name == b"set-cookie" and b"; Secure" in value for name, value in headers):
                self._tell_of_http(self.exchange.head)
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


def _presents_a_credential(head: RequestHead, policy: Policy) -> bool:
    try:
        return credentials.read(head.headers, policy.cookie_names) is not None
    except CredentialError:
        return False  # it is refused without a look into the store


async def refuse(scope: Scope, send: Send, error: CoatcheckError) -> None:
    """Answer with an error: its status, challenge and words in JSON, or the close of a WebSocket."""
    if scope["type"] == "websocket":
        code = _TRY_AGAIN_LATER if isinstance(error, StoreUnavailable) else _POLICY_VIOLATION
        await send({"type": "websocket.close", "code": code, "reason": error.code})
        return
    body = json.dumps({"error": error.oauth_error, "code": error.code, "error_description": str(error)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"vary", _VARY),
        *challenge.headers(error),
    ]
    await send({"type": "http.response.start", "status": challenge.status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
