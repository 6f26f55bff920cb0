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


async def inspect(link: RedisLink, *, allow_volatile: bool, wait: Wait) -> Durability:
    """Return what a write survives on the weakest of the servers.

    Raises:
        ConfigurationError: a server is too old, forgets what it acknowledged, and that was not allowed, or cannot wait
            for what it should.
        StoreUnavailable: a server cannot be asked.
    """
    levels: list[Durability] = []
    replicas = 0
    for address in await link.primaries():
        info = _pairs_of_info(await link.ask_server(address, ("INFO",)))
        _require_version(info)
        levels.append(await _level(link, address, info, allow_volatile=allow_volatile))
        replicas = max(replicas, int(info.get("connected_slaves", "0")))
        if wait.until == "synced":
            await _require_syncing(link, address, levels[-1])
    level = _LEVELS[min(_LEVELS.index(each) for each in levels)]
    return _over_failovers(level, replicas, wait.replicas)


def _over_failovers(level: Durability, replicas: int, waited: int) -> Durability:
    """Return the level that also counts what a failover loses: what the replica that is promoted did not have."""
    if not waited or level == "volatile":
        return level
    if replicas <= waited:
        return "failover-safe"
    _log.warning(
        "a Redis server has %d replicas, and %d are waited for: the one that is promoted may not have what was "
        "acknowledged; wait_replicas=%d, or fewer replicas, would make this failover-safe",
        *(replicas, waited, replicas),
    )
    return level


async def _level(link: RedisLink, address: Address, info: dict[str, str], *, allow_volatile: bool) -> Durability:
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
    if "aof_enabled" not in info:
        return "does not tell by INFO whether it keeps a log"
    if info["aof_enabled"] != "1":
        return "keeps no log: what it acknowledges is lost when it dies"
    if "aof_pending_bio_fsync" not in info:
        return "does not tell by INFO whether its log is behind"
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
