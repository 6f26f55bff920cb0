"""Revocations: the small in-memory set that every verification consults, and Revoked, the event that fills it.

A revocation is only ever one of two things: *this session*, or *this subject, before time t*.
An entry is dropped when the last access token that it could concern has expired, so the set stays small.
"""

from __future__ import annotations

import msgspec

from coatcheck.core.packed import PackedTable
from coatcheck.errors import Revoked as RevokedError

# Pruning costs a pass over the set: one pass per this many arrivals keeps it a constant cost per event.
_PRUNE_EVERY = 1024
NEVER = -(2**62)


class Revoked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A revocation, as it travels on a feed. Times are milliseconds since the epoch.

    Args:
        session_id: the session that ended, or None.
        subject: whose tokens issued before `before` are dead, or None.
        before: the cut-off that goes with `subject`.
        until: when the entry may be forgotten: no token that it concerns is alive by then.
    """

    until: int
    session_id: str | None = None
    subject: str | None = None
    before: int = 0


class Revocations:
    """What this process knows to be revoked, and when it last heard from the feed.

    `heard_at` is in milliseconds of `monotonic_clock`; NEVER if nothing was heard yet, and None if there is no other
    process to hear from. A million entries take about 55 MiB, and checking a token then costs a few tenths of a
    microsecond more than with none.
    """

    __slots__ = ("_arrivals", "_last_pass", "_sessions", "_subjects", "applied", "heard_at", "position")

    def __init__(self) -> None:
        self._sessions = PackedTable()
        self._subjects = PackedTable()  # each with its cut-off
        self.position = 0
        self.heard_at: int | None = None
        self.applied = 0
        """Another number whenever a revocation was taken in, so that whoever watches can tell that there is news."""
        self._arrivals = 0
        self._last_pass = 0

    def __len__(self) -> int:
        return len(self._sessions) + len(self._subjects)

    def apply(self, revoked: Revoked) -> None:
        """Take a revocation in; a cut-off only ever moves forward."""
        if revoked.session_id is not None:
            self._sessions.put(revoked.session_id, revoked.until)
        if revoked.subject is not None:
            self._subjects.put(revoked.subject, revoked.until, revoked.before)
        self._arrivals += 1
        self.applied += 1  # last: who sees it finds the entry

    def judge(self, session_id: str, subject: str, issued_at: float) -> None:
        """Refuse a token of a revoked session or subject.

        A token is dead by its subject's cut-off only if it was issued in an earlier second: sessions that
        existed at the cut-off are revoked by id as well, and a session begun after it must not be refused.

        Args:
            session_id: the token's `sid`.
            subject: the token's `sub`.
            issued_at: the token's `iat`, in seconds.

        Raises:
            RevokedError: it is revoked.
        """
        if self._sessions.get(session_id) is not None:
            raise RevokedError("the session has ended")
        before = self._subjects.get(subject)
        if before is not None and issued_at < before // 1000:
            raise RevokedError("the subject was signed out everywhere")

    def has_ended(self, session_id: str) -> bool:
        """Say whether a session is revoked by its id."""
        return self._sessions.get(session_id) is not None

    def covers(self, session_id: str, subject: str | None, created_at: int) -> bool:
        """Say whether a session is revoked, by its id or because it was made (ms) before its subject's cut-off."""
        if self._sessions.get(session_id) is not None:
            return True
        return subject is not None and created_at < self.cutoff(subject)

    def until(self, session_id: str) -> int | None:
        """Return until when (ms) it is remembered that a session has ended; None if it is not known to have."""
        return self._sessions.until(session_id)

    def cutoff(self, subject: str) -> int:
        """Return the time (ms) before which a subject's sessions are revoked; 0 if there is none."""
        return self._subjects.get(subject) or 0

    def prune(self, now: int) -> None:
        """Forget the entries that no living token can concern, now and then."""
        if self._arrivals < _PRUNE_EVERY:
            return
        self._arrivals = 0
        # By the time of the pass before, if it was earlier: a clock that was ahead for a moment costs nothing (P7).
        limit, self._last_pass = min(now, self._last_pass), now
        self._sessions.forget(limit)
        self._subjects.forget(limit)
