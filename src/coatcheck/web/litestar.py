"""Litestar: a plugin that gives every route its exchange, and guards.

A Litestar middleware runs after the routing, so a route says itself that other sites may send to it. Litestar answers
an exception before a middleware sees it, unless its handler raises: ours does, and the middleware answers as elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, MutableMapping
from contextlib import asynccontextmanager
from copy import copy
from datetime import timedelta
from typing import Any, NoReturn, cast

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.enums import ScopeType
from litestar.exceptions import LitestarException
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import InitPlugin
from litestar.serialization import decode_json, encode_json
from litestar.types import Empty
from litestar.types import Scope as LitestarScope

from coatcheck.compose import Coatcheck
from coatcheck.core.claims import Principal
from coatcheck.core.policy import Policy
from coatcheck.core.record import words
from coatcheck.core.session import Session
from coatcheck.errors import CoatcheckError
from coatcheck.exchange import Exchange
from coatcheck.web import asgi
from coatcheck.web.answer import SERVER_ERROR, PlainHTTP
from coatcheck.web.asgi import App, Message, Receive, Scope, Send, exchange
from coatcheck.web.exempt import exempt_paths
from coatcheck.web.open_connections import OpenConnections
from coatcheck.web.opening import open_with_application

__all__ = [
    "CoatcheckPlugin",
    "CurrentExchange",
    "CurrentPrincipal",
    "CurrentSession",
    "exchange",
    "require",
]

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], None]

# What is about the request; the rest is about the program, and Litestar's 500 (see `is_ours_to_answer`).
ANSWERED = tuple(kind for kind in CoatcheckError.__subclasses__() if kind.status != SERVER_ERROR)
_REFUSED = "coatcheck.refused"


class CoatcheckPlugin(InitPlugin):
    """Gives every route of a Litestar application its Exchange, and handlers what they ask for by name.

    `request.session` is the session; a handler's `principal: CurrentPrincipal`, `session: CurrentSession` and
    `exchange: CurrentExchange` are injected, by these names. A route to which other sites may send unsafe requests says
    so: `@post("/hook", csrf_exempt=True)`, which Litestar keeps in `opt`.

    Args:
        coatcheck: opened and closed with the application's lifespan.
        csrf_exempt: paths at which other sites may send unsafe requests, besides the routes that say so.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path, or has the template of a route in it.
    """

    def __init__(self, coatcheck: Coatcheck, csrf_exempt: Collection[str] = ()) -> None:
        self.coatcheck = coatcheck
        self.csrf_exempt = exempt_paths(csrf_exempt)
        # Of all routes together, though each has a middleware of its own.
        self.plain_http = PlainHTTP()
        self.open_connections = OpenConnections(coatcheck.verifier)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, the dependencies, the answers to errors and the OpenAPI security schemes."""
        config: Any = app_config  # whose types pyright knows in part
        config.middleware.insert(0, DefineMiddleware(cast("Any", _Middleware), plugin=self))
        config.lifespan.append(self._live)
        config.dependencies = {**_PROVIDED, **config.dependencies}
        config.exception_handlers = {**dict.fromkeys(ANSWERED, _let_pass), **config.exception_handlers}
        config.after_exception.append(_note)
        _describe(app_config, self.coatcheck.policy)
        return app_config

    @asynccontextmanager
    async def _live(self, _app: Litestar) -> AsyncGenerator[None, None]:
        await open_with_application(self.coatcheck)
        try:
            yield
        finally:
            await self.coatcheck.close()


def require(*, scopes: Collection[str] = (), max_age: timedelta | None = None, amr: Collection[str] = ()) -> Guard:
    """Return a guard that lets only some principals pass: `@get("/notes", guards=[require(scopes=["notes"])])`.

    Args:
        scopes: all of these must have been granted at the sign-in.
        max_age: how long ago the sign-in may have been (S15, RFC 9470).
        amr: one of these must be among the ways in which the subject signed in.
    """
    needed, ways = words(scopes), words(amr)

    def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        exchange(connection).require(scopes=needed, max_age=max_age, amr=ways)

    return guard


# -- what handlers ask for -------------------------------------------------------------------------------------------


CurrentExchange = NamedDependency[Exchange]
"""The Exchange of a request or a WebSocket: `exchange: CurrentExchange`."""

CurrentPrincipal = NamedDependency[Principal]
"""Whom the request acts as; without one it is refused: `principal: CurrentPrincipal`."""

CurrentSession = NamedDependency[Session]
"""The request's session, of a visitor as well; that of an access token is fetched: `session: CurrentSession`."""


def _exchange(scope: LitestarScope) -> Exchange:
    return cast("Exchange", cast("Scope", scope)["coatcheck"])


def _principal(scope: LitestarScope) -> Principal:
    return _exchange(scope).require()


async def _session(scope: LitestarScope) -> Session:
    found = _exchange(scope)
    if found.session.record is None and found.principal is not None:
        return await found.load_session()
    return found.session


_PROVIDED: Mapping[str, Provide] = {
    "exchange": Provide(_exchange, sync_to_thread=False),
    "principal": Provide(_principal, sync_to_thread=False),
    "session": Provide(_session),
}


# -- what passes by --------------------------------------------------------------------------------------------------


class _Middleware(asgi.CoatcheckMiddleware):
    """Of one route: Litestar makes as many as there are."""

    def __init__(self, app: App, *, plugin: CoatcheckPlugin) -> None:
        super().__init__(_Inside(app), coatcheck=plugin.coatcheck, csrf_exempt=plugin.csrf_exempt)
        self.plain_http = plugin.plain_http
        self.open_connections = plugin.open_connections

    def exempts(self, scope: Scope) -> bool:
        handler = scope["route_handler"]
        if handler.opt.get("csrf_exempt") is True:
            return True
        # By now the path of what is mounted is that below its mount, which may look like one that is exempt.
        return not getattr(handler, "is_mount", False) and super().exempts(scope)


class _Inside:
    """What Litestar does to a request's scope instead of to our session, taken over before the response leaves."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def take_over_and_send(message: Message) -> None:
            _take_over(scope)
            if message["type"] == "websocket.close" and _REFUSED in scope:
                await asgi.refuse(scope, send, scope[_REFUSED])
            else:
                await send(message)

        try:
            await self.app(scope, receive, take_over_and_send)
        except LitestarException as error:
            # What fails as we save comes in this: to Litestar a response has started as soon as we are handed it.
            if isinstance(error.__cause__, CoatcheckError):
                raise error.__cause__ from None
            raise
        _take_over(scope)


def _take_over(scope: Scope) -> None:
    """Do what `set_session` and `clear_session` ask for: they only put something else into the scope."""
    session, given = scope["coatcheck"].session, scope["session"]
    if given is session:
        return
    scope["session"] = session
    session.clear()
    if given is not Empty:
        session.update(given if isinstance(given, Mapping) else decode_json(encode_json(given)))


# -- what goes wrong -------------------------------------------------------------------------------------------------


def _let_pass(_request: object, error: Exception) -> NoReturn:
    raise error


async def _note(error: Exception, scope: LitestarScope) -> None:
    """Remember why a WebSocket is about to be closed: Litestar would say "Internal Server Error"."""
    if scope["type"] == ScopeType.WEBSOCKET and isinstance(error, ANSWERED):
        cast("MutableMapping[str, Any]", scope)[_REFUSED] = error


# -- what is described -----------------------------------------------------------------------------------------------


def _describe(app_config: AppConfig, policy: Policy) -> None:
    if app_config.openapi_config is None:
        return
    cookie = SecurityScheme(type="apiKey", name=policy.cookie.name, security_scheme_in="cookie")
    token = SecurityScheme(type="http", scheme="Bearer", bearer_format="JWT")
    ours = Components(security_schemes={"SessionCookie": cookie, "AccessToken": token})
    config = app_config.openapi_config = copy(app_config.openapi_config)
    theirs = config.components if isinstance(config.components, list) else [config.components]
    config.components = [ours, *theirs]
