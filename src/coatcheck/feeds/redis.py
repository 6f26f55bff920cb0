"""RedisFeed: revocations through Redis or Valkey: one server, behind Sentinels, or a Cluster.

    <prefix>:{feed}s    a stream; see `coatcheck.feeds.entries` for what its ids are: <number>-<tag>

It is one stream, so one of a Cluster's servers carries it. Revocations are rare and small, a server takes tens of
thousands a second, and every follower has to hear all of them anyway: several streams would cost it several connections
and a position for each, and would give it nothing. It moves with its slot, and its followers with it.

A follower has a connection of its own, on which it waits for news. What it hears counts as heard only from a server
that is no replica. What was published is durable as `RedisStore` explains, and waits for replicas where those are asked
for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from coatcheck.clock import monotonic_clock
from coatcheck.core.revocation import Revoked
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.feeds import entries
from coatcheck.feeds.entries import PAGE, Entry, NewEntry
from coatcheck.stores import redis_scripts as scripts
from coatcheck.stores.redis_place import RedisPlace
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_url import Target

if TYPE_CHECKING:
    from coatcheck.stores.redis_wire import Reply

_HEARTBEAT: Final = 0.3  # seconds


class RedisFeed(RedisPlace):
    """A feed on Redis (6.2 or later) or Valkey (8 or later).

    Its arguments, and `from_url`, `durability` and `open`, are those of `RedisPlace`; a store may have the same prefix.
    """

    def __init__(
        self, target: Target, *, pool_size: int = 4, timeout: timedelta = timedelta(seconds=1), **options: Any
    ) -> None:
        super().__init__(target, pool_size=pool_size, timeout=timeout, **options)
        self._timeout = timeout.total_seconds()
        self._key = b"%b:{feed}s" % self._prefix
        self._closings = 0

    async def close(self) -> None:
        """Close the connections of this event loop; followers end with their next heartbeat; see `Feed.close`."""
        self._closings += 1
        await super().close()

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower, durably; see `Feed.publish`."""
        if revoked:
            await self._do(self._publish(entries.write(revoked, now)), limited=False)

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use; see `Feed.snapshot`."""
        return await self._do(entries.snapshot(now, self._page, monotonic_clock()), limited=False)

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and a heartbeat three times a second; see `Feed.follow`."""
        from coatcheck.feeds.redis_line import Line

        await self.open()
        closings, line = self._closings, Line(self._here().link, self._key, self._timeout)

        async def page(start: int) -> list[Entry]:
            return _entries(await line.ask(self._read(start)))

        try:
            while self._closings == closings:
                batch = await entries.batch_after(position, page, monotonic_clock())
                yield batch
                position = batch.position
                wait = ("XREAD", "COUNT", 1, "BLOCK", int(_HEARTBEAT * 1000), "STREAMS", self._key, _id(position))
                await line.ask(wait, patience=_HEARTBEAT)
        finally:
            await line.close()

    async def _publish(self, new: Sequence[NewEntry]) -> None:
        for entry in new:
            command = scripts.call(scripts.PUBLISH, (self._key,), entry.tag, entry.life, entry.body)
            await self._ask(self._key, command, self._wait)

    async def _page(self, start: int) -> list[Entry]:
        return _entries(await self._ask(self._key, self._read(start)))

    def _read(self, start: int) -> Command:
        return ("XRANGE", self._key, _id(start) if start else "-", "+", "COUNT", PAGE)


def _id(position: int) -> str:
    number, tag = entries.split(position)
    return f"{number}-{tag}"


def _entries(reply: Reply) -> list[Entry]:
    try:
        return [_entry(*each) for each in reply]
    except (TypeError, ValueError):
        raise StoreUnavailable("store damaged: this is no stream of revocations") from None


def _entry(id: bytes, fields: Sequence[bytes]) -> Entry:
    number, _, tag = id.partition(b"-")
    _, _, _, body = fields
    return Entry(int(number), int(tag), body)
