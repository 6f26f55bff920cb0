"""Stores: where records live. `coatcheck.store.Store` says what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from coatcheck.errors import ConfigurationError
from coatcheck.store import Store

__all__ = ["store_from_url"]


def store_from_url(url: str) -> Store:
    """Return the store that a URL names; it is not opened yet.

    Args:
        url: `memory:`, `file:///absolute/directory`, `file:relative/directory`, `sqlite:///relative.db`,
            `sqlite:////absolute.db`, `postgresql://name:password@host/database?sslmode=verify-full`, or one of those
            in `coatcheck.stores.redis_url`, such as `redis://host/0`.

    Raises:
        ConfigurationError: it names none of ours. Only the scheme is repeated: a URL may hold a password.
    """
    scheme, colon, rest = url.partition(":")
    make = _STORES.get(scheme) if colon else None
    if make is None:
        known = ", ".join(f"{name}:" for name in _STORES)
        raise ConfigurationError(f"no store is called {scheme[:20]!r}: there is {known}")
    if "\0" in rest or (scheme not in _DRIVERS_OWN and ("?" in rest or "#" in rest)):
        raise ConfigurationError(f"a {scheme}: URL has no options; give them to the store's class")
    return make(rest)


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

    path = rest.removeprefix("///")
    if path == rest or not path.strip("/") or path == ":memory:":
        raise ConfigurationError("sqlite: needs a file; write sqlite:///relative.db or sqlite:////absolute.db")
    return SQLiteStore(path)


def _postgres(rest: str) -> Store:
    from coatcheck.stores.postgres import PostgresStore

    if not rest.startswith("//"):
        raise ConfigurationError("postgresql: needs a server; write postgresql://name:password@host/database")
    return PostgresStore(f"postgresql:{rest}")


def _redis(scheme: str, rest: str) -> Store:
    from coatcheck.stores.redis import RedisStore

    return RedisStore.from_url(f"{scheme}:{rest}")


_REDIS: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
_STORES: Final[dict[str, Callable[[str], Store]]] = {
    "memory": _memory,
    "file": _file,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    **{scheme: partial(_redis, scheme) for scheme in _REDIS},
}
_DRIVERS_OWN: Final = frozenset({"postgresql", "postgres", *_REDIS})  # what may stand in these URLs, their driver knows
