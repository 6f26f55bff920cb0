"""Stores: where records live. `coatcheck.store.Store` says what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError
from coatcheck.store import Store

__all__ = ["documents_from_url", "store_from_url"]

T = TypeVar("T")


def store_from_url(url: str, *, timeout: timedelta | None = None) -> Store:
    """Return the store that a URL names; it is not opened yet.

    Args:
        url: `memory:`, `file:///absolute/directory`, `file:relative/directory`, `sqlite:///relative.db`,
            `sqlite:////absolute.db`, `postgresql://name:password@host/database?sslmode=verify-full`, or one of those
            in `coatcheck.stores.redis_url`, such as `redis://host/0`. Options that a URL of PostgreSQL may have
            besides libpq's stand in `coatcheck.stores.postgres_url`.
        timeout: how long a call to Redis or PostgreSQL may take; if left out, as long as the URL or their class says.

    Raises:
        ConfigurationError: it names none of ours. Only the scheme is repeated: a URL may hold a password.
    """
    return _from_url(url, _STORES, "no store is called", timeout)


def documents_from_url(url: str, *, timeout: timedelta | None = None) -> Documents:
    """Return the documents that a URL names; they are not opened yet. Records and documents may share a URL.

    Args:
        url: as for `store_from_url`, but memory and plain files hold no documents.
        timeout: as for `store_from_url`.

    Raises:
        ConfigurationError: it names none of ours. Only the scheme is repeated: a URL may hold a password.
    """
    return _from_url(url, _DOCUMENTS, "no documents lie in", timeout)


def _from_url(url: str, kinds: dict[str, Callable[..., T]], complaint: str, timeout: timedelta | None) -> T:
    scheme, colon, rest = url.partition(":")
    make = kinds.get(scheme) if colon else None
    if make is None:
        raise ConfigurationError(f"{complaint} {scheme[:20]!r}: there is {', '.join(f'{kind}:' for kind in kinds)}")
    if "\0" in rest or (scheme not in _DRIVERS_OWN and ("?" in rest or "#" in rest)):
        raise ConfigurationError(f"a {scheme}: URL has no options; give them to the store's class")
    limits = {"timeout": timeout} if timeout is not None and scheme in _DRIVERS_OWN else {}
    return make(rest, **limits)


def _memory(rest: str) -> Store:
    from coatcheck.stores.memory import MemoryStore

    if rest:
        raise ConfigurationError("memory: takes nothing after the colon")
    return MemoryStore()


def _file(rest: str) -> Store:
    from coatcheck.stores.file import FileStore

    if rest.startswith("//"):
        rest = rest[2:]
        if not rest.startswith("/"):
            raise ConfigurationError("file: takes no host; write file:///absolute or file:relative")
    if not rest.strip("/"):
        raise ConfigurationError("file: needs a directory of its own")
    return FileStore(rest)


def _sqlite(rest: str) -> Store:
    from coatcheck.stores.sqlite import SQLiteStore

    return SQLiteStore(_sqlite_path(rest))


def _sqlite_documents(rest: str) -> Documents:
    from coatcheck.stores.sqlite_documents import SQLiteDocuments

    return SQLiteDocuments(_sqlite_path(rest))


def _sqlite_path(rest: str) -> str:
    path = rest.removeprefix("///")
    if path == rest or not path.strip("/") or path == ":memory:":
        raise ConfigurationError("sqlite: needs a file; write sqlite:///relative.db or sqlite:////absolute.db")
    return path


def _postgres(rest: str, **limits: Any) -> Store:
    from coatcheck.stores.postgres import PostgresStore

    url, options = _postgres_url(rest)
    return PostgresStore(url, **{**options, **limits})


def _postgres_documents(rest: str, **limits: Any) -> Documents:
    from coatcheck.stores.postgres_documents import PostgresDocuments

    url, options = _postgres_url(rest)
    return PostgresDocuments(url, **{**options, **limits})


def _postgres_url(rest: str) -> tuple[str, dict[str, Any]]:
    from coatcheck.stores.postgres_url import parse

    if not rest.startswith("//"):
        raise ConfigurationError("postgresql: needs a server; write postgresql://name:password@host/database")
    return parse(f"postgresql:{rest}")


def _redis(scheme: str, rest: str, **limits: Any) -> Store:
    from coatcheck.stores.redis import RedisStore

    return RedisStore.from_url(f"{scheme}:{rest}", **limits)


def _redis_documents(scheme: str, rest: str, **limits: Any) -> Documents:
    from coatcheck.stores.redis_documents import RedisDocuments

    return RedisDocuments.from_url(f"{scheme}:{rest}", **limits)


_REDIS: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
_STORES: Final[dict[str, Callable[..., Store]]] = {
    "memory": _memory,
    "file": _file,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    **{scheme: partial(_redis, scheme) for scheme in _REDIS},
}
_DOCUMENTS: Final[dict[str, Callable[..., Documents]]] = {
    "sqlite": _sqlite_documents,
    "postgresql": _postgres_documents,
    "postgres": _postgres_documents,
    **{scheme: partial(_redis_documents, scheme) for scheme in _REDIS},
}
_DRIVERS_OWN: Final = frozenset({"postgresql", "postgres", *_REDIS})  # what may stand in these URLs, their driver knows
