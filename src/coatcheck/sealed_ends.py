"""SealedEnds: which sealed sessions have ended, and how others are told that one has.

What ends                          is told as                            and with it ends
--------------------------------   -----------------------------------   -----------------------------------------------
an id that a rotation gave up      that id                               each box with this id
a session                          its line, which rotations leave       whatever has come of it, or is about to
a subject's sessions               a cut-off                             what was made or signed in before it
a subject's other sessions         a cut-off of another name             what was made before it, but for the one kept

A rotation has a box that nobody knows of while it is under way, perhaps in another process: a sign-out by the old box
must end that one as well. So the line is in the box, and ids are not enough. And whoever keeps one session and ends the
others makes it as if it had begun at the cut-off. In a process that has not heard of a sign-out everywhere yet, that
would be after it: so there the time of the sign-in counts, too, which only a new proof moves.
"""

from __future__ import annotations

from typing import Final

import msgspec

from coatcheck.announcer import Announcer
from coatcheck.clock import Clock
from coatcheck.core.policy import Policy, milliseconds
from coatcheck.core.record import Record
from coatcheck.core.revocation import Revocations
from coatcheck.core.sealed_record import line_of
from coatcheck.errors import Revoked, Superseded

# A request that comes with a session's cookie so soon after its end was perhaps sent before its browser had another.
_LATE: Final = 60 * 1000
# No subject has such a name: it cannot be printed.
_OTHERS: Final = "others\x1f"


class SealedEnds:
    """Ends sealed sessions, and knows which have ended.

    Args:
        revocations, announcer: what was heard, and who tells the others.
        policy: whose `leeway` counts.
        clock: milliseconds since the epoch.
    """

    def __init__(self, revocations: Revocations, announcer: Announcer, policy: Policy, clock: Clock) -> None:
        self._revocations = revocations
        self._announcer = announcer
        self._clock = clock
        # What was made at a moment by a clock that is ahead counts as made before a cut-off at that moment, too.
        self._ahead = milliseconds(policy.leeway) + 1

    def refuses(self, record: Record) -> bool:
        """Say whether this process has heard that a session ended."""
        known, subject = self._revocations, record.subject
        if known.has_ended(record.id) or known.has_ended(line_of(record)):
            return True
        if subject is None:
            return False
        cutoff = known.cutoff(subject)
        return (
            record.created_at < cutoff
            or record.created_at < known.cutoff(_OTHERS + subject)
            or record.signed_in_at < cutoff - self._ahead
        )

    def refusal(self, record: Record) -> Revoked:
        """Return what to refuse a session with that has ended."""
        told = (self._announcer.refused_at(id) for id in (record.id, line_of(record)))
        if any(at is not None and self._clock() < at + _LATE for at in told):
            return Superseded("the session has just ended, or its browser has been given another cookie")
        return Revoked("the session has ended")

    def after_cutoff(self, record: Record) -> Record:
        """Return a record as made after its subject was last signed out, if its beginning was.

        Raises:
            Revoked: it was not.
        """
        cutoff = self._cutoff(record.subject) if record.subject is not None else 0
        if record.created_at < cutoff - self._ahead:
            raise Revoked("the subject was signed out everywhere meanwhile")
        return msgspec.structs.replace(record, created_at=max(record.created_at, cutoff))

    async def of_id(self, session_id: str) -> None:
        """End the boxes with an id.

        Raises:
            StoreUnavailable: the feed could not take it; here they are refused nevertheless. So do the others raise.
        """
        await self._announcer.publish([self._announcer.refuse_session(session_id)])

    async def of_session(self, record: Record) -> None:
        """End a session, and all that came of it by rotations."""
        await self.of_id(line_of(record))

    async def of_subject(self, subject: str) -> None:
        """End all of a subject's sessions."""
        await self._announcer.publish([self._announcer.refuse_subject(subject, self.next_cutoff(subject))])

    async def of_others(self, subject: str, before: int, given_up: str) -> None:
        """End a subject's sessions that were made before a cut-off, and the boxes with an id.

        Args:
            subject: whose sessions.
            before: what `next_cutoff` has just returned; the one that is kept is made as if it began then.
            given_up: the id that it had.
        """
        others = self._announcer.refuse_subject(_OTHERS + subject, before)
        await self._announcer.publish([others, self._announcer.refuse_session(given_up)])

    def next_cutoff(self, subject: str) -> int:
        """Return a time (ms) before which all is that was made of a subject's, as far as this process knows."""
        return max(self._clock() + self._ahead, self._cutoff(subject) + 1)

    def _cutoff(self, subject: str) -> int:
        """Return when it was last told that a subject's sessions end, all or all but one."""
        return max(self._revocations.cutoff(subject), self._revocations.cutoff(_OTHERS + subject))
