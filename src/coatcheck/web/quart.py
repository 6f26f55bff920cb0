"""Quart: `quart.session` is the session, `current_exchange()` the Exchange of the request or WebSocket.

init_app(app, coatcheck)
...
await current_exchange().sign_in("ann")       a coroutine, as everything else that may do I/O
current_exchange().require(scopes=["notes"])  an error that a view lets pass is answered: 401, 403, 409 or 503
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from quart import (
    Quart,
    Response,
    got_request_exception,
    got_websocket_exception,
    has_websocket_context,
    request,
    websocket,
)
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError
from coatcheck.exchange import Exchange
from coatcheck.web.answer import is_ours_to_answer
from coatcheck.web.asgi import (
    App,
    CoatcheckMiddleware,
    Message,
    Receive,
    Scope,
    Send,
    exchange,
    refuse,
    request_head,
)
from coatcheck.web.exempt import csrf_exempt, is_exempt
from coatcheck.web.flask import FlaskSession
from coatcheck.web.wsgi import native

__all__ = ["csrf_exempt", "current_exchange", "init_app"]

_ALONE = "coatcheck.alone"  # in a scope: the Exchange that no middleware finishes
_REFUSED = "coatcheck.refused"  # in a scope: the error of ours that a view let pass


def init_app(app: Quart, coatcheck: Coatcheck, *, csrf_exempt: Collection[str] = ()) -> None:
    """Give a Quart application our sessions in place of its own.

    `app.asgi_app` is wrapped: what is to come before us, as ProxyFix does, wraps it afterwards.

    Args:
        app: the application.
        coatcheck: opened and closed with the application's lifespan.
        csrf_exempt: paths at which other sites may send unsafe requests; the decorator `csrf_exempt` marks views.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """
    inside = _Inside(cast("App", app.asgi_app))
    # Quart finds its ASGI application by this attribute, and says that it is there to be wrapped.
    app.asgi_app = cast("Any", _Middleware(inside, app, coatcheck, csrf_exempt))  # type: ignore[method-assign]
    cast("Any", app).session_interface = _Sessions(coatcheck)
    app.register_error_handler(CoatcheckError, _let_pass)
    got_request_exception.connect(_let_out, app)
    got_websocket_exception.connect(_let_out, app)


def current_exchange() -> Exchange:
    """Return the Exchange of the request or WebSocket that is being served.

    Raises:
        ConfigurationError: `init_app` was not called.
    """
    return exchange(_current())


class _Middleware(CoatcheckMiddleware):
    def __init__(self, app: App, quart: Quart, coatcheck: Coatcheck, csrf_exempt: Collection[str]) -> None:
        super().__init__(app, coatcheck=coatcheck, csrf_exempt=csrf_exempt)
        self._quart = quart

    def exempts(self, scope: Scope) -> bool:
        return super().exempts(scope) or is_exempt(self._view(scope))

    def _view(self, scope: Scope) -> object:
        """Return the view that a request or WebSocket is for, or None."""
        try:
            adapter = self._quart.create_url_adapter(_asked(scope))
            endpoint = adapter.match(websocket=scope["type"] == "websocket")[0] if adapter is not None else ""
        except HTTPException:
            return None
        return self._quart.view_functions.get(endpoint)


def _asked(scope: Scope) -> BaseRequestWebsocket:
    """Return what Quart's routing looks at: the host, for subdomains, and the path below where a proxy has put it."""
    path, root = scope["path"], scope.get("root_path", "")
    if root:
        path = path.removeprefix(root) if path.startswith(root) else ""
    return BaseRequestWebsocket(
        scope.get("method", "GET"),
        scope["scheme"],
        path or " ",  # at which Quart finds nothing
        scope["query_string"],
        Headers(native(list(scope["headers"]))),
        root,
        scope.get("http_version", "1.1"),
        cast("Any", scope),
    )


class _Inside:
    """Lets an error of ours out of Quart, which makes a response of each: the middleware answers as elsewhere."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def send_or_raise(message: Message) -> None:
            nonlocal accepted
            if _REFUSED in scope:
                raise scope[_REFUSED]
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        refused: Exception | None = None
        try:
            await self.app(scope, receive, send_or_raise)
        except* CoatcheckError as group:  # from 0.23 on Quart lets it out in the ExceptionGroup of a TaskGroup
            refused = group.exceptions[0]
        if isinstance(refused, CoatcheckError):
            if not accepted or not is_ours_to_answer(refused):
                raise refused
            await refuse(scope, send, refused)


async def _let_pass(error: CoatcheckError) -> Response:
    if not is_ours_to_answer(error):
        raise error
    _current().scope[_REFUSED] = error
    return Response("", error.status)  # which does not leave


async def _let_out(_: Quart, exception: Exception) -> None:
    """Let out what Quart asks no error handler about, and would make a 500 of: an error in `after_request`."""
    if isinstance(exception, CoatcheckError) and is_ours_to_answer(exception):
        await _let_pass(exception)  # in debug mode Quart makes a page of what is raised here, too
        raise exception


def _current() -> Any:
    return websocket if has_websocket_context() else request


class _Sessions(SessionInterface):
    """Hands out the session of the exchange. The middleware saves it, and sends its cookie."""

    def __init__(self, coatcheck: Coatcheck) -> None:
        self._coatcheck = coatcheck

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> FlaskSession:  # noqa: ARG002  Quart's
        scope = cast("Scope", request.scope)
        if "coatcheck" not in scope:  # Quart's test_request_context and session_transaction call no middleware
            head = request_head(scope)
            alone = await Exchange.begin(head, self._coatcheck.sessions, self._coatcheck.verifier)
            scope["coatcheck"] = scope[_ALONE] = alone
        return FlaskSession(exchange(request).session, scope.get(_ALONE))

    async def save_session(
        self,
        app: Quart,  # noqa: ARG002  Quart says what it takes
        session: SessionMixin,
        response: Response | WerkzeugResponse | None,
    ) -> None:
        if not isinstance(session, FlaskSession) or session.unfinished is None:
            return
        await session.unfinished.finish()
        if response is not None:
            response.headers.extend(native(session.unfinished.dress(())))
