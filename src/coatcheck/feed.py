"""Feed: how revocations reach other processes.

A feed has a position, a snapshot and a heartbeat: whoever follows it knows how far it has
heard, that nothing was missed in between, and how long ago it last heard.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from coatcheck.core.revocation import Revoked


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a follower is handed: the revocations between two positions; without any it is a heartbeat.

    Args:
        after: the position that this batch continues from; if it is not the follower's own, that is a gap, and a
            snapshot is needed before anything else of it counts.
        position: the position that the follower has reached with it.
        revoked: the revocations in between, oldest first.
        heard_at: when, by `monotonic_clock`, this was all that there was; the moment it is handed over, if left out.
    """

    after: int
    position: int
    revoked: tuple[Revoked, ...] = ()
    heard_at: int | None = None


class Feed(Protocol):
    """The protocol of a feed. Every method may raise StoreUnavailable, and nothing else of its driver's.

    `coatcheck.testing.FeedContract` is this text as tests.
    """

    async def open(self) -> None:
        """Connect, and make the schema if it is not there; calling it again does nothing."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; followers end."""
        ...

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower, durably where the feed reaches other processes.

        Args:
            revoked: they are kept until the last of their `until` at least.
            now: milliseconds since the epoch, by the clock that their times are of.
        """
        ...

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use, from position 0 to the present one."""
        ...

    def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, in the order of the positions, and a heartbeat at least once a second.

        Whoever stops before its end closes it (`contextlib.aclosing`): a connection may be behind it.

        Args:
            position: of the last batch that was heard, on whatever connection.
        """
        ...
