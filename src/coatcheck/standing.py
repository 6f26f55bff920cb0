"""Standing: whether what a connection was let in by still holds, for those that live longer than one judgement.

What it acts by     Suspect as soon as               And then, or past its time
-----------------   ------------------------------   -------------------------------------------------------------
an access token     its session, or subject before   it is verified as if it came now
                    a time, was revoked
a session cookie    the same                         the record is read: a session that was used elsewhere, or has
                                                     rotated, is followed; one that is gone, has expired, or whose
                                                     subject has proved anew who they are, is not
its box             the same                         nothing is asked: nobody knows of a newer box
nothing             never                            -

A rotation gives up an id and not the sign-in, so it leaves connections alone. A new proof leaves behind whatever was
opened before it (S4, S19): a thief's connection would otherwise act by the new proof.
"""

from __future__ import annotations

from typing import Final, Protocol

from coatcheck.clock import monotonic_clock
from coatcheck.core.claims import Principal
from coatcheck.core.record import Record
from coatcheck.ending import stored
from coatcheck.errors import CredentialError, Expired, Revoked, StoreUnavailable, Superseded
from coatcheck.exchange import Desk, Exchange
from coatcheck.sealed_sessions import SealedSessions
from coatcheck.sessions import Sessions
from coatcheck.verifier import Verifier

FOREVER: Final = 2**62
_ASK_EVERY: Final = 1000  # milliseconds


class Standing(Protocol):
    """What a long-lived connection is judged by, again and again."""

    def ends_at(self) -> int:
        """Return when it is to be judged again whatever happens, in milliseconds since the epoch."""
        ...

    def is_suspect(self) -> bool:
        """Say whether this process has heard of a revocation that concerns it."""
        ...

    async def renew(self) -> None:
        """Judge it as if it came now, also by what is heard while somebody is being asked.

        Raises:
            CredentialError: it does not hold any more.
            StoreUnavailable: that cannot be told.
        """
        ...


class ExchangeStanding:
    """The standing of what an Exchange acts by, now: signing in or out in its handler changes it.

    Args:
        exchange: of the connection.
        sessions: where its session is kept.
        verifier: whose revocations count.
    """

    __slots__ = ("_exchange", "_heard_of", "_sessions", "_verifier")

    def __init__(self, exchange: Exchange, sessions: Desk, verifier: Verifier) -> None:
        self._exchange = exchange
        self._sessions = sessions
        self._verifier = verifier
        self._heard_of = HeardOf(verifier)

    def ends_at(self) -> int:
        """See `Standing.ends_at`."""
        token, record = self._exchange.access_token, self._record()
        if token is not None:
            return self._verifier.ends_at(token)
        return FOREVER if record is None else min(record.expires_at, record.ends_at)

    def is_suspect(self) -> bool:
        """See `Standing.is_suspect`."""
        token, record = self._exchange.access_token, self._record()
        if token is not None:
            return self._heard_of(token)
        return record is not None and self._covers(record)

    async def renew(self) -> None:
        """See `Standing.renew`; the session of the exchange takes over what is stored by now, but for its edits."""
        token, record = self._exchange.access_token, self._record()
        if token is not None:
            await self._verifier.verify_or_find(token, self._sessions.find)
        elif record is None:
            return
        elif isinstance(self._sessions, SealedSessions):
            self._require_word()
            self._require_living(record, record)
        else:
            self._exchange.session.used(record, await self._followed(self._sessions, record))

    def _record(self) -> Record | None:
        """Return the record that the connection acts by; of an anonymous visit there is nothing to revoke."""
        record = self._exchange.session.record
        return record if record is not None and record.subject is not None else None

    def _covers(self, record: Record) -> bool:
        if isinstance(self._sessions, SealedSessions):
            return self._sessions.ends.refuses(record)
        return self._verifier.revocations.covers(record.id, record.subject, record.created_at)

    def _require_word(self) -> None:
        if self._verifier.is_stale() and self._verifier.policy.when_stale != "accept":
            raise StoreUnavailable("no word of revocations for too long: no session is trusted")

    async def _followed(self, sessions: Sessions, record: Record) -> Record:
        found = await stored(sessions.store, record.id)
        while found is not None and found.successor:
            found = await stored(sessions.store, found.successor)
        return self._require_living(found, record)

    def _require_living(self, found: Record | None, record: Record) -> Record:
        now = self._sessions.clock()
        if found is None and not record.alive(now):
            raise Expired("the session has expired")  # and was removed since
        if found is None or found.successor is not None or found.subject != record.subject or self._covers(found):
            raise Revoked("the session has ended")
        if found.signed_in_at != record.signed_in_at:
            raise Superseded("the subject has signed in anew since")
        if not found.alive(now):
            raise Expired("the session has expired")
        return found


class AskInSilence:
    """Says when to judge anew because the feed is silent: once a second, unless the policy accepts that.

    Args:
        verifier: whose policy counts, and who knows when the feed was last heard.
    """

    __slots__ = ("_ask_at", "_verifier")

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._ask_at = 0

    def __call__(self) -> bool:
        """Say so; the next time in a second at the earliest."""
        if self._verifier.policy.when_stale == "accept" or not self._verifier.is_stale():
            return False
        if monotonic_clock() < self._ask_at:
            return False
        self._ask_at = monotonic_clock() + _ASK_EVERY
        return True


class HeardOf:
    """Says whether a revocation was heard that may concern an access token, which is verified once for that.

    Thousands of connections are asked whenever anything was revoked, and the verifier does not remember as many tokens.

    Args:
        verifier: whose revocations count.
    """

    __slots__ = ("_principal", "_token", "_verifier")

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._token = ""
        self._principal: Principal | None = None

    def __call__(self, token: str) -> bool:
        """Say so of a token; also if it is no good any more."""
        if self._principal is None or token != self._token:
            try:
                self._token, self._principal = token, self._verifier.judge(token)
            except CredentialError:
                return True
        session_id, subject = self._principal.session_id, self._principal.subject
        return self._verifier.revocations.covers(session_id, subject, 0)
