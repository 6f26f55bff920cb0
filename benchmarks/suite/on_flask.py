"""Flask: ours, its own signed cookie, and Flask-Session."""

from __future__ import annotations

from typing import Any, Final

import flask
import flask_session
import redis

from coatcheck import Coatcheck, MemoryStore, Sealed
from coatcheck.store import Store
from coatcheck.stores.redis import RedisStore
from coatcheck.web.flask import current_exchange, init_app, run
from suite.servers import Places
from suite.small_app import CONTENT, PATHS, SECRET, App


def bare() -> str:
    return "ann"


def start() -> str:
    flask.session.update(CONTENT)
    return "ann"


def sign_in() -> str:
    run(current_exchange().sign_in("ann", amr=("pwd",)))
    return start()


def read() -> str:
    return str(flask.session["name"])


def write() -> str:
    flask.session["count"] += 1
    return "ann"


def _flask(*pages: Any, **config: Any) -> flask.Flask:
    app = flask.Flask("bench")
    app.config.update(config)
    for path, page in zip(PATHS, pages, strict=True):
        app.add_url_rule(path, path, page)
    return app


def _ours(store: Store | Sealed) -> flask.Flask:
    app = _flask(sign_in, read, write)
    init_app(app, Coatcheck(store))
    return app


def _cookie(_: Places) -> flask.Flask:
    return _flask(start, read, write, SECRET_KEY=SECRET)


def _redis(places: Places) -> flask.Flask:
    client = redis.Redis.from_url(places.redis)
    app = _flask(start, read, write, SESSION_TYPE="redis", SESSION_REDIS=client)
    flask_session.Session(app)
    return app


BARE: Final = App("Flask", "Flask", lambda _: _flask(bare, bare, bare))
OURS: Final = (
    App("coatcheck on Flask, memory", "Flask", lambda _: _ours(MemoryStore())),
    App("coatcheck on Flask, sealed cookie", "Flask", lambda _: _ours(Sealed())),
    App("coatcheck on Flask, Redis", "Flask", lambda p: _ours(RedisStore.from_url(p.redis))),
)
PEERS: Final = (
    App("Flask, signed cookie", "Flask", _cookie),
    App("Flask-Session, Redis", "Flask", _redis),
)
