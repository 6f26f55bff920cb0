"""PostgresFeed: revocations through PostgreSQL.

    coatcheck_revocation    the entries; see `coatcheck.feeds.entries` for what they are

*In the order of their commits.* With numbers from a sequence, a lower one may be committed later than a higher one, and
a follower who has seen the higher one would never look for it. So whoever publishes takes an advisory lock first, and
then the number after the highest one, by a later statement of a VOLATILE PL/pgSQL function: that statement sees all
that was committed before it began, and a transaction's locks are let go of after its commit can be seen. So the entry
before was committed, and can be seen by everybody, before the number of the next one was even chosen. What is gathered
while a transaction is under way goes into the next one, for they exclude each other until they are on the disk.

*Waking.* Publishing notifies a channel that is called like the schema, and followers listen to it, each on a connection
of its own. They look five times a second in any case: where a notice does not come, as through some poolers, it is a
fifth of a second later, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from coatcheck.clock import monotonic_clock
from coatcheck.core.revocation import Revoked
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.feeds import entries
from coatcheck.feeds.convoy import Convoy
from coatcheck.feeds.entries import PAGE, Entry, NewEntry
from coatcheck.store import Durability
from coatcheck.stores.postgres_place import LoopSide, PostgresPlace
from coatcheck.stores.postgres_tables import FEED

if TYPE_CHECKING:
    from coatcheck.stores.postgres_pool import Options

_HEARTBEAT: Final = 0.2  # seconds

_PUBLISH: Final = "SELECT coatcheck_publish($1::bigint[], $2::int[], $3::bytea[])"
_PAGE: Final = "SELECT number, tag, body FROM coatcheck_revocation WHERE number >= $1 ORDER BY number LIMIT $2"


class PostgresFeed(PostgresPlace):
    """A feed in a schema of a PostgreSQL database of version 14 or newer, encoded in UTF8.

    Its durability is as `PostgresStore` explains.

    Args:
        url: as for `PostgresStore`.
        schema: the schema that holds our tables, a store's as well; made if it is not there.
        connections: at most so many for each process, and for each event loop in it, besides one for each follower.
        timeout: how long a call may take, waiting for a connection included.

    Raises:
        ConfigurationError: one of these cannot be, or psycopg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "coatcheck",
        connections: int = 2,
        timeout: timedelta = timedelta(seconds=1),
    ) -> None:
        super().__init__(
            url, component="feed", migrations=FEED, schema=schema, connections=connections, timeout=timeout
        )
        self._closings = 0

    async def close(self) -> None:
        """Close the connections; followers end with their next heartbeat; see `Feed.close`."""
        self._closings += 1
        await super().close()

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower, durably; see `Feed.publish`."""
        if not revoked:
            return
        new, side = entries.write(revoked, now), await self._side()
        if not isinstance(side, _Loop):
            await self._ask(_PUBLISH, _columns(new))
            return
        try:
            async with asyncio.timeout(self._options.timeout):
                await side.convoy.send(new)
        except TimeoutError:
            raise StoreUnavailable("PostgreSQL did not answer in time") from None

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use; see `Feed.snapshot`."""
        return await entries.snapshot(now, self._page, monotonic_clock())

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and a heartbeat five times a second; see `Feed.follow`."""
        from coatcheck.feeds.postgres_line import Line

        await self.open()
        closings, line = self._closings, Line(self._options)

        async def page(start: int) -> list[Entry]:
            return _entries(await line.ask(_PAGE, (entries.split(start)[0], PAGE)))

        try:
            await line.open()
            while self._closings == closings:
                batch = await entries.batch_after(position, page, monotonic_clock())
                yield batch
                position = batch.position
                await line.wait(_HEARTBEAT)
        finally:
            await line.close()

    async def _page(self, start: int) -> list[Entry]:
        return _entries((await self._ask(_PAGE, (entries.split(start)[0], PAGE), again=True)).rows)

    def _new_side(self) -> LoopSide:
        return _Loop(self._options, self._tell, self._prepared)


class _Loop(LoopSide):
    """The connections of one event loop, and what is to be published in it."""

    def __init__(
        self, options: Options, told: Callable[[Durability], None], prepared: Callable[[], Future[None]]
    ) -> None:
        super().__init__(options, told, prepared)
        self.convoy: Convoy[NewEntry] = Convoy(self._publish)

    async def close(self) -> None:
        """Finish what is to be published, and close the connections."""
        await self.convoy.settled()
        await super().close()

    async def _publish(self, new: Sequence[NewEntry]) -> None:
        await self.pool.answer(_PUBLISH, _columns(new))


def _columns(new: Sequence[NewEntry]) -> tuple[list[int], list[int], list[bytes]]:
    return [entry.life for entry in new], [entry.tag for entry in new], [entry.body for entry in new]


def _entries(rows: Sequence[tuple[Any, ...]]) -> list[Entry]:
    return [Entry(*row) for row in rows]
