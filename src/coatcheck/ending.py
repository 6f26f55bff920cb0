"""Ending: how sessions end: everybody is told, then they are removed, then everybody is told what only that found.

    announce   this process refuses from now on; when that returns the feed has it, and with it every other process
    remove     the store removes the records
    announce   what only the removal could find out, such as a session that began just before it

Whoever is killed in between leaves sessions that are stored and refused: who tries again finds them, and so does the
next one who comes with their cookie or their refresh token. The other way round they would be gone from the store,
where no second try finds them, and their access tokens would be good wherever nobody was told.
"""

from __future__ import annotations

import builtins

from coatcheck.announcer import Announcer
from coatcheck.core.credentials import valid_session_id
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import DAMAGED, Store

# How long an id that was given up still leads the requests that were in flight to where the session is now.
STUMP_LIFETIME = 10 * 60 * 1000


async def stored(store: Store, session_id: str) -> Record | None:
    """Return what is stored under an id, or None.

    Raises:
        StoreUnavailable: it is another's (P4), or the store cannot answer.
    """
    return own(await store.load(session_id), session_id)


def own(record: Record | None, session_id: str) -> Record | None:
    """Return what a store has answered with, if it is what was asked for.

    Raises:
        StoreUnavailable: it is another's (P4).
    """
    if record is not None and record.id != session_id:
        raise StoreUnavailable("store damaged: a record answers to another's id")
    return record


class Ending:
    """Ends sessions. What has returned is done; what has raised StoreUnavailable is pending, and is to be tried again.

    A session that rotates while it is being ended is followed. One thing is not covered: where a rotation, the
    removal of the id that it gave up, and the death of this process meet within a round trip, a second try by that id
    finds nothing; by the new one, or by the subject, it does.
    """

    def __init__(self, store: Store, announcer: Announcer) -> None:
        self._store = store
        self._announcer = announcer

    async def one(self, session_id: str, reason: str) -> bool:
        """End a session, and say whether there was one."""
        following = session_id if valid_session_id(session_id) else None
        found = False
        while following:
            await self._announcer.publish([self._announcer.refuse_session(following)])
            record = await self._stored(following)
            successor = record.successor if record is not None else None
            if successor is None:
                # Whoever rotated it may have been killed, or cut off from the feed, before it told of the ids before.
                leads = await self._leading_to(record)
                await self._announcer.publish([self._announcer.refuse_session(id) for id in leads])
                removed = await self._store.delete(following)
                successor = removed.successor if removed is not None else None
                if removed is not None and successor is None:
                    found = True
                    self._announcer.tell("revoked", removed, reason)
            following = successor
        return found

    async def every(self, subject: str, before: int, keep: str | None, reason: str) -> int:
        """End a subject's sessions, or all but `keep`, and return how many; see `Store.revoke_subject`."""
        revoked = [] if keep is not None else [self._announcer.refuse_subject(subject, before)]
        listed = await self._listed(subject, keep)
        await self._announcer.publish(revoked + [self._announcer.refuse_session(id) for id in listed])
        ended = await self._store.revoke_subject(subject, before, keep)
        await self._announcer.publish([self._announcer.refuse_session(id) for id in ended if id not in listed])
        for session_id in ended:
            self._announcer.report("revoked", session_id, subject, reason)
        return len(ended)

    async def replaced(self, record: Record, now: int) -> None:
        """End a session whose browser has been given another, and leave a stump that leads nowhere."""
        following: Record | None = record
        while following is not None and following.successor != "":
            if following.successor is None:
                refused = [self._announcer.refuse_session(following.id)] if following.subject else []
                await self._announcer.publish(refused)
                if await self._store.replace(following.superseded("", now + STUMP_LIFETIME)):
                    self._announcer.tell("revoked", following, "replaced by a sign-in")
                    return
            following = await stored(self._store, following.successor or following.id)

    async def by_rotation(self, old: Record, new: Record, until: int) -> bool:
        """Turn `old` into a stump that leads to `new`, or take `new` back: never two that could be used."""
        won = False
        try:
            won = await self._store.replace(old.superseded(new.id, until))
        finally:
            if not won:
                await self._store.delete(new.id)
        return won

    async def _stored(self, session_id: str) -> Record | None:
        """Return what is stored under an id. A stump is left there: a second try must find its way as well."""
        try:
            return await stored(self._store, session_id)
        except StoreUnavailable as error:
            _require_damage(error)
            return None

    async def _leading_to(self, record: Record | None) -> builtins.list[str]:
        """Return the ids that a session has given up in the last minutes."""
        if record is None or record.subject is None or record.version <= 1:  # who rotates counts on from there
            return []
        leads, reached = {each.id: each.successor for each in await self._records(record.subject)}, [record.id]
        for id in reached:
            reached += [before for before, after in leads.items() if after == id and before not in reached]
        return reached[1:]

    async def _listed(self, subject: str, keep: str | None) -> builtins.set[str]:
        """Return the ids to be refused: also those that were given up, of which perhaps nobody was told."""
        return {record.id for record in await self._records(subject) if record.id != keep}

    async def _records(self, subject: str) -> builtins.list[Record]:
        try:
            return await self._store.list(subject)
        except StoreUnavailable as error:
            _require_damage(error)
            return []


def _require_damage(error: StoreUnavailable) -> None:
    """Go on if it is only that a record is damaged, for it can be removed all the same; else do not ask once more."""
    if not str(error).startswith(DAMAGED):
        raise error
