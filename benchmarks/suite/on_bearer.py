"""Access tokens in an Authorization header, on Starlette: ours, and PyJWT in a middleware of one's own."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from coatcheck import Coatcheck, Keyring
from coatcheck.clock import Clock, system_clock
from coatcheck.web.asgi import CoatcheckMiddleware, exchange
from suite.clocks import backwards
from suite.on_starlette import bare, starlette
from suite.servers import Places
from suite.small_app import App

AUDIENCE: Final = "https://api.example"


async def read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(exchange(request).require().subject)


def _ours(algorithm: str, clock: Clock, _places: Places) -> Starlette:
    keyring = Keyring.generate(algorithm)
    issuing = Coatcheck(keyring=keyring)

    async def start(_request: Request) -> PlainTextResponse:
        session = await issuing.sessions.create("ann", amr=("pwd",))
        token = (await issuing.sessions.issue(session)).access_token
        return PlainTextResponse("ann", headers={"authorization": f"Bearer {token}"})

    coat = Coatcheck(keyring=keyring, clock=clock)
    return starlette(Middleware(CoatcheckMiddleware, coatcheck=coat), pages=(start, read, bare))


class PyJWT:
    """What is often written by hand: the header cut in two, and `jwt.decode`."""

    def __init__(self, app: Any, key: Any, algorithm: str) -> None:
        self._app, self._key, self._algorithm = app, key, algorithm

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        header = next((v for k, v in scope.get("headers", ()) if k == b"authorization"), b"").decode()
        if header.startswith("Bearer "):
            ask: Any = {"algorithms": [self._algorithm], "audience": AUDIENCE, "issuer": AUDIENCE}
            scope["user"] = jwt.decode(header.removeprefix("Bearer "), self._key, **ask)
        await self._app(scope, receive, send)


async def subject(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.scope["user"]["sub"])


def _pyjwt(algorithm: str, _places: Places) -> Starlette:
    private: Any = secrets.token_bytes(32) if algorithm == "HS256" else rsa.generate_private_key(65537, 2048)
    public = private if algorithm == "HS256" else private.public_key()

    async def begin(_request: Request) -> PlainTextResponse:
        now = int(time.time())
        claims = {"iss": AUDIENCE, "aud": AUDIENCE, "sub": "ann", "sid": "A" * 22, "iat": now, "exp": now + 3600}
        token = jwt.encode(claims, private, algorithm=algorithm)
        return PlainTextResponse("ann", headers={"authorization": f"Bearer {token}"})

    return starlette(Middleware(PyJWT, key=public, algorithm=algorithm), pages=(begin, subject, bare))


def _app(name: str, make: Any) -> App:
    return App(name, "Starlette", make, pages=("read",))


OURS: Final = (
    *(
        _app(f"coatcheck, {algorithm} token", lambda p, algorithm=algorithm: _ours(algorithm, backwards(), p))
        for algorithm in ("HS256", "RS256", "ES256", "Ed25519")
    ),
    _app("coatcheck, a token seen before", partial(_ours, "RS256", system_clock)),
)
PEERS: Final = (
    _app("PyJWT by hand, HS256", partial(_pyjwt, "HS256")),
    _app("PyJWT by hand, RS256", partial(_pyjwt, "RS256")),
)
