"""Litestar: our plugin, and its own session middleware."""

from __future__ import annotations

from typing import Any, Final

import litestar
import litestar.middleware.session.client_side as litestar_cookie
import litestar.middleware.session.server_side as litestar_server
import litestar.stores.memory
import litestar.stores.redis

from coatcheck import Coatcheck, MemoryStore
from coatcheck.store import Store
from coatcheck.stores.redis import RedisStore
from coatcheck.web.litestar import CoatcheckPlugin, exchange
from suite.servers import Places
from suite.small_app import CONTENT, PATHS, SECRET, App

Request = litestar.Request[Any, Any, Any]
QUIET: Final[dict[str, Any]] = {"openapi_config": None, "logging_config": None}


async def bare() -> str:
    return "ann"


async def start(request: Request) -> str:
    request.session.update(CONTENT)
    return "ann"


async def sign_in(request: Request) -> str:
    await exchange(request).sign_in("ann", amr=("pwd",))
    return await start(request)


async def read(request: Request) -> str:
    return str(request.session["name"])


async def write(request: Request) -> str:
    request.session["count"] += 1
    return "ann"


def _litestar(*pages: Any, **more: Any) -> litestar.Litestar:
    handlers = [litestar.get(path, media_type="text/plain")(page) for path, page in zip(PATHS, pages, strict=True)]
    return litestar.Litestar(handlers, **more, **QUIET)


def _ours(store: Store) -> litestar.Litestar:
    return _litestar(sign_in, read, write, plugins=[CoatcheckPlugin(Coatcheck(store))])


def _own(session: Any, **stores: Any) -> litestar.Litestar:
    return _litestar(start, read, write, middleware=[session.middleware], stores=stores)


def _own_redis(places: Places) -> litestar.Litestar:
    store = litestar.stores.redis.RedisStore.with_client(places.redis)
    return _own(litestar_server.ServerSideSessionConfig(), sessions=store)


def _own_memory(_: Places) -> litestar.Litestar:
    return _own(litestar_server.ServerSideSessionConfig(), sessions=litestar.stores.memory.MemoryStore())


BARE: Final = App("Litestar", "Litestar", lambda _: _litestar(bare, bare, bare))
OURS: Final = (
    App("coatcheck on Litestar, memory", "Litestar", lambda _: _ours(MemoryStore())),
    App("coatcheck on Litestar, Redis", "Litestar", lambda p: _ours(RedisStore.from_url(p.redis))),
)
PEERS: Final = (
    App("Litestar, memory", "Litestar", _own_memory),
    App("Litestar, Redis", "Litestar", _own_redis),
    App(
        "Litestar, encrypted cookie",
        "Litestar",
        lambda _: _own(litestar_cookie.CookieBackendConfig(secret=SECRET[:32].encode())),
    ),
)
