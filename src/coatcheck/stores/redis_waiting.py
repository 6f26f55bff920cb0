"""Wait: which replicas must have a write before it is acknowledged; more than its own server's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from coatcheck.stores.redis_scripts import Command

Until = Literal["received", "synced"]

# How a server is asked, and what its answer is about.
_COMMANDS: Final[dict[Until, Command]] = {"received": ("WAIT",), "synced": ("WAITAOF", 1)}
_PENDING: Final[dict[Until, str]] = {
    "received": "done here, but not yet on {} replicas",
    "synced": "done here, but not yet synced on {} replicas",
}
UNTIL: Final = tuple(_COMMANDS)
_TRY: Final = 10  # ms


class Wait(NamedTuple):
    """What an acknowledgement waits for.

    Args:
        replicas: how many must have the write.
        until: "received": they have it in memory (WAIT); "synced": they have it on disk, and so has the primary
            (WAITAOF; Redis 7.2 or later).
    """

    replicas: int
    until: Until = "received"

    def round_trips(self, writes: Sequence[Command], patience: int) -> list[Sequence[Command]]:
        """Return what is sent to one server, over one connection: writes, and what waits for the last of them.

        A replica that is asked what it has synced in the same breath as it is told what to write says what it had
        synced before, and says so again once a second only. So it is asked in a second round trip, and if it had more
        to do, again.

        Args:
            writes: the last of them must write something.
            patience: how many milliseconds are waited for.
        """
        wait = (*_COMMANDS[self.until], self.replicas)
        if self.until == "received":
            return [[*writes, (*wait, patience)]]
        return [writes, [(*wait, _TRY), (*wait, patience)]]

    def reached(self, reply: Any) -> bool:
        """Say whether the last answer is that they have it: it is the number of replicas, or ours and theirs."""
        if isinstance(reply, list):
            here, there = cast("list[int]", reply)
            return here >= 1 and there >= self.replicas
        return isinstance(reply, int) and reply >= self.replicas

    @property
    def pending(self) -> str:
        """What is said when they do not have it in time."""
        return f"pending: {_PENDING[self.until].format(self.replicas)}; try again"
