"""The same small application on each session library, in its documented form.

/start fills the session, /read answers with a value from it, and /write counts up a value in it. The bare application
of each framework has the same pages, which answer the same and know of no session.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any, Final, NamedTuple

import asyncpg
import flask
import flask_session
import litestar
import litestar.middleware.session.client_side as litestar_cookie
import litestar.middleware.session.server_side as litestar_server
import litestar.stores.memory
import litestar.stores.redis
import redis
import redis.asyncio
import starsessions
import starsessions.stores.redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coatcheck import Coatcheck, MemoryStore, SQLiteStore
from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.web.asgi import CoatcheckMiddleware, exchange
from suite import django_app
from suite.servers import Places

PATHS: Final = ("/start", "/read", "/write")
CONTENT: Final = {"name": "ann", "count": 0, "cart": ["a1", "b2", "c3"]}
_SECRET: Final = "a secret of the benchmark, 32 characters and more"  # noqa: S105

# -- Starlette, and what is middleware for it


async def bare(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ann")


async def start(request: Request) -> PlainTextResponse:
    request.session.update(CONTENT)
    return PlainTextResponse("ann")


async def read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.session["name"])


async def write(request: Request) -> PlainTextResponse:
    request.session["count"] += 1
    return PlainTextResponse("ann")


async def sign_in(request: Request) -> PlainTextResponse:
    await exchange(request).sign_in("ann", amr=("pwd",))
    return await start(request)


def _starlette(*middleware: Middleware, begin: Any = start) -> Starlette:
    return Starlette(routes=_routes(begin, read, write), middleware=middleware)


def _routes(*pages: Any) -> list[Route]:
    return [Route(path, page) for path, page in zip(PATHS, pages, strict=True)]


def _ours(store: Store) -> Starlette:
    return _starlette(Middleware(CoatcheckMiddleware, coatcheck=Coatcheck(store)), begin=sign_in)


def _starsessions(store: Any) -> Starlette:
    autoload = Middleware(starsessions.SessionAutoloadMiddleware)
    return _starlette(Middleware(starsessions.SessionMiddleware, store=store, lifetime=3600), autoload)


def _starsessions_redis(places: Places) -> Starlette:
    client = redis.asyncio.Redis.from_url(places.redis)
    return _starsessions(starsessions.stores.redis.RedisStore(connection=client))


class ByHand:
    """What is often written by hand: a look-up by the cookie, and the whole session written back if it has changed."""

    def __init__(self, app: Any, load: Any, save: Any) -> None:
        self._app, self._load, self._save = app, load, save

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        cookie = SimpleCookie(next((v for k, v in scope["headers"] if k == b"cookie"), b"").decode("latin-1"))
        known = cookie["session"].value if "session" in cookie else None
        before = await self._load(known) if known else None
        scope["session"] = json.loads(before) if before else {}

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                after = json.dumps(scope["session"]).encode()
                id = known or secrets.token_urlsafe(32)
                if after != before:
                    await self._save(id, after)
                header = f"session={id}; Path=/; Secure; HttpOnly; SameSite=Lax"
                message["headers"].append((b"set-cookie", header.encode()))
            await send(message)

        await self._app(scope, receive, answer)


def _redis_by_hand(places: Places) -> Starlette:
    client = redis.asyncio.Redis.from_url(places.redis)
    return _starlette(Middleware(ByHand, load=client.get, save=lambda id, data: client.set(id, data, ex=3600)))


def _asyncpg_by_hand(places: Places) -> Starlette:
    pools: list[Any] = []

    async def pool() -> Any:
        if not pools:
            pools.append(await asyncpg.create_pool(places.postgres, min_size=10))
            await pools[0].execute("CREATE TABLE IF NOT EXISTS by_hand (id text PRIMARY KEY, data bytea)")
        return pools[0]

    async def load(id: str) -> Any:
        return await (await pool()).fetchval("SELECT data FROM by_hand WHERE id = $1", id)

    async def save(id: str, data: bytes) -> None:
        statement = "INSERT INTO by_hand VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET data = excluded.data"
        await (await pool()).execute(statement, id, data)

    return _starlette(Middleware(ByHand, load=load, save=save))


# -- Litestar


async def litestar_bare() -> str:
    return "ann"


async def litestar_start(request: litestar.Request[Any, Any, Any]) -> str:
    request.session.update(CONTENT)
    return "ann"


async def litestar_read(request: litestar.Request[Any, Any, Any]) -> str:
    return str(request.session["name"])


async def litestar_write(request: litestar.Request[Any, Any, Any]) -> str:
    request.session["count"] += 1
    return "ann"


def _litestar(session: Any, **stores: Any) -> litestar.Litestar:
    pages = _litestar_routes(litestar_start, litestar_read, litestar_write)
    return litestar.Litestar(pages, middleware=[session.middleware], stores=stores, **QUIET)


def _litestar_routes(*pages: Any) -> list[Any]:
    return [litestar.get(path, media_type="text/plain")(page) for path, page in zip(PATHS, pages, strict=True)]


QUIET: Final[dict[str, Any]] = {"openapi_config": None, "logging_config": None}


def _litestar_redis(places: Places) -> litestar.Litestar:
    store = litestar.stores.redis.RedisStore.with_client(places.redis)
    return _litestar(litestar_server.ServerSideSessionConfig(), sessions=store)


# -- Flask


def flask_bare() -> str:
    return "ann"


def flask_start() -> str:
    flask.session.update(CONTENT)
    return "ann"


def flask_read() -> str:
    return str(flask.session["name"])


def flask_write() -> str:
    flask.session["count"] += 1
    return "ann"


def _flask(*pages: Any, **config: Any) -> flask.Flask:
    app = flask.Flask("bench")
    app.config.update(config)
    for path, page in zip(PATHS, pages, strict=True):
        app.add_url_rule(path, path, page)
    return app


def _flask_cookie(_: Places) -> flask.Flask:
    return _flask(flask_start, flask_read, flask_write, SECRET_KEY=_SECRET)


def _flask_redis(places: Places) -> flask.Flask:
    client = redis.Redis.from_url(places.redis)
    app = _flask(flask_start, flask_read, flask_write, SESSION_TYPE="redis", SESSION_REDIS=client)
    flask_session.Session(app)
    return app


# -- the list


class App(NamedTuple):
    """An application to measure: its name, what it stands on, and what makes it."""

    name: str
    stack: str
    make: Callable[[Places], Any]


# What each stack costs without sessions.
BARE: Final = (
    App("Starlette", "Starlette", lambda _: Starlette(routes=_routes(bare, bare, bare))),
    App("Litestar", "Litestar", lambda _: litestar.Litestar(_litestar_routes(*[litestar_bare] * 3), **QUIET)),
    App("Flask", "Flask", lambda _: _flask(*[flask_bare] * 3)),
    App("Django", "Django", lambda places: django_app.make(places, None)),
)
WSGI: Final = frozenset({"Flask", "Django"})
OURS: Final = (
    App("coatcheck, memory", "Starlette", lambda _: _ours(MemoryStore())),
    App("coatcheck, SQLite", "Starlette", lambda p: _ours(SQLiteStore(p.folder / f"{secrets.token_hex(4)}.db"))),
    App("coatcheck, Redis", "Starlette", lambda p: _ours(RedisStore.from_url(p.redis))),
    App("coatcheck, PostgreSQL", "Starlette", lambda p: _ours(PostgresStore(p.postgres))),
)
PEERS: Final = (
    App("Starlette, signed cookie", "Starlette", lambda _: _starlette(Middleware(SessionMiddleware, _SECRET))),
    App("starsessions, memory", "Starlette", lambda _: _starsessions(starsessions.InMemoryStore())),
    App("starsessions, Redis", "Starlette", _starsessions_redis),
    App("redis-py, by hand", "Starlette", _redis_by_hand),
    App("asyncpg, by hand", "Starlette", _asyncpg_by_hand),
    App(
        "Litestar, memory",
        "Litestar",
        lambda _: _litestar(litestar_server.ServerSideSessionConfig(), sessions=litestar.stores.memory.MemoryStore()),
    ),
    App("Litestar, Redis", "Litestar", _litestar_redis),
    App(
        "Litestar, encrypted cookie",
        "Litestar",
        lambda _: _litestar(litestar_cookie.CookieBackendConfig(secret=_SECRET[:32].encode())),
    ),
    App("Flask, signed cookie", "Flask", _flask_cookie),
    App("Flask-Session, Redis", "Flask", _flask_redis),
    App("Django, signed cookie", "Django", lambda p: django_app.make(p, "signed_cookies")),
    App("Django, cache on Redis", "Django", lambda p: django_app.make(p, "cache")),
    App("Django, SQLite", "Django", lambda p: django_app.make(p, "db")),
)
