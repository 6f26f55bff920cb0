"""Announcer: makes a revocation known, in this process at once and in every other by the feed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

import msgspec

from coatcheck.clock import Clock
from coatcheck.core.policy import SLACK, Policy, milliseconds
from coatcheck.core.record import Record
from coatcheck.core.revocation import Revocations, Revoked
from coatcheck.events import Event, Kind, OnEvent
from coatcheck.feed import Feed

_log = logging.getLogger("coatcheck")


class Announcer:
    """Tells verifiers what was revoked, and the audit trail what happened.

    Args:
        lifetime: how long what is revoked could live without that; as long as an access token, if left out.
    """

    def __init__(
        self,
        revocations: Revocations,
        feed: Feed,
        policy: Policy,
        clock: Clock,
        on_event: OnEvent,
        *,
        lifetime: timedelta | None = None,
    ) -> None:
        self.revocations = revocations
        self._feed = feed
        longest = policy.access_lifetime if lifetime is None else lifetime
        self._memory = milliseconds(longest + policy.leeway + SLACK)
        self._clock = clock
        self._on_event = on_event
        # One for each session and subject, however often it is tried: who comes with a refused cookie tries again (P9).
        self._owed: dict[tuple[str | None, str | None], Revoked] = {}

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
        """Make revocations known to every other process, and those that could not be told before.

        What only a removal has found, a retry does not find again: so what could not be told is remembered here, and
        goes out with whatever is told next.

        Raises:
            StoreUnavailable: the feed cannot take them.
        """
        now = self._clock()
        for key in [key for key, entry in self._owed.copy().items() if entry.until <= now]:
            self._owed.pop(key, None)  # threads publish at the same time
        merged = dict(self._owed)
        for entry in revoked:
            merged[_key(entry)] = _later(entry, merged.get(_key(entry)))
        if not merged:
            return
        try:
            await self._feed.publish(tuple(merged.values()), now)
        except BaseException:
            for key, entry in merged.items():
                self._owed[key] = _later(entry, self._owed.get(key))
            raise
        for key, entry in merged.items():
            if self._owed.get(key) == entry:
                self._owed.pop(key, None)

    def refuses(self, record: Record) -> bool:
        """Say whether this process has heard that the session was revoked."""
        return self.revocations.covers(record.id, record.subject, record.created_at)

    def refused_at(self, session_id: str) -> int | None:
        """Return when (ms) a session was refused by its id, by whichever process of this policy; None if it was not."""
        until = self.revocations.until(session_id)
        return None if until is None else until - self._memory

    def tell(self, kind: Kind, record: Record, reason: str = "") -> None:
        """Report a step of a session's life."""
        self.report(kind, record.id, record.subject, reason, record.device.address)

    def report(self, kind: Kind, session_id: str, subject: str | None, reason: str, address: str = "") -> None:
        """Report a step of the life of a session whose record is not at hand."""
        event = Event(
            kind=kind, at=self._clock(), session_id=session_id, subject=subject, reason=reason, address=address
        )
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - an audit sink may fail in any way
            # What was reported is done and durable; an audit sink that fails must not make it look undone.
            _log.exception("on_event failed for a %s session", kind)


def _key(revoked: Revoked) -> tuple[str | None, str | None]:
    return revoked.session_id, revoked.subject


def _later(revoked: Revoked, other: Revoked | None) -> Revoked:
    """Return what says as much as both of one session, or of one subject, do."""
    if other is None:
        return revoked
    until, before = max(revoked.until, other.until), max(revoked.before, other.before)
    return msgspec.structs.replace(revoked, until=until, before=before)
