"""Quart: `quart.session` is the session, `current_exchange()` the Exchange of the request or WebSocket.

init_app(app, coatcheck)
...
await current_exchange().sign_in("ann")       a coroutine, as everything else that may do I/O
current_exchange().require(scopes=["notes"])  an error that a view lets pass is answered: 401, 403, 409 or 503
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from quart import Quart, Response, has_websocket_context, request, websocket
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError, ConfigurationError
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
from coatcheck.web.flask import FlaskSession

__all__ = ["csrf_exempt", "current_exchange", "init_app"]

View = TypeVar("View", bound=Callable[..., Any])

_EXEMPT = "_coatcheck_csrf_exempt"  # on a view
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
        ConfigurationError: `csrf_exempt` is a single path.
    """
    inside = _Inside(cast("App", app.asgi_app))
    # Quart finds its ASGI application by this attribute, and says that it is there to be wrapped.
    app.asgi_app = cast("Any", _Middleware(inside, app, coatcheck, csrf_exempt))  # type: ignore[method-assign]
    cast("Any", app).session_interface = _Sessions(coatcheck)
    app.register_error_handler(CoatcheckError, _let_pass)


def current_exchange() -> Exchange:
    """Return the Exchange of the request or WebSocket that is being served.

    Raises:
        ConfigurationError: `init_app` was not called.
    """
    found: Exchange | None = _scope().get("coatcheck")
    if found is None:
        raise ConfigurationError("no exchange: init_app(app, coatcheck) makes one for each request")
    return found


def csrf_exempt(view: View) -> View:
    """Mark a view as one that other sites may send unsafe requests to: for webhooks and the like.

    It stands below the route: `@app.post("/hook")`, and then `@csrf_exempt`.
    """
    setattr(view, _EXEMPT, True)
    return view


class _Middleware(CoatcheckMiddleware):
    def __init__(self, app: App, quart: Quart, coatcheck: Coatcheck, csrf_exempt: Collection[str]) -> None:
        super().__init__(app, coatcheck=coatcheck, csrf_exempt=csrf_exempt)
        self._quart = quart

    def exempts(self, scope: Scope) -> bool:
        return super().exempts(scope) or hasattr(self._view(scope), _EXEMPT)

    def _view(self, scope: Scope) -> object:
        """Return the view that a request or WebSocket is for, or None."""
        is_websocket = scope["type"] == "websocket"
        try:
            endpoint, _ = self._quart.url_map.bind("").match(
                scope["path"], "GET" if is_websocket else scope["method"], websocket=is_websocket
            )
        except HTTPException:
            return None
        return self._quart.view_functions.get(endpoint)


class _Inside:
    """Lets an error of ours out of Quart, which makes a response of each: the middleware answers as elsewhere."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def send_or_raise(message: Message) -> None:
            nonlocal accepted
            if _REFUSED not in scope:
                accepted = accepted or message["type"] == "websocket.accept"
                await send(message)
            elif accepted:
                await refuse(scope, send, scope[_REFUSED])
            else:
                raise scope[_REFUSED]

        await self.app(scope, receive, send_or_raise)


async def _let_pass(error: CoatcheckError) -> Response:
    if not is_ours_to_answer(error):
        raise error
    _scope()[_REFUSED] = error
    return Response("", error.status)  # which does not leave


def _scope() -> Scope:
    return cast("Scope", (websocket if has_websocket_context() else request).scope)


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
            dressed = session.unfinished.dress(())
            response.headers.extend([(name.decode("latin-1"), value.decode("latin-1")) for name, value in dressed])
