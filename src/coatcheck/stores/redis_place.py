"""RedisPlace: what everything of ours on Redis has in common: it is opened, inspected, asked and closed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from coatcheck.errors import ConfigurationError
from coatcheck.store import Durability
from coatcheck.stores.redis_scripts import Call, Command
from coatcheck.stores.redis_url import Target, parse, read_options
from coatcheck.stores.redis_waiting import UNTIL, Until, Wait, wait_at

if TYPE_CHECKING:
    from coatcheck.stores.redis_wire import Reply

T = TypeVar("T")

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class RedisPlace:
    """A place on Redis (6.2 or later) or Valkey (8 or later), under a prefix.

    Args:
        target: where the servers are; `from_url` reads it from a URL.
        allow_volatile: put up with servers that lose what they have acknowledged, so that ended sessions come back.
        wait_replicas: how many replicas must have a write before it is acknowledged; but not what may be lost. A
            failover is survived if there are no more replicas than that.
        wait_until: when a replica has it: "received", in memory (WAIT); or "synced", on disk, and the primary too
            (WAITAOF; Redis 7.2 or later). For the latter let `appendfsync` be `always` on every server, which is
            checked on the primary: one that syncs once a second can say that it has before it has.
        prefix: leads every key.
        pool_size: how many connections a process opens to each server; whoever comes when all are in use waits.
        timeout: how long a call may take, waiting for a connection included.
        ca_file: the certificates that are trusted over TLS; those of the system by default.

    Raises:
        ConfigurationError: one of them cannot be, or redis-py is not installed.
    """

    def __init__(
        self,
        target: Target,
        *,
        allow_volatile: bool = False,
        wait_replicas: int = 0,
        wait_until: Until = "received",
        prefix: str = "coatcheck",
        pool_size: int = 16,
        timeout: timedelta = timedelta(seconds=1),
        ca_file: str | None = None,
    ) -> None:
        try:
            from coatcheck.stores import redis_connections, redis_durability
        except ImportError:
            raise ConfigurationError('a Redis store needs redis-py: pip install "coatcheck[redis]"') from None

        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError("prefix is 1 to 32 letters, digits, dots, dashes and underscores")
        if pool_size < 1 or wait_replicas < 0 or not timedelta(0) < timeout <= timedelta(minutes=1):
            raise ConfigurationError("pool_size is 1 or more, wait_replicas 0 or more, timeout up to a minute")
        if wait_until not in UNTIL or (wait_until != "received" and not wait_replicas):
            raise ConfigurationError(f"wait_until is one of {', '.join(UNTIL)}, of 1 or more wait_replicas")
        arguments = {"ssl_ca_certs": ca_file} if ca_file else {}
        self._connections = redis_connections.Connections(target, arguments, pool_size, timeout.total_seconds())
        self._here = self._connections.here
        self._inspect = redis_durability.inspect
        self._allow_volatile, self._prefix = allow_volatile, prefix.encode()
        self._asked = Wait(wait_replicas, wait_until)
        self._wait: Wait | None = self._asked  # what a durable write waits for: `open` knows
        self._durability: Durability | None = None
        self.made_with: dict[str, Any] = {  # for another place beside this one
            "target": target, "allow_volatile": allow_volatile, "wait_replicas": wait_replicas,
            "wait_until": wait_until, "prefix": prefix, "timeout": timeout, "ca_file": ca_file,
        }  # fmt: skip

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the place that a URL names; it is not opened yet.

        Args:
            url: see `coatcheck.stores.redis_url`. Behind a question mark may stand options, `timeout` in seconds.
            options: arguments of the class; they go before those of the URL.

        Raises:
            ConfigurationError: it names none. No message repeats more of it than the scheme.
        """
        target, written = parse(url)
        return cls(target, **{**read_options(written), **options})

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives: what the servers said when it was opened, "volatile" before."""
        return self._durability or "volatile"

    async def open(self) -> None:
        """Ask the servers how safe they are; calling it again does nothing.

        Raises:
            ConfigurationError: they are too old, keep no log, which was not allowed, or cannot wait as they should.
        """
        if self._durability is None:
            await self._here().drive.finish(self._open())

    async def close(self) -> None:
        """Close the connections of this event loop, or those that are used without one."""
        await self._connections.close()

    async def _open(self) -> None:
        here = self._here()
        async with here.opening:
            if self._durability is None:
                await here.link.teach()
                allowed, wait = self._allow_volatile, self._asked
                level = await self._inspect(here.link, allow_volatile=allowed, wait=wait)
                self._wait = wait_at(level, wait)
                self._durability = level

    async def _do(self, steps: Coroutine[Any, Any, T], *, limited: bool = True) -> T:
        """Finish the steps of one call, whoever stops waiting for them."""
        try:
            if self._durability is None:
                await self.open()
        except BaseException:
            steps.close()
            raise
        return await self._here().drive.finish(steps, limited=limited)

    async def _in_time(self, step: Awaitable[T]) -> T:
        return await self._here().drive.in_time(step)

    def _ask(self, key: bytes, command: Command, wait: Wait | None = None) -> Awaitable[Reply]:
        return self._here().ask(Call(key, command), wait)
