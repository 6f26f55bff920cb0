"""Feed: how revocations reach other processes.

A feed has a position, a snapshot and a heartbeat: whoever follows it knows how far it has
heard, that nothing was missed in between, and how long ago it last heard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from coatcheck.core.revocation import Revoked


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a follower is handed: the revocations between two positions; without any it is a heartbeat.

    Args:
        after: the position that this batch continues from; one that is not the follower's own is a gap.
        position: the position that the follower has reached with it.
        revoked: the revocations in between, oldest first.
    """

    after: int
    position: int
    revoked: tuple[Revoked, ...] = ()


class Feed(Protocol):
    """The protocol of a feed. Every method may raise StoreUnavailable, and nothing else of its driver's."""

    async def open(self) -> None:
        """Connect, and make the schema if it is not there; calling it again does nothing."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; followers end."""
        ...

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower, durably where the feed reaches other processes."""
        ...

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use, from position 0 to the present one."""
        ...

    def follow(self, position: int) -> AsyncIterator[Batch]:
        """Yield what comes after `position`, and a heartbeat at least once a second."""
        ...
