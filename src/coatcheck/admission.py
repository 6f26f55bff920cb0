"""Admission: at most so many sessions of one subject (S9), exactly, however many sign in at the same moment.

A sign-in is admitted before anybody is given the cookie:

    store the record
    read the roll   one record of the subject's with the ids that were admitted
    list            the subject's live sessions; those that are not on the roll are sign-ins under way, or were rotated
    end the oldest, or withdraw and refuse
    write the roll  by compare-and-swap: whoever loses reads and lists again

So of two sign-ins the later one finds the earlier one on the roll. A sign-in that was not admitted, or was cancelled,
takes its record back, for it would keep a place for nobody. Who is killed in between, or finds no store to take it back
from, leaves a session that nobody has the cookie of: it keeps its place until it expires or somebody ends it.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import logging

import msgspec

from coatcheck.clock import Clock
from coatcheck.core import base64url
from coatcheck.core.policy import Policy
from coatcheck.core.record import Record, pack, unpack
from coatcheck.ending import Ending
from coatcheck.errors import Revoked, StoreUnavailable, TooManySessions
from coatcheck.run import to_the_end
from coatcheck.store import MAX_ATTEMPTS, Store

# A session that is not on the roll for so long is no sign-in under way: it was there before there was a limit.
_UNDER_WAY = 60 * 1000
_KEY = "admitted"
_log = logging.getLogger("coatcheck")


class Admission:
    """Admits new sessions, as far as the policy's `max_sessions` allows."""

    def __init__(self, store: Store, ending: Ending, policy: Policy, clock: Clock) -> None:
        self._store = store
        self._ending = ending
        self._most = policy.max_sessions
        self._when_full = policy.when_full
        self._clock = clock

    async def admit(self, new: Record) -> None:
        """Store a new session, and admit it.

        Raises:
            TooManySessions: there are as many as may be, and the policy says `refuse`.
            Revoked: it was ended meanwhile.
            StoreUnavailable
        """
        try:
            if not await self._store.create(new):
                raise Revoked("the subject was signed out everywhere while signing in")
            await self._find_place(new)
        except (TooManySessions, asyncio.CancelledError):
            await self._withdraw(new)
            raise
        except StoreUnavailable:
            # Perhaps it was the answer alone that was lost. Without a limit nobody is kept out by what is left, and
            # whoever signs in while the store is away is told so in the time of one call (P6).
            if self._most is not None:
                await self._withdraw(new)
            raise

    async def _find_place(self, new: Record) -> None:
        if self._most is None or new.subject is None:
            return
        for _ in range(MAX_ATTEMPTS):
            roll = await self._store.load(roll_id(new.subject))
            others = await self._others(new, roll)
            too_many = others[: max(0, len(others) + 1 - self._most)]
            if too_many and self._when_full == "refuse":
                raise TooManySessions(f"the subject has {self._most} sessions already")
            for record in too_many:
                await self._ending.one(record.id, "too many sessions")
            if await self._write(roll, [*others[len(too_many) :], new]):
                return
        raise StoreUnavailable("too many writers at once")

    @to_the_end
    async def _withdraw(self, new: Record) -> None:
        try:
            await self._store.delete(new.id)
        except StoreUnavailable:
            _log.warning("the session %s of a sign-in that was not admitted is still stored", new.id)

    async def _others(self, new: Record, roll: Record | None) -> builtins.list[Record]:
        """Return the subject's other sessions that count, the oldest sign-in first."""
        now, admitted = self._clock(), _admitted(roll)
        live = [record for record in await self._store.list(new.subject or "") if record.alive(now)]
        if all(record.id != new.id for record in live):
            raise Revoked("the session was ended while signing in")
        counting = [record for record in live if record.id in admitted or _is_settled(record, now)]
        return sorted(
            (record for record in counting if record.id != new.id), key=lambda record: (record.signed_in_at, record.id)
        )

    async def _write(self, roll: Record | None, admitted: builtins.list[Record]) -> bool:
        ends_at = max(record.ends_at for record in admitted)
        data = {_KEY: pack([record.id for record in admitted])}
        if roll is None:
            return await self._store.create(_roll(admitted[-1].subject or "", self._clock(), ends_at, data))
        ends_at = max(ends_at, roll.ends_at)
        return await self._store.replace(
            msgspec.structs.replace(roll, expires_at=ends_at, ends_at=ends_at, data=data, version=roll.version + 1)
        )


def roll_id(subject: str) -> str:
    """Return the id under which a subject's roll is stored."""
    return base64url.encode(hashlib.sha256(b"coatcheck admitted sessions\0" + subject.encode("utf-8")).digest()[:16])


def _roll(subject: str, now: int, ends_at: int, data: dict[str, bytes]) -> Record:
    # Nobody's session: no secret has this digest, and it has no subject, so it is in no list.
    return Record(
        id=roll_id(subject),
        digest=bytes(32),
        subject=None,
        created_at=now,
        signed_in_at=0,
        seen_at=now,
        expires_at=ends_at,
        ends_at=ends_at,
        data=data,
    )


def _admitted(roll: Record | None) -> frozenset[str]:
    found: builtins.list[str] = unpack(roll.data[_KEY]) if roll is not None else []
    return frozenset(found)


def _is_settled(record: Record, now: int) -> bool:
    # Whoever rotates, refreshes or writes has been given a cookie, and so was admitted.
    return record.version > 1 or now - record.seen_at > _UNDER_WAY
