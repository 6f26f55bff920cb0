"""SetQueue: Security Event Tokens that wait to be delivered, as documents; and how far the feed was turned into them.

    ssf/set/<receiver>/<jti>    the claims of one that was not acknowledged
    ssf/position                up to where the feed was heard

A revocation's `jti` is made from it and from the receiver. So whoever hears it once more, after a crash or instead of
another server, writes the same document, and a receiver that gets it twice can tell. It begins with a time: the
documents of a receiver are in order, the oldest first. What is signed is made when it is delivered, with the key of
that day.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final, NamedTuple

import msgspec

from coatcheck import Policy
from coatcheck.core.security_event import (
    SESSION_REVOKED,
    VERIFICATION,
    SessionRevoked,
    Verification,
    build,
    subject,
)
from coatcheck.documents import Documents, pages
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.server.document import pack, unpack
from coatcheck.server.receivers import Receiver

MOST_WAITING: Final = 10_000  # for each receiver
KEPT_MS: Final = 7 * 24 * 3600 * 1000
_SETS: Final = "ssf/set/"
_POSITION: Final = "ssf/position"
_AT_ONCE: Final = 15  # documents in one commit, besides the position
_PAGE: Final = 500
_TOKEN_ID: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]{32}")
_REASONS: Final = {True: {"en": "the session has ended"}, False: {"en": "all sessions of the subject have ended"}}


class Waiting(NamedTuple):
    """One that waits: its `jti`, and its claims."""

    token_id: str
    claims: bytes


class Reached(NamedTuple):
    """Up to where the feed was turned into tokens, and the document that says so."""

    position: int
    stored: bytes


class SetQueue:
    """Keeps them.

    Args:
        documents: where.
        policy: whose issuer the tokens have.
    """

    def __init__(self, documents: Documents, policy: Policy) -> None:
        self._documents = documents
        self._issuer = policy.issuer
        self._remembered = policy.remembered // timedelta(milliseconds=1)

    async def waiting(self, receiver: str, limit: int) -> list[Waiting]:
        """Return the oldest ones.

        Raises:
            StoreUnavailable
        """
        prefix = f"{_SETS}{receiver}/"
        found = await self._documents.page(prefix, limit=limit)
        return [Waiting(key.removeprefix(prefix), _claims(stored)) for key, stored in found]

    async def done(self, receiver: str, token_ids: Collection[str]) -> None:
        """Forget those that a receiver has, or will not have; a `jti` that is none is passed over.

        Raises:
            StoreUnavailable
        """
        await self._write({f"{_SETS}{receiver}/{each}": None for each in token_ids if _TOKEN_ID.fullmatch(each)})

    async def begin(self, position: int) -> None:
        """Begin at a position of the feed, if nobody has begun before.

        Raises:
            StoreUnavailable
        """
        [stored] = await self._documents.get(_POSITION)
        if stored is None:
            await self._documents.commit({_POSITION: None}, {_POSITION: pack(position)})

    async def reached(self) -> Reached:
        """Return up to where the feed was heard, by whoever has begun.

        Raises:
            StoreUnavailable
        """
        [stored] = await self._documents.get(_POSITION)
        if stored is None:
            raise StoreUnavailable("store damaged: the position in the feed is gone")
        return Reached(unpack(stored, int, "the position in the feed"), stored)

    async def take(self, batch: Batch, receivers: Collection[Receiver], reached: Reached, now: int) -> Reached | None:
        """Turn what the feed has told into tokens, and note how far it was heard, in one step with the last of them.

        Args:
            batch: what it has told. Of more than may wait, the oldest are left out.
            receivers: whom to tell.
            reached: up to where it was heard before.
            now: milliseconds since the epoch.

        Returns:
            how far that is; None if somebody else has come here meanwhile, and nothing is lost.

        Raises:
            StoreUnavailable
        """
        revoked = sorted(batch.revoked, key=lambda each: each.until)[-MOST_WAITING:]
        writes: dict[str, bytes] = {}
        for receiver, each in itertools.product(receivers, revoked):
            if len(writes) == _AT_ONCE:
                await self._documents.commit({}, writes)
                writes = {}
            told = self._revocation(receiver, each.session_id, each.subject, each.until, now)
            writes[f"{_SETS}{receiver.name}/{told.token_id}"] = pack(told.claims)
        moved = pack(batch.position)
        if not await self._documents.commit({_POSITION: reached.stored}, {_POSITION: moved, **writes}):
            return None
        return Reached(batch.position, moved)

    async def verify(self, receiver: Receiver, state: str | None, now: int) -> None:
        """Add the event by which a receiver sees that its stream works.

        Raises:
            InvalidValue: the state is too long.
            StoreUnavailable
        """
        event = Verification() if state is None else Verification(state=state)
        token_id = _token_id(now, receiver.name, VERIFICATION, str(now))
        claims = build(
            issuer=self._issuer,
            audience=receiver.audience,
            token_id=token_id,
            issued_at=now // 1000,
            transaction_id=token_id,
            sub_id={"format": "opaque", "id": receiver.name},
            type=VERIFICATION,
            event=event,
        )
        await self._write({f"{_SETS}{receiver.name}/{token_id}": pack(claims)})

    async def trim(self, receivers: Collection[Receiver], now: int) -> dict[str, int]:
        """Drop what has waited for too long, and what is too much (P9), and say how much of each receiver's that was.

        Those of a receiver that is not among these wait on: another server may know it.

        Raises:
            StoreUnavailable
        """
        dropped: dict[str, int] = {}
        excess: dict[str, float] = {receiver.name: -MOST_WAITING for receiver in receivers}
        async for page in pages(self._documents, _SETS, _PAGE):
            for name in (key.split("/")[2] for key, _ in page):
                excess[name] = excess.get(name, -math.inf) + 1
        async for page in pages(self._documents, _SETS, _PAGE):
            gone: dict[str, None] = {}
            for key, _ in page:
                _, _, name, token_id = key.split("/")
                if excess.get(name, 0) > 0 or int(token_id[:12], 16) < now - KEPT_MS:
                    gone[key] = None
                    dropped[name] = dropped.get(name, 0) + 1
                excess[name] = excess.get(name, 0) - 1
            await self._write(gone)
        return dropped

    def _revocation(
        self, receiver: Receiver, session_id: str | None, account: str | None, until: int, now: int
    ) -> Waiting:
        what = (SESSION_REVOKED, session_id or "", account or "", str(until))
        token_id, at = _token_id(until, receiver.name, *what), min(now, until - self._remembered) // 1000
        event = SessionRevoked(event_timestamp=at, reason_admin=_REASONS[session_id is not None])
        claims = build(
            issuer=self._issuer,
            audience=receiver.audience,
            token_id=token_id,
            issued_at=at,
            transaction_id=_token_id(until, *what),
            sub_id=subject(self._issuer, session_id=session_id, subject=account),
            type=SESSION_REVOKED,
            event=event,
        )
        return Waiting(token_id, claims)

    async def _write(self, writes: Mapping[str, bytes | None]) -> None:
        each = list(writes.items())
        for start in range(0, len(each), _AT_ONCE):
            await self._documents.commit({}, dict(each[start : start + _AT_ONCE]))


def _token_id(at: int, *what: str) -> str:
    digest = hashlib.sha256(msgspec.json.encode(what)).hexdigest()
    return f"{at:012x}-{digest[:32]}"


def _claims(stored: bytes) -> bytes:
    return unpack(stored, bytes, "a security event")
