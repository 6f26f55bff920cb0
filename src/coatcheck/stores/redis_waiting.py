"""Wait: what must be so before a write is acknowledged; more than its server's word that it is done.

A server answers when it has done something in memory. By then it has also written it into its log, unless
`appendfsync` is `everysec` and the log is being synced: then it puts that off, for two seconds if need be, and what it
has acknowledged dies with it. So whoever writes asks in the same breath whether the log is being synced. If it is not,
the server writes its log before it sends the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from coatcheck.store import Durability
from coatcheck.stores.redis_scripts import BEHIND, MARK, Command

Until = Literal["received", "synced"]
Log = Literal["written", "unheeded"]

# How a server is asked, and what its answer is about.
_COMMANDS: Final[dict[Until, Command]] = {"received": ("WAIT",), "synced": ("WAITAOF", 1)}
_PENDING: Final[dict[Until, str]] = {
    "received": "done here, but not yet on {} replicas",
    "synced": "done here, but not yet synced on {} replicas",
}
_LOG: Final[dict[Log, tuple[Command, ...]]] = {"written": (("EVAL", BEHIND, 0),), "unheeded": ()}
UNTIL: Final = tuple(_COMMANDS)
UNWRITTEN: Final = "pending: done here, but not yet in the server's log; try again"
_TRY: Final = 10  # ms


class Said(NamedTuple):
    """What a server has said besides the answers to the writes."""

    marked: Any
    """What came of the mark: an error if its slot is elsewhere."""
    waited: Any
    """How many replicas have it."""
    behind: Any
    """Empty if its log has it; which process it is if not yet; an error if that cannot be known."""


class Wait(NamedTuple):
    """What an acknowledgement waits for.

    Args:
        replicas: how many must have the write.
        until: "received": they have it in memory (WAIT); "synced": they have it on disk, and so has the primary
            (WAITAOF; Redis 7.2 or later).
        log: "written": the primary has it in its log; "unheeded": of a server that is allowed to keep none.
    """

    replicas: int = 0
    until: Until = "received"
    log: Log = "written"

    def round_trips(self, writes: Sequence[Command], key: bytes, patience: int) -> list[Sequence[Command]]:
        """Return what is sent to one server, over one connection: writes, and what waits for the last of them.

        A server waits for what the same connection wrote last, and a call that found nothing to do wrote nothing,
        though an earlier one may have, over another connection: a mark lies behind all of it.

        A replica that is asked what it has synced in the same breath as it is told what to write says what it had
        synced before, and says so again once a second only. So it is asked in a second round trip, and if it had more
        to do, again.

        Args:
            writes: what is to be done.
            key: says in which slot the mark is written.
            patience: how many milliseconds replicas are waited for.
        """
        log = _LOG[self.log]
        if not self.replicas:
            return [[*writes, *log]]
        mark: Command = ("EVAL", MARK, 1, _mark(key))
        wait = (*_COMMANDS[self.until], self.replicas)
        if self.until == "received":
            return [[*writes, mark, (*wait, patience), *log]]
        return [[*writes, mark], [(*wait, _TRY), (*wait, patience), *log]]

    def said(self, replies: Sequence[Any]) -> Said:
        """Return what the replies mean that stand behind those to the writes."""
        *others, behind = replies if self.log == "written" else (*replies, b"")
        return Said(others[0], others[-1], behind) if others else Said(None, 0, behind)

    def pending(self, waited: Any) -> str:
        """Return what is missing on the replicas, by the number of those that have it, or of ours and theirs."""
        if isinstance(waited, list):
            here, there = cast("list[int]", waited)
            reached = here >= 1 and there >= self.replicas
        else:
            reached = isinstance(waited, int) and waited >= self.replicas
        return "" if reached else f"pending: {_PENDING[self.until].format(self.replicas)}; try again"


def wait_at(level: Durability, asked: Wait) -> Wait | None:
    """Return what is waited for where this is kept: a log that is not there, or not kept, is not waited for."""
    if level != "volatile":
        return asked
    return asked._replace(log="unheeded") if asked.replicas else None


def _mark(key: bytes) -> bytes:
    """Return a key of our own in the same slot."""
    return key + b"w" if b"{" in key else b"%b:w{%b}" % (key.partition(b":")[0], key)
