"""Places for documents of each kind, on real servers: how tests reach behind them, and drive them without a loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.cluster import RedisCluster

from coatcheck.documents import Documents
from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_documents import PostgresDocuments
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_documents import RedisDocuments
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite_documents import SQLiteDocuments

KINDS: Final = ("sqlite", "redis", "cluster", "postgres")


class Where:
    """Where documents of one kind lie in a test."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self.kind, self._request = kind, request

    def new(self, **options: Any) -> Documents:
        """Make one more object over the same documents, as another process would."""
        get = self._request.getfixturevalue
        if self.kind == "sqlite":
            return SQLiteDocuments(get("tmp_path") / "documents.db", **options)
        if self.kind == "postgres":
            return PostgresDocuments(get("server").url, schema=get("schema"), **options)
        return RedisDocuments.from_url(self.url, **{"prefix": get("prefix"), "allow_volatile": True, **options})

    def store(self) -> Store:
        """Make a store in the same place."""
        get = self._request.getfixturevalue
        if self.kind == "sqlite":
            return SQLiteStore(get("tmp_path") / "documents.db")
        if self.kind == "postgres":
            return PostgresStore(get("server").url, schema=get("schema"))
        return RedisStore.from_url(self.url, prefix=get("prefix"), allow_volatile=True)

    @property
    def url(self) -> str:
        if self.kind == "redis":
            return str(self._request.getfixturevalue("single_url"))
        servers = self._request.getfixturevalue("cluster")
        return f"redis+cluster://127.0.0.1:{servers[0].port}"

    def rewrite(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Change what is stored under a key behind the documents' back."""
        getattr(self, f"_rewrite_{self.kind}")(key.encode(), change)

    def _rewrite_sqlite(self, name: bytes, change: Callable[[bytes], bytes]) -> None:
        path: Path = self._request.getfixturevalue("tmp_path") / "documents.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            query = "SELECT value FROM coatcheck_document WHERE key = ?"
            (value,) = connection.execute(query, (name,)).fetchone()
            connection.execute("UPDATE coatcheck_document SET value = ? WHERE key = ?", (change(value), name))

    def _rewrite_postgres(self, name: bytes, change: Callable[[bytes], bytes]) -> None:
        server = self._request.getfixturevalue("server")
        [(value,)] = server.ask("SELECT value FROM coatcheck_document WHERE key = %s", name)
        server.ask("UPDATE coatcheck_document SET value = %s WHERE key = %s", change(value), name)

    def _rewrite_redis(self, name: bytes, change: Callable[[bytes], bytes]) -> None:
        with redis.Redis.from_url(self.url, protocol=2) as client:
            self._rewrite_at(client, name, change)

    def _rewrite_cluster(self, name: bytes, change: Callable[[bytes], bytes]) -> None:
        with RedisCluster(port=int(self.url.rpartition(":")[2]), host="127.0.0.1", protocol=2) as client:
            self._rewrite_at(client, name, change)

    def _rewrite_at(self, client: Any, name: bytes, change: Callable[[bytes], bytes]) -> None:
        key = b"%b:{server}d:%b" % (self._request.getfixturevalue("prefix").encode(), name)
        client.set(key, change(client.get(key)))


class Driven:
    """Documents whose every call is driven by `run` in a thread: no event loop runs there, as in a WSGI server."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._documents, name)
        if not inspect.iscoroutinefunction(method):
            return method

        @functools.wraps(method)
        async def driven(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(lambda: run(method(*arguments, **named)))

        return driven


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest) -> Where:
    return Where(request.param, request)
