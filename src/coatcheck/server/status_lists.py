"""StatusLists: says of each session's tokens whether they are still good, for verifiers that can only poll.

    status/next         the first number that was not given yet, and the key that turns numbers into indexes
    status/of/<id>      the place of a session's tokens: which list, and which index in it
    the lists           in memory, out of what the feed says is revoked: each server makes its own, and they are equal

The tokens of a session share one entry, since they end together. A place is noted before a token that names it leaves
the server. What is revoked is looked up among the places when the feed tells of it, and once more some seconds later:

    a place is noted, then the token is checked: it is refused if its session was revoked as far as is known here, and
    if the news here are older than `Policy.stale_after`. So a place that is not there when its session's revocation is
    heard is there `_AGAIN_MS` later, or no token names it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Final, NamedTuple

from coatcheck import Coatcheck, Session
from coatcheck.clock import monotonic_clock
from coatcheck.core.status_list import INVALID, StatusList, build, nth_index, sign
from coatcheck.documents import MAX_KEYS, Documents
from coatcheck.errors import SessionGone, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.server.document import pack, unpack, until_committed
from coatcheck.server.feed_hub import NOWHERE, FeedHub
from coatcheck.stores.moving import portions, together

PATH: Final = "/status-lists/"
ENTRIES: Final = 65_536  # of a list: one of 8 KiB fits into a token whatever it says
_BLOCK: Final = 64  # numbers that a server takes at once; it loses the rest of them when it ends
_AGAIN_MS: Final = 10_000
_ALIVE_MS: Final = 2_000  # a feed speaks at least once a second
_PAUSE_SECONDS: Final = 0.5
_NEXT: Final = "status/next"
_OF: Final = "status/of/"
_MILLISECOND: Final = timedelta(milliseconds=1)

_log = logging.getLogger("coatcheck.server")


class Place(NamedTuple):
    """Where the status of a session's tokens stands, and until when that is kept."""

    number: int
    entry: int
    until: int


class _List:
    """A list in memory; `until` says when the last token that it refuses has expired."""

    def __init__(self) -> None:
        self.octets = bytearray(ENTRIES // 8)
        self.until = 0
        self.made: tuple[int, str] | None = None

    def refuse(self, place: Place) -> None:
        octet, bit = divmod(place.entry, 8)
        self.octets[octet] |= INVALID << bit
        self.until = max(self.until, place.until)
        self.made = None


class StatusLists:
    """Gives out places, and makes the lists.

    Args:
        coat: whose tokens they are.
        documents: where places are kept.
        hub: tells what was revoked.
        ttl: how long a verifier may keep a list.
    """

    def __init__(self, coat: Coatcheck, documents: Documents, hub: FeedHub, ttl: timedelta) -> None:
        self.ttl = ttl // timedelta(seconds=1)
        self._coat = coat
        self._documents = documents
        self._hub = hub
        self._remembered = coat.policy.remembered // _MILLISECOND
        self._free: list[Place] = []
        self._reserving = asyncio.Lock()
        self._known = 0  # lists that there are at least
        self._lists: dict[int, _List] = {}
        self._later: deque[tuple[int, str]] = deque()
        self._heard_at: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hear what is revoked."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End; calling it again does nothing."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def uri(self, number: int) -> str:
        """Return the address of a list, which is its `sub` as well."""
        return f"{self._coat.policy.issuer}{PATH}{number}"

    async def claims(self, session: Session) -> Mapping[str, object]:
        """Return the claim `status` of a session's next access token, whose place is noted by then.

        Raises:
            SessionGone: the session was revoked.
            StoreUnavailable: it cannot be noted, or it is not known here what was revoked.
        """
        place = await until_committed(lambda: self._placed(str(session.id)))
        if self._coat.verifier.is_stale():
            raise StoreUnavailable("the feed is silent: a list might miss what is revoked")
        record = session.record
        if record is None or self._coat.revocations.covers(record.id, record.subject, record.created_at):
            raise SessionGone("the session ended while the request ran")
        return {"status": {"status_list": {"idx": place.entry, "uri": self.uri(place.number)}}}

    async def token(self, number: int) -> str | None:
        """Return a list as a token, or None if there is no such list.

        Raises:
            StoreUnavailable: it is not known here what was revoked.
        """
        if not await self._is_there(number):
            return None
        if self._heard_at is None or monotonic_clock() - self._heard_at > _ALIVE_MS:
            raise StoreUnavailable("the feed is not heard here")
        listed = self._lists.setdefault(number, _List())
        now = self._coat.clock() // 1000
        if listed.made is None or not 0 <= now - listed.made[0] <= self.ttl // 2:
            statuses = StatusList(1, bytes(listed.octets))
            # Whoever fetched it from a cache, where it may lie for `ttl`, may use it for another.
            claims = build(statuses, uri=self.uri(number), issued_at=now, lifetime=3 * self.ttl, ttl=self.ttl)
            listed.made = now, sign(claims, self._coat.keyring.signing_key())
            listed.until = max(listed.until, (now + self.ttl) * 1000)
        return listed.made[1]

    async def _placed(self, session_id: str) -> Place | None:
        """Return a session's place, if it is noted for long enough; None if somebody else was faster."""
        [stored] = await self._documents.get(_OF + session_id)
        now = self._coat.clock()
        place = unpack(stored, Place, "a place") if stored is not None else await self._new_place()
        if place.until >= now + self._remembered:
            return place
        place = place._replace(until=now + 4 * self._remembered)  # so that not every refresh writes it
        writes = {_OF + session_id: pack(place)}
        done = await self._documents.commit({_OF + session_id: stored}, writes, expires_at=place.until)
        return place if done else None

    async def _new_place(self) -> Place:
        async with self._reserving:
            if not self._free:
                self._free = await until_committed(self._reserved)
            return self._free.pop()

    async def _reserved(self) -> list[Place] | None:
        [stored] = await self._documents.get(_NEXT)
        # A key of its own, and not of the keyring: with another key, an index might come a second time.
        first, key = (0, secrets.token_bytes(32)) if stored is None else unpack(stored, tuple[int, bytes], "a counter")
        if not await self._documents.commit({_NEXT: stored}, {_NEXT: pack((first + _BLOCK, key))}):
            return None
        number, start = divmod(first, ENTRIES)
        of_list = hmac.digest(key, str(number).encode(), "sha256")
        return [Place(number, nth_index(of_list, start + n, ENTRIES), 0) for n in range(_BLOCK)]

    async def _is_there(self, number: int) -> bool:
        if number >= self._known:
            [stored] = await self._documents.get(_NEXT)
            given = 0 if stored is None else unpack(stored, tuple[int, bytes], "a counter")[0]
            self._known = -(-given // ENTRIES)
        return number < self._known

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._hub.hear(NOWHERE)) as batches:
                    async for batch in batches:
                        await self._take(batch)
            except StoreUnavailable as error:
                _log.warning("status lists: %s", error)
            except Exception:  # noqa: BLE001 - a list that nobody keeps up to date would be refused by all
                _log.exception("status lists: going on")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _take(self, batch: Batch) -> None:
        now = monotonic_clock()
        again: list[str] = []
        while self._later and self._later[0][0] <= now:
            again.append(self._later.popleft()[1])
        heard = [each.session_id for each in batch.revoked if each.session_id is not None]
        missing = await self._refuse([*again, *heard])
        self._later += [(now + _AGAIN_MS, each) for each in heard if each in missing]
        self._heard_at = now if batch.heard_at is None else batch.heard_at
        self._lists = {number: each for number, each in self._lists.items() if each.until > self._coat.clock()}

    async def _refuse(self, session_ids: Iterable[str]) -> set[str]:
        """Refuse the tokens of sessions, and return those that have no place."""
        missing: set[str] = set()
        for some in portions(list(session_ids), MAX_KEYS):
            for session_id, stored in zip(some, await _stored(self._documents, some), strict=True):
                if stored is None:
                    missing.add(session_id)
                    continue
                place = unpack(stored, Place, "a place")
                self._lists.setdefault(place.number, _List()).refuse(place)
        return missing


async def any_given(documents: Documents) -> bool:
    """Say whether a server has ever given out a place.

    Raises:
        StoreUnavailable
    """
    return await documents.get(_NEXT) != [None]


async def copy_places(source: Documents, target: Documents, session_ids: Sequence[str], now: int) -> None:
    """Copy the places of some sessions' tokens to where another server will look for them.

    They expire, so whoever goes through a server's documents does not come by them.

    Args:
        source: from where.
        target: to where; both are open.
        session_ids: whose places; also of sessions that have ended, for as long as the feed tells of that.
        now: milliseconds since the epoch.

    Raises:
        StoreUnavailable
    """
    await together(_copy(source, target, some, now) for some in portions(session_ids, MAX_KEYS))


async def _copy(source: Documents, target: Documents, session_ids: Sequence[str], now: int) -> None:
    found: dict[str, bytes] = {}
    ends_at = 0
    for session_id, stored in zip(session_ids, await _stored(source, session_ids), strict=True):
        if stored is not None:
            with suppress(StoreUnavailable):  # one that was damaged is of no use there either
                ends_at = max(ends_at, unpack(stored, Place, "a place").until)
                found[_OF + session_id] = stored
    if ends_at > now:
        await target.commit({}, found, expires_at=ends_at)


async def _stored(documents: Documents, session_ids: Sequence[str]) -> list[bytes | None]:
    return await documents.get(*(_OF + each for each in session_ids))
