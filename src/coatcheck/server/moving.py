"""Moving a server, or an application's sessions, from one store to another.

    1   the source gets a name, and the target belongs to this run alone (`coatcheck.stores.moving_state`)
    2   accounts and the other documents, and the keys, if there is a server: nobody is signed out (P8)
    3   sessions, and then once more whether they are the same (`coatcheck.stores.moving`)
    4   revocations that tokens could still need, where both ends have a feed, and these tokens' places in status lists
    5   the target is finished: from now on it may be used, and takes no second move

A run that is killed before 5 is done again from the beginning, and finds what is there already. A run that is to copy
ahead, while the source is in use, ends after copying the sessions in 3.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coatcheck.clock import Clock, system_clock
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, Conflict
from coatcheck.server import status_lists
from coatcheck.server.ends import End, opened, there
from coatcheck.server.sealed_keys import KEYS
from coatcheck.server.settings import prepare
from coatcheck.store import Store
from coatcheck.stores import moving_documents, moving_state
from coatcheck.stores.moving import Moving, Step, Tally, portions

_BESIDES: Final = frozenset({*moving_state.OURS, KEYS})
_AT_ONCE: Final = 500
_STILL_USED: Final = (
    "the source has changed while it was copied: somebody uses it. The target is not ready. Stop all servers of the "
    "source, and run this again"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was moved.

    Args:
        sessions: what became of each.
        documents: how many a server had; None if there was no server, or if they stay where they are.
        revocations: how many, or None where an end has no feed.
        data_dir: where accounts and keys stay, if they do.
    """

    sessions: Tally
    documents: int | None
    revocations: int | None
    data_dir: Path | None


class Move:
    """A move that this run has begun, or goes on with; both ends are open.

    Args:
        source: from where.
        target: to where.
        hold: the right to go on with it.
        server: whether the source has accounts or keys.
        tell: is told how far it has come.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self,
        source: End,
        target: End,
        hold: moving_state.Hold,
        *,
        server: bool,
        tell: Callable[[Step], None],
        clock: Clock,
    ) -> None:
        self._source, self._target, self._hold = source, target, hold
        self._server, self._clock = server, clock
        self._moving = Moving(source.store, target.store, confirm=hold.confirm, tell=tell, clock=clock)

    async def ahead(self) -> Report:
        """Copy what is there, and finish nothing: the source may still be in use.

        Raises:
            Conflict: another run has taken over.
            StoreUnavailable, ConfigurationError
        """
        documents = await self._move_server()
        await self._fill()
        return self._report(documents, None)

    async def whole(self) -> Report:
        """Move everything, and finish.

        Raises:
            Conflict: another run has taken over, or the source is in use.
            StoreUnavailable, ConfigurationError
        """
        documents = await self._move_server()
        await self._fill()
        late = await self._moving.tidy()
        # What is gone may have been signed out after an earlier run; what was changed after this one has begun was not.
        if late.changed or (late.removed and not self._hold.resumed):
            raise Conflict(_STILL_USED)
        if not await self._server_is_same():
            raise Conflict(_STILL_USED)
        revocations = None if self._stays else await self._move_revocations()
        await self._hold.finish(self._clock())
        return self._report(documents, revocations)

    @property
    def _stays(self) -> bool:
        return self._server and _share_data(self._source, self._target)

    def _report(self, documents: int | None, revocations: int | None) -> Report:
        kept = self._source.settings.data_dir if self._stays else None
        return Report(sessions=self._moving.tally, documents=documents, revocations=revocations, data_dir=kept)

    async def _move_server(self) -> int | None:
        if not self._server or self._stays:
            return None
        source, target = self._source, self._target
        ring = await source.keys().stored()
        if ring is not None:
            await target.keys().replace(ring)
        confirm = self._hold.confirm
        return await moving_documents.copy(source.documents, target.documents, besides=_BESIDES, confirm=confirm)

    async def _server_is_same(self) -> bool:
        """Say whether nobody was disabled, or given another password or key, in the source meanwhile."""
        if not self._server or self._stays:
            return True
        source, target = self._source, self._target
        ring = await source.keys().stored()
        if ring is not None and ring != await target.keys().stored():
            return False
        return await moving_documents.are_same(source.documents, target.documents, besides=_BESIDES)

    async def _fill(self) -> None:
        if self._hold.resumed:
            await self._moving.mend()
        await self._moving.fill()

    async def _move_revocations(self) -> int | None:
        old, new = self._source.feed(server=self._server), self._target.feed(server=self._server)
        if old is None or new is None:
            return None
        now = self._clock()
        async with opened(old, new):
            revoked = (await old.snapshot(now)).revoked
            for some in portions(revoked, _AT_ONCE):
                await new.publish(tuple(some), now)
        await self._move_places([each.session_id for each in revoked if each.session_id is not None])
        return len(revoked)

    async def _move_places(self, ended: Sequence[str]) -> None:
        source, target = self._source.documents, self._target.documents
        if not self._server or not await status_lists.any_given(source):
            return
        # Without its place, a token from before would be good in its list whatever ends, or has just ended.
        for some in portions(ended, _AT_ONCE):
            await self._hold.confirm()
            await status_lists.copy_places(source, target, some, self._clock())
        async for ids in self._moving.ids("copying places in status lists"):
            await status_lists.copy_places(source, target, ids, self._clock())


@asynccontextmanager
async def begun(
    source: End,
    target: End,
    *,
    tell: Callable[[Step], None],
    silence: float = moving_state.SILENCE,
    clock: Clock = system_clock,
) -> AsyncGenerator[Move, None]:
    """Open both ends, and begin a move or go on with one. Locks are for the caller.

    Args:
        source, target, tell, clock: see `Move`.
        silence: seconds after which another run is dead; 0 where a lock says so.

    Raises:
        ConfigurationError: there is nothing to move, or both ends are one place.
        Conflict: the target is in use or was moved already, or another run is at it.
        StoreUnavailable
    """
    if source.path is not None and not there(source.path):
        raise ConfigurationError(f"{source.flag}: there is no {source.path}")
    async with _opened(source, data=source.has_data):
        server = source.has_data and await _any_server(source)
        if not server and not await _any_session(source):
            raise ConfigurationError(f"{source.flag}: there is nothing to move")
        moves = server and not _share_data(source, target)
        if moves and not target.shared:
            prepare(target.settings.data_dir)
        async with _opened(target, data=moves):
            hold = await _take(source, target, server=moves or target.shared, silence=silence)
            yield Move(source, target, hold, server=server, tell=tell, clock=clock)


async def _take(source: End, target: End, *, server: bool, silence: float) -> moving_state.Hold:
    name = await moving_state.name_of(source.notes)
    if await moving_state.name_of(target.notes) == name:
        raise ConfigurationError(f"{source.flag} and {target.flag} are the same place")

    async def require_unused() -> None:
        if await _any_session(target):
            raise Conflict(f"{target.flag} is in use: there are sessions in it")
        if server and await _any_server(target):
            raise Conflict(f"{target.flag} is in use: there are accounts or keys of a server in it")

    return await moving_state.take(target.notes, name, silence=silence, require_unused=require_unused)


def _share_data(source: End, target: End) -> bool:
    return not source.shared and not target.shared


async def _any_session(end: End) -> bool:
    async for page in end.store.walk():
        if page.records or page.damaged:
            return True
    return False


async def _any_server(end: End) -> bool:
    if not end.has_data:
        return False
    if await moving_documents.any_in(end.documents, besides=_BESIDES):
        return True
    if end.shared:
        [keys] = await end.documents.get(KEYS)
        return keys is not None
    return there(end.settings.key_file)


@asynccontextmanager
async def _opened(end: End, *, data: bool) -> AsyncGenerator[None, None]:
    """Open an end, the data of its server too, if there are any."""
    parts: list[Store | Documents] = [end.store, end.notes]
    if data and end.documents is not end.notes:
        parts.append(end.documents)
    async with opened(*parts):
        yield
