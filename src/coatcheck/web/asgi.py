"""The ASGI middleware: `scope["coatcheck"]` is the request's Exchange, `scope["session"]` its session."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError, ConfigurationError, CrossSite
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.standing import ExchangeStanding, Standing
from coatcheck.web.answer import SERVER_ERROR, PlainHTTP, is_ours_to_answer
from coatcheck.web.asgi_connection import App, ASGIConnection, Message, Receive, Scope, Send, refuse
from coatcheck.web.exempt import exempt_paths
from coatcheck.web.open_connections import OpenConnections
from coatcheck.web.opening import open_for, open_with_application

__all__ = ["App", "CoatcheckMiddleware", "Message", "Receive", "Scope", "Send", "exchange", "refuse", "request_head"]

_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
_CARRIES_HEADERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class CoatcheckMiddleware:
    """Gives every request of an ASGI application its Exchange.

    Handlers find it with `exchange(request)`, or in `scope["coatcheck"]`; `request.session` of Starlette and FastAPI
    is the same session. The edits of a handler are saved before its response starts, and again at its end for
    what a streamed body changed; if the handler raises or answers 5xx, they are dropped.

    An error of coatcheck's that the application lets pass becomes its answer: 401, 403, 409 or 503, in JSON. In
    Starlette and FastAPI use `add_middleware`: wrapped around the whole application, it would come after
    Starlette has already made a 500 of it.

    WebSockets and streams are cut within a second after what they came with has ended: see `coatcheck.standing`.

    Args:
        app: the application.
        coatcheck: opened with the application's lifespan, or at the first request where there is none.
        csrf_exempt: paths at which other sites may send unsafe requests, for webhooks and the like.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """

    def __init__(self, app: App, *, coatcheck: Coatcheck, csrf_exempt: Collection[str] = ()) -> None:
        self.app = app
        self.coatcheck = coatcheck
        self.csrf_exempt = exempt_paths(csrf_exempt)
        self.plain_http = PlainHTTP()
        self.open_connections = OpenConnections(coatcheck.verifier)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await (self._live if kind == "lifespan" else self.app)(scope, receive, send)
            return
        responder = _Responder(scope, receive, send, self)
        try:
            head = request_head(scope)
            if not self.coatcheck.is_open:
                await open_for(head, self.coatcheck)
            found = await Exchange.begin(head, self.coatcheck.sessions, self.coatcheck.verifier)
            responder.exchange = found
            try:
                found.require_same_site()
            except CrossSite:
                if not self.exempts(scope):
                    raise
            scope["coatcheck"] = found
            scope["session"] = found.session
            await responder.serve(self.app)
            late = not responder.started or found.session.is_edited()
            if late and not responder.failed and responder.error is None:
                await found.finish()
        except CoatcheckError as error:
            if responder.started or not is_ours_to_answer(error):
                raise
            await refuse(scope, send, error)

    def exempts(self, scope: Scope) -> bool:
        """Say whether other sites may send this request; an adapter whose routes can be marked asks those, too."""
        return scope["path"] in self.csrf_exempt

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_open() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await open_with_application(self.coatcheck)
            return message

        try:
            await self.app(scope, receive_and_open, send)
        finally:
            await self.coatcheck.close()


class _Responder(ASGIConnection):
    """The application's `send`: lets nothing leave before the session is saved and its headers are there."""

    middleware: CoatcheckMiddleware
    exchange: Exchange
    started = False
    failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in _CARRIES_HEADERS:
            found = self.exchange
            self.failed = message.get("status", 200) >= SERVER_ERROR
            if not self.failed:
                await found.finish()
            headers = found.dress(message.get("headers", ()))
            self.middleware.plain_http.notice(found.head, headers)
            message = {**message, "headers": headers}
            self.started = True
        self.notice(message)
        await self._send(message)

    def current_standing(self) -> Standing:
        """See ASGIConnection."""
        coatcheck = self.middleware.coatcheck
        return ExchangeStanding(self.exchange, coatcheck.sessions, coatcheck.verifier)


def exchange(request: Any) -> Exchange:
    """Return the Exchange of a request or connection that has a `scope`, as Starlette's and FastAPI's have.

    Raises:
        ConfigurationError: the middleware is not installed, or is further inside than what asks.
    """
    found: Exchange | None = request.scope.get("coatcheck")
    if found is None:
        raise ConfigurationError(
            "no exchange: coatcheck is not installed (add_middleware, init_app, CoatcheckPlugin), or further inside "
            "than what asks for it; with add_middleware the last one is the outermost"
        )
    return found


def request_head(scope: Scope) -> RequestHead:
    """Return what an Exchange needs of a connection."""
    client = scope.get("client")
    websocket = scope["type"] == "websocket"
    scheme: str = scope.get("scheme", "http")
    return RequestHead(
        method="CONNECT" if websocket else scope["method"],
        scheme=_HTTP_SCHEMES.get(scheme, scheme),
        headers=list(scope["headers"]),
        address=(client[0] or "") if client else "",
    )
