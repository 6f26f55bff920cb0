"""Starlette, and the session libraries that are middleware for it."""

from __future__ import annotations

import json
import secrets
from http.cookies import SimpleCookie
from typing import Any, Final

import asyncpg
import redis.asyncio
import starsessions
import starsessions.stores.redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coatcheck import Coatcheck, MemoryStore, Sealed, SQLiteStore
from coatcheck.store import Store
from coatcheck.stores.near import NearStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.web.asgi import CoatcheckMiddleware, exchange
from suite.servers import Places
from suite.small_app import CONTENT, PATHS, SECRET, App


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


def starlette(*middleware: Middleware, pages: Any = (start, read, write)) -> Starlette:
    routes = [Route(path, page) for path, page in zip(PATHS, pages, strict=True)]
    return Starlette(routes=routes, middleware=middleware)


def ours(coat: Coatcheck) -> Starlette:
    """Return our application, with these sessions."""
    return starlette(Middleware(CoatcheckMiddleware, coatcheck=coat), pages=(sign_in, read, write))


def _ours(store: Store | Sealed) -> Starlette:
    return ours(Coatcheck(store))


def _sqlite(places: Places) -> Starlette:
    return _ours(SQLiteStore(places.folder / f"{secrets.token_hex(4)}.db"))


def _starsessions(store: Any) -> Starlette:
    autoload = Middleware(starsessions.SessionAutoloadMiddleware)
    return starlette(Middleware(starsessions.SessionMiddleware, store=store, lifetime=3600), autoload)


def _starsessions_redis(places: Places) -> Starlette:
    client = redis.asyncio.Redis.from_url(places.redis)
    return _starsessions(starsessions.stores.redis.RedisStore(connection=client))


class ByHand:
    """What is often written by hand: a look-up by the cookie, and the whole session written back if it has changed."""

    def __init__(self, app: Any, load: Any, save: Any) -> None:
        self._app, self._load, self._save = app, load, save

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
    return starlette(Middleware(ByHand, load=client.get, save=lambda id, data: client.set(id, data, ex=3600)))


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

    return starlette(Middleware(ByHand, load=load, save=save))


BARE: Final = App("Starlette", "Starlette", lambda _: starlette(pages=(bare, bare, bare)))
OURS: Final = (
    App("coatcheck, memory", "Starlette", lambda _: _ours(MemoryStore())),
    App("coatcheck, sealed cookie", "Starlette", lambda _: _ours(Sealed())),
    App("coatcheck, SQLite", "Starlette", _sqlite),
    App("coatcheck, Redis", "Starlette", lambda p: _ours(RedisStore.from_url(p.redis))),
    App("coatcheck, Redis, near cache", "Starlette", lambda p: _ours(NearStore(RedisStore.from_url(p.redis)))),
    App("coatcheck, PostgreSQL", "Starlette", lambda p: _ours(PostgresStore(p.postgres))),
)
PEERS: Final = (
    App("Starlette, signed cookie", "Starlette", lambda _: starlette(Middleware(SessionMiddleware, SECRET))),
    App("starsessions, memory", "Starlette", lambda _: _starsessions(starsessions.InMemoryStore())),
    App("starsessions, Redis", "Starlette", _starsessions_redis),
    App("redis-py, by hand", "Starlette", _redis_by_hand),
    App("asyncpg, by hand", "Starlette", _asyncpg_by_hand),
)
