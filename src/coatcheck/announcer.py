"""Announcer: makes a revocation known, in this process at once and in every other by the feed."""

from __future__ import annotations

from collections.abc import Iterable

from coatcheck.clock import Clock
from coatcheck.core.policy import Policy, milliseconds
from coatcheck.core.record import Record
from coatcheck.core.revocation import Revocations, Revoked
from coatcheck.events import Event, Kind, OnEvent
from coatcheck.feed import Feed

# Revocations are remembered this much longer than any token they concern could live.
_SLACK = 60 * 1000


class Announcer:
    """Tells verifiers what was revoked, and the audit trail what happened."""

    def __init__(self, revocations: Revocations, feed: Feed, policy: Policy, clock: Clock, on_event: OnEvent) -> None:
        self.revocations = revocations
        self._feed = feed
        self._memory = milliseconds(policy.access_lifetime + policy.leeway) + _SLACK
        self._clock = clock
        self._on_event = on_event

    def refuse_session(self, session_id: str) -> Revoked:
        """Refuse a session's credentials in this process from now on, and return the revocation to publish."""
        revoked = Revoked(session_id=session_id, until=self._clock() + self._memory)
        self.revocations.apply(revoked)
        return revoked

    def refuse_subject(self, subject: str, before: int) -> Revoked:
        """Refuse what a subject was issued before `before` in this process, and return the revocation to publish."""
        revoked = Revoked(subject=subject, before=before, until=self._clock() + self._memory)
        self.revocations.apply(revoked)
        return revoked

    async def publish(self, revoked: Iterable[Revoked]) -> None:
        """Make revocations known to every other process.

        Raises:
            StoreUnavailable: the feed cannot take them.
        """
        entries = tuple(revoked)
        if entries:
            await self._feed.publish(entries, self._clock())

    def refuses(self, record: Record) -> bool:
        """Say whether this process has heard that the session was revoked."""
        return self.revocations.covers(record.id, record.subject, record.created_at)

    def tell(self, kind: Kind, record: Record, reason: str = "") -> None:
        """Report a step of a session's life."""
        self.report(kind, record.id, record.subject, reason, record.device.address)

    def report(self, kind: Kind, session_id: str, subject: str | None, reason: str, address: str = "") -> None:
        """Report a step of the life of a session whose record is not at hand."""
        self._on_event(
            Event(kind=kind, at=self._clock(), session_id=session_id, subject=subject, reason=reason, address=address)
        )
