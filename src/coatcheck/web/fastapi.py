"""FastAPI: dependencies that give the principal, the session and the exchange, and an OpenAPI document that says so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Security
from fastapi.openapi import models
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, Field

from coatcheck.compose import Coatcheck
from coatcheck.core.claims import Principal
from coatcheck.core.cookies import SESSION_COOKIE
from coatcheck.core.record import words
from coatcheck.core.session import Session
from coatcheck.exchange import Exchange
from coatcheck.web.asgi import exchange
from coatcheck.web.starlette import CoatcheckMiddleware

__all__ = [
    "CoatcheckMiddleware",
    "CurrentExchange",
    "CurrentPrincipal",
    "CurrentSession",
    "Token",
    "current_exchange",
    "current_principal",
    "current_session",
    "exchange",
    "init_app",
    "require",
]

_COOKIE, _TOKEN = "SessionCookie", "AccessToken"


def init_app(
    app: FastAPI,
    coatcheck: Coatcheck,
    *,
    csrf_exempt: Collection[str] = (),
    token_url: str = "",
    scopes: Mapping[str, str] | None = None,
) -> None:
    """Put the middleware around an application, and the names of its cookie and its token route into its OpenAPI.

    Args:
        app: the application. Middlewares that need the exchange are added before this.
        coatcheck: opened with the application's lifespan.
        csrf_exempt: the paths of routes to which other sites may send unsafe requests: "/hook", "/hooks/{sender}".
        token_url: where the "Authorize" button of the documentation page sends name and password (RFC 6749, 4.3), for
            example "token". Without it, the page asks for an access token.
        scopes: those that the button offers, each with its description.
    """
    app.add_middleware(CoatcheckMiddleware, coatcheck=coatcheck, csrf_exempt=csrf_exempt)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        schemes = document.get("components", {}).get("securitySchemes", {})
        if _COOKIE in schemes:
            schemes[_COOKIE]["name"] = coatcheck.policy.cookie.name
        if _TOKEN in schemes and token_url:
            flow = {"tokenUrl": token_url, "scopes": dict(scopes or {})}
            schemes[_TOKEN] = {"type": "oauth2", "flows": {"password": flow}}
        for operation in _operations(document):
            _tell_of_refusals(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend the document


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document.get("paths", {}).values():
        yield from (operation for operation in path.values() if isinstance(operation, dict))


def _tell_of_refusals(operation: dict[str, Any]) -> None:
    needed = [scopes for each in operation.get("security", ()) for name, scopes in each.items() if name == _TOKEN]
    if needed:
        operation["responses"].setdefault("401", {"description": "Not signed in, or not in the way that this needs"})
    if any(needed):
        operation["responses"].setdefault("403", {"description": "The scopes do not suffice"})


class _Scheme(SecurityBase):
    """A line of the OpenAPI document. It reads nothing: the middleware has."""

    def __init__(self, name: str, model: models.SecurityBase) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None: ...


_by_cookie = _Scheme(_COOKIE, models.APIKey.model_validate({"in": "cookie", "name": SESSION_COOKIE}))
_by_token = _Scheme(_TOKEN, models.HTTPBearer(bearerFormat="JWT"))


async def current_exchange(connection: HTTPConnection) -> Exchange:
    """Return the Exchange of a request or a WebSocket.

    Raises:
        ConfigurationError: the middleware is not installed.
    """
    return exchange(connection)


CurrentExchange = Annotated[Exchange, Depends(current_exchange)]
"""The Exchange of a request or a WebSocket."""


async def current_session(current: CurrentExchange) -> Session:
    """Return the request's session, as a mapping; that of an access token is fetched from the store.

    Raises:
        Revoked: the session of the access token has ended.
        StoreUnavailable
    """
    if current.session.record is None and current.principal is not None:
        return await current.load_session()
    return current.session


CurrentSession = Annotated[Session, Depends(current_session)]
"""The request's session, as a mapping; of a visitor as well."""


def require(
    *, scopes: Collection[str] = (), max_age: timedelta | None = None, amr: Collection[str] = ()
) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """Return a dependency that gives the principal or refuses the request: `Depends(require(scopes=["notes"]))`.

    The OpenAPI document says which scopes. Those of `Security(..., scopes=[...])` are required as well.

    Args:
        scopes: all of these must have been granted at the sign-in.
        max_age: how long ago the sign-in may have been (S15, RFC 9470).
        amr: one of these must be among the ways in which the subject signed in.
    """
    needed = words(scopes)

    async def required(
        current: CurrentExchange,
        more: SecurityScopes,
        _cookie: None = Security(_by_cookie, scopes=needed),
        _token: None = Security(_by_token, scopes=needed),
    ) -> Principal:
        return current.require(scopes=(*needed, *more.scopes), max_age=max_age, amr=amr)

    return required


current_principal = require()

CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
"""Whom the request acts as; without one it is refused."""


class Token(BaseModel):
    """A Grant as OAuth 2.0 has it (RFC 6749, 5.1): the `response_model` of a route that returns one."""

    access_token: str
    token_type: str
    expires_in: int = Field(description="seconds")
    refresh_token: str
    scope: str = Field(description="separated by spaces")
