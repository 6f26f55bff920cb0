"""The ASGI middleware of an API without a store: `scope["coatcheck"]` says whom a request's access token speaks for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from coatcheck.clock import Clock
from coatcheck.core import credentials, sufficiency
from coatcheck.core.claims import Principal
from coatcheck.core.credentials import AccessToken, CookieNames
from coatcheck.errors import CoatcheckError, ConfigurationError, Missing
from coatcheck.run import offload
from coatcheck.standing import FOREVER, HeardOf, Standing
from coatcheck.verifier import RemoteVerifier
from coatcheck.web.answer import is_ours_to_answer
from coatcheck.web.asgi_connection import App, ASGIConnection, Message, Receive, Scope, Send, refuse
from coatcheck.web.open_connections import OpenConnections

# Less than the issuer may be asked about at a time: requests have questions, too.
_ASKING_AT_ONCE = 16


class Bearer:
    """A request, as far as its access token is concerned; handlers get it by `bearer(request)`.

    Args:
        principal: whom it acts as; None if it presents no token.
        clock: milliseconds since the epoch.
    """

    __slots__ = ("_clock", "principal")

    def __init__(self, principal: Principal | None, clock: Clock) -> None:
        self.principal = principal
        self._clock = clock

    def require(
        self, *, scopes: Collection[str] = (), max_age: timedelta | None = None, amr: Collection[str] = ()
    ) -> Principal:
        """Return the principal, or refuse the request.

        Args:
            scopes: all of these must have been granted at the sign-in.
            max_age: how long ago the sign-in may have been (S15, RFC 9470).
            amr: one of these must be among the ways in which the subject signed in.

        Raises:
            Missing: there was no token.
            Insufficient: it is good, but not for this.
        """
        if self.principal is None:
            raise Missing("this needs an access token")
        sufficiency.judge(self.principal, scopes=scopes, max_age=max_age, amr=amr, now=self._clock() // 1000)
        return self.principal


class BearerMiddleware:
    """Verifies the access token of every request of an ASGI application, from its Authorization header alone.

    A token that is no good is answered 401 before the application hears of it, and 503 while nothing can be said;
    whether there must be one at all, the handler says: `bearer(request).require()`. Errors of coatcheck's that the
    application lets pass become its answer, in JSON and with their challenge (RFC 6750). Cookies are not looked at, so
    no other site can use a browser's (F1).

    WebSockets and streams are cut within a second after their token has expired or was revoked.

    Args:
        app: the application.
        verifier: opened and closed with the application's lifespan.
    """

    def __init__(self, app: App, *, verifier: RemoteVerifier) -> None:
        self.app = app
        self.verifier = verifier
        self.open_connections = OpenConnections(verifier, at_once=_ASKING_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._serve(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = False

        async def receive_and_open() -> Message:
            nonlocal opened
            message = await receive()
            if message["type"] == "lifespan.startup":
                opened = True
                await offload(self.verifier.open)
            return message

        try:
            await self.app(scope, receive_and_open, send)
        finally:
            # An application without a lifespan raises, or returns, and is served: the first token opens it then.
            if opened:
                await offload(self.verifier.close)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(scope, receive, send, self)
        try:
            connection.token = _presented(scope)
            token = connection.token
            principal = None if token is None else await self.verifier.verify_asking(token)
            scope["coatcheck"] = Bearer(principal, self.verifier.clock)
            await connection.serve(self.app)
        except CoatcheckError as error:
            if connection.started or not is_ours_to_answer(error):
                raise
            await refuse(scope, send, error)


class _Connection(ASGIConnection):
    """The application's `send`: knows whether anything was sent."""

    middleware: BearerMiddleware
    token: str | None
    started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        self.notice(message)
        await self._send(message)

    def current_standing(self) -> Standing:
        """See ASGIConnection."""
        return _TokenStanding(self.token, self.middleware.verifier)


class _TokenStanding:
    """The standing of an access token, or of none."""

    __slots__ = ("_heard_of", "_token", "_verifier")

    def __init__(self, token: str | None, verifier: RemoteVerifier) -> None:
        self._token = token
        self._verifier = verifier
        self._heard_of = HeardOf(verifier)

    def ends_at(self) -> int:
        return FOREVER if self._token is None else self._verifier.ends_at(self._token)

    def is_suspect(self) -> bool:
        return self._token is not None and self._heard_of(self._token)

    async def renew(self) -> None:
        if self._token is not None:
            await self._verifier.verify_asking(self._token)
            self._verifier.judge(self._token)  # by what was heard while the issuer was being asked


def _presented(scope: Scope) -> str | None:
    headers = [header for header in scope["headers"] if header[0] == b"authorization"]
    presented = credentials.read(headers, CookieNames())
    return presented.text if isinstance(presented, AccessToken) else None


def bearer(request: Any) -> Bearer:
    """Return the Bearer of a request or connection that has a `scope`, as Starlette's and FastAPI's have.

    Raises:
        ConfigurationError: the middleware is not installed.
    """
    found = request.scope.get("coatcheck")
    if not isinstance(found, Bearer):
        raise ConfigurationError("no bearer: install it, app.add_middleware(BearerMiddleware, verifier=...)")
    return found
