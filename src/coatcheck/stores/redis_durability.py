"""What Redis servers say about how safe they keep what they acknowledge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from coatcheck.errors import ConfigurationError
from coatcheck.store import Durability
from coatcheck.stores.redis_link import RedisLink
from coatcheck.stores.redis_url import Address
from coatcheck.stores.redis_waiting import Wait

_log = logging.getLogger("coatcheck")

_OLDEST: Final = (6, 2)
_LEVELS: Final[tuple[Durability, ...]] = ("volatile", "crash-safe", "power-safe", "failover-safe")
_REMEDY: Final = "turn on appendonly, or say allow_volatile=True if sessions may come back after they were ended"


async def inspect(link: RedisLink, *, allow_volatile: bool, wait: Wait | None) -> Durability:
    """Return what a write survives on the weakest of the servers.

    Raises:
        ConfigurationError: a server is too old, forgets what it acknowledged, and that was not allowed, or cannot wait
            for what it should.
        StoreUnavailable: a server cannot be asked.
    """
    levels: list[Durability] = []
    for address in await link.primaries():
        levels.append(await _level(link, address, allow_volatile=allow_volatile))
        if wait is not None and wait.until == "synced":
            await _require_syncing(link, address, levels[-1])
    level = _LEVELS[min(_LEVELS.index(each) for each in levels)]
    return "failover-safe" if wait is not None and level != "volatile" else level


async def _level(link: RedisLink, address: Address, *, allow_volatile: bool) -> Durability:
    info = _pairs_of_info(await link.ask_server(address, ("INFO",)))
    _require_version(info)
    settings: dict[str, str] = {}
    for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        settings |= _pairs(await link.ask_server(address, ("CONFIG", "GET", name)))
    problem = _problem(info, settings)
    if problem and not allow_volatile:
        raise ConfigurationError(f"this Redis server {problem}; {_REMEDY}")
    if problem:
        return "volatile"
    if "appendfsync" not in settings:
        _log.warning("the Redis server does not say how its log is synced: appendfsync everysec is assumed")
    return "power-safe" if settings.get("appendfsync") == "always" else "crash-safe"


async def _require_syncing(link: RedisLink, address: Address, level: Durability) -> None:
    """Refuse a server that cannot say what is synced.

    With `appendfsync everysec` Redis 7.4.0 and Valkey, up to 9.1 at least, say so as soon as they have been asked.
    """
    said = await link.ask_server(address, ("WAITAOF", 1, 0, 1))
    if isinstance(said, ResponseError):
        words = f"wait_until=synced needs WAITAOF, of Redis 7.2 or Valkey, and appendonly yes: {str(said)[:100]}"
        raise ConfigurationError(words)
    if level != "power-safe":
        raise ConfigurationError(
            "wait_until=synced needs a log that is surely synced: appendfsync always, by CONFIG GET"
        )


def _problem(info: dict[str, str], settings: dict[str, str]) -> str:
    """Say how the server loses what it has acknowledged, if it does."""
    if "appendonly" not in settings and "aof_enabled" not in info:
        return "tells neither by CONFIG nor by INFO whether it keeps a log"
    if settings.get("appendonly", "no") != "yes" and info.get("aof_enabled") != "1":
        return "keeps no log: what it acknowledges is lost when it dies"
    memory = settings.get("maxmemory", info.get("maxmemory", "0"))
    policy = settings.get("maxmemory-policy", info.get("maxmemory_policy", "noeviction"))
    if memory != "0" and policy != "noeviction":
        return f"evicts keys ({policy}), sign-outs among them: set maxmemory-policy to noeviction"
    return ""


def _require_version(info: dict[str, str]) -> None:
    version = info.get("redis_version", "")
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if version and tuple(numbers) < _OLDEST:
        raise ConfigurationError(f"Redis {version} is too old; 6.2 is needed, or Valkey 8")


def _pairs(reply: Any) -> dict[str, str]:
    """Return the answer of CONFIG GET, empty where that is forbidden."""
    if isinstance(reply, ResponseError):
        return {}
    words: Sequence[str] = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


def _pairs_of_info(reply: Any) -> dict[str, str]:
    """Return the answer of INFO, empty where that is forbidden."""
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}
