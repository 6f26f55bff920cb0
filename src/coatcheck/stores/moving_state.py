"""What a store that takes part in a move keeps about it, in documents: who fills it, from where, and if it is done.

    place        a random name of this place, for the targets of its moves
    migration    how far the move to this place has come; who may go on with it

A place that is being filled serves nobody: what was signed out at the source meanwhile may still be in it. One that
was filled takes no second move: its sessions are in use. While it is being filled, only one run goes on with it. Each
run writes its own name into the document, and counts on in it every second; whoever finds the document as it was some
seconds before takes it over, with a compare-and-swap, and whoever finds another's name in it stops. Clocks of several
machines are not compared (P7). A run that was paused for that long learns it before its next portion of records.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from coatcheck.clock import monotonic_clock
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, Conflict, StoreUnavailable

PLACE: Final = "place"
MIGRATION: Final = "migration"
OURS: Final = frozenset({PLACE, MIGRATION})
SILENCE: Final = 35.0
"""Seconds after which a run that has not counted on is dead, and so is all that it has asked for: a beat, and the half
minute that a call of a move may take (`coatcheck.server.ends`)."""

_BEAT: Final = 1000  # ms
_UNFINISHED: Final = "a move into this store was begun and not finished: run the same `coatcheck migrate` again"


class Migration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document of a place that a move leads to.

    Args:
        source: the name of the place that it comes from.
        run: which run goes on with it.
        count: moves on while that run lives.
        finished_at: milliseconds since the epoch; 0 while it is not finished.
    """

    source: str
    run: str
    count: int = 0
    finished_at: int = 0


class Hold:
    """The right to fill a place, which one run has at a time. `resumed`: an earlier run has begun."""

    def __init__(self, documents: Documents, mine: Migration, stored: bytes, *, resumed: bool) -> None:
        self._documents, self._mine, self._stored = documents, mine, stored
        self._counted_at = monotonic_clock()
        self._counting = asyncio.Lock()
        self.resumed = resumed

    async def confirm(self) -> None:
        """Return if this run may go on.

        Raises:
            Conflict: another one has taken over.
            StoreUnavailable
        """
        if monotonic_clock() - self._counted_at < _BEAT:
            return
        async with self._counting:  # several writes of one run ask at once
            if monotonic_clock() - self._counted_at >= _BEAT:
                await self._write(msgspec.structs.replace(self._mine, count=self._mine.count + 1))

    async def finish(self, now: int) -> None:
        """Write down that the move is done, durably.

        Raises:
            Conflict: another run has taken over.
            StoreUnavailable
        """
        await self._write(msgspec.structs.replace(self._mine, finished_at=now))

    async def _write(self, following: Migration) -> None:
        stored = msgspec.json.encode(following)
        if not await self._documents.commit({MIGRATION: self._stored}, {MIGRATION: stored}):
            raise Conflict("another run has taken over this move")
        self._mine, self._stored, self._counted_at = following, stored, monotonic_clock()


async def take(
    documents: Documents,
    source: str,
    *,
    silence: float,
    require_unused: Callable[[], Awaitable[None]],
) -> Hold:
    """Begin a move to a place, or go on with one.

    Args:
        documents: those of the place.
        source: the name of where the move comes from; see `name_of`.
        silence: seconds after which another run that has not counted on is dead; 0 where that is known.
        require_unused: raises if the place is in use; asked before the first run begins.

    Raises:
        Conflict: it is moved already, or another run is at it.
        StoreUnavailable
    """
    mine = Migration(source=source, run=secrets.token_urlsafe(16))
    stored = msgspec.json.encode(mine)
    [found] = await documents.get(MIGRATION)
    if found is None:
        await require_unused()
    else:
        _require_same(_read(found), source)
        await asyncio.sleep(silence)
    if not await documents.commit({MIGRATION: found}, {MIGRATION: stored}):
        raise Conflict("another run is moving to this store at the same time: one is enough")
    return Hold(documents, mine, stored, resumed=found is not None)


async def name_of(documents: Documents) -> str:
    """Return the name of a place, given to it when it is first asked for.

    Raises:
        StoreUnavailable
    """
    while True:
        [found] = await documents.get(PLACE)
        if found is not None:
            return found.decode("ascii", "replace")
        await documents.commit({PLACE: None}, {PLACE: secrets.token_urlsafe(16).encode()})


async def require_finished(documents: Documents) -> None:
    """Return if no move into this place is under way: only then it may serve anybody.

    Raises:
        ConfigurationError: one is, or was broken off.
        StoreUnavailable
    """
    [found] = await documents.get(MIGRATION)
    if found is not None and not _read(found).finished_at:
        raise ConfigurationError(_UNFINISHED)


def _require_same(migration: Migration, source: str) -> None:
    if migration.finished_at:
        raise Conflict("already moved: this store was filled by `coatcheck migrate` and may be in use since")
    if migration.source != source:
        raise Conflict("a move to this store from another one was begun: finish that one, or empty this store")


def _read(stored: bytes) -> Migration:
    try:
        return msgspec.json.decode(stored, type=Migration)
    except msgspec.MsgspecError:
        raise StoreUnavailable("store damaged: the state of a move cannot be read") from None
