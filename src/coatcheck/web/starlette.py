"""Starlette: the middleware, with route templates among the exempt paths, and `request.user` and `request.auth`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.requests import HTTPConnection
from starlette.routing import compile_path

from coatcheck.compose import Coatcheck
from coatcheck.core.claims import Principal
from coatcheck.exchange import Exchange
from coatcheck.web import asgi
from coatcheck.web.asgi import App, Scope, exchange
from coatcheck.web.exempt import exempt_routes

__all__ = ["CoatcheckBackend", "CoatcheckMiddleware", "CoatcheckUser", "exchange"]


class CoatcheckMiddleware(asgi.CoatcheckMiddleware):
    """Gives every request of a Starlette or FastAPI application its Exchange: `exchange(request)`.

    `request.session` is the session. The last middleware that `add_middleware` is called with is the outermost: what
    needs the exchange is added before this one.

    Args:
        app: the application.
        coatcheck: opened with the application's lifespan, or at the first request where there is none.
        csrf_exempt: the paths of routes to which other sites may send unsafe requests, as the routes have them:
            "/hook", "/hooks/{sender}". Whatever such a path matches is exempt, "/hooks/settings" too.

    Raises:
        ConfigurationError: `csrf_exempt` is a single path.
    """

    def __init__(self, app: App, *, coatcheck: Coatcheck, csrf_exempt: Collection[str] = ()) -> None:
        super().__init__(app, coatcheck=coatcheck)
        self._routes = tuple(compile_path(path)[0] for path in exempt_routes(csrf_exempt))

    def exempts(self, scope: Scope) -> bool:
        """Say whether other sites may send this request."""
        path = _route_path(scope)
        return any(route.match(path) for route in self._routes)


def _route_path(scope: Scope) -> str:
    """Return the path that Starlette's routes see: below where the application is mounted, or a proxy has put it."""
    path: str = scope["path"]
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below[:1] in ("", "/") else path


class CoatcheckUser(BaseUser):
    """`request.user`: whom the request acts as, asked anew each time, so a sign-in shows at once.

    Args:
        found: the request's Exchange.
    """

    def __init__(self, found: Exchange) -> None:
        self._exchange = found

    @property
    def principal(self) -> Principal | None:
        """Whom the request acts as, or None."""
        return self._exchange.principal

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody is signed in."""
        return self._exchange.principal is not None

    @property
    def identity(self) -> str:
        """The subject, or "" for nobody."""
        principal = self._exchange.principal
        return principal.subject if principal else ""

    @property
    def display_name(self) -> str:
        """The subject, or "" for nobody."""
        return self.identity


class _Credentials(AuthCredentials):
    """`request.auth`: "authenticated", and the scopes of the sign-in; nobody has none."""

    def __init__(self, found: Exchange) -> None:
        self._exchange = found

    # Looked up when asked, not before: only an answer that depends on the credential says `Vary: Cookie` (C18).
    @property
    def scopes(self) -> Sequence[str]:  # type: ignore[override]  # Starlette assigns a list, and only reads it
        principal = self._exchange.principal
        return ["authenticated", *principal.scopes] if principal else []


class CoatcheckBackend(AuthenticationBackend):
    """Makes `request.user`, `request.auth.scopes` and Starlette's `@requires("authenticated")` those of the exchange.

    For Starlette's AuthenticationMiddleware, inside of CoatcheckMiddleware. What `@requires` refuses is Starlette's
    answer, 403 unless it is told otherwise; `exchange(request).require()` answers 401 with its challenge.

    Not checked: why a credential was refused; the request then acts as nobody.
    """

    async def authenticate(self, conn: HTTPConnection[Any]) -> tuple[AuthCredentials, BaseUser]:
        """Return what `request.auth` and `request.user` are.

        Raises:
            ConfigurationError: CoatcheckMiddleware is not installed, or inside of AuthenticationMiddleware.
        """
        found = exchange(conn)
        return _Credentials(found), CoatcheckUser(found)
