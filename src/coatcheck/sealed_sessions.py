"""SealedSessions: the desk for sessions that live in their browser's cookie, sealed. There is no store.

What a store would be asked, nobody can be: where a subject's other sessions are, and whether a box is the newest of its
session. What stays is that dead is final (P1). The feed brings what has ended to every process, where it is remembered
for as long as a box could live: see `coatcheck.sealed_ends`.

A box says itself when it was made, and a store that decides what came first (P7) is not there. So clocks may differ by
the policy's `leeway`: a cut-off lies that far ahead, and whoever knows it makes new sessions as if they began there.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from coatcheck.announcer import Announcer
from coatcheck.boxes import Boxes
from coatcheck.core.cookies import MAX_PAIR
from coatcheck.core.credentials import PART_SIZE, SessionBox, Ticket, valid_session_id
from coatcheck.core.policy import milliseconds
from coatcheck.core.record import Device, Record, require_size, require_subject, words
from coatcheck.core.revocation import NEVER
from coatcheck.core.sealed_record import BOX_KEYS, NOTE_KEYS, write_note
from coatcheck.core.session import Session, id_of, require_record
from coatcheck.errors import ConfigurationError, Expired, Malformed, SessionGone, StoreUnavailable
from coatcheck.events import OnEvent, log_event
from coatcheck.feed import Feed
from coatcheck.issuer import Grant, mint_cookie
from coatcheck.run import to_the_end
from coatcheck.sealed_ends import SealedEnds
from coatcheck.verifier import Verifier


class Sealed:
    """Stands in a store's place: sessions live in their browser's cookie. Give it to a `Coatcheck`."""

    def __repr__(self) -> str:
        return "Sealed()"


class SealedSessions:
    """The desk at which sealed sessions are made, opened, changed and ended; its verbs are those of `Sessions`.

    Args:
        verifier: whose key ring, policy, revocations and clock count here as well.
        feed: how revocations reach other processes. It must keep them for longer than boxes live, restarts included.
        on_event: told of each step of a session's life.

    Raises:
        ConfigurationError: the key ring has no secret, or the policy asks for what only a store can do.
    """

    def __init__(self, verifier: Verifier, feed: Feed, *, on_event: OnEvent = log_event) -> None:
        self.keyring = verifier.keyring
        self.policy = verifier.policy
        self.clock = verifier.clock
        self._verifier = verifier
        self._revocations = verifier.revocations
        self._name = self.policy.cookie.name
        self._boxes = Boxes(self.keyring, self._name)
        self._absolute = milliseconds(self.policy.absolute)
        self._touch_every = milliseconds(self.policy.touch_every)
        self._announcer = Announcer(
            self._revocations, feed, self.policy, self.clock, on_event, lifetime=self.policy.absolute
        )
        self.ends = SealedEnds(self._revocations, self._announcer, self.policy, self.clock)
        self._require_possible()

    # -- making and opening ------------------------------------------------------------------------------------

    async def create(
        self,
        subject: str | None = None,
        *,
        amr: Collection[str] = (),
        scopes: Collection[str] = (),
        persistent: bool = False,
        began_at: int | None = None,
        device: Device | None = None,
        data: Mapping[str, bytes] | None = None,
    ) -> Session:
        """Make a session; `.cookie` of the result is all there is of it. See `Sessions.create`.

        Raises:
            InvalidValue: the subject cannot be one, or the session is too large for its cookies.
            Revoked: the subject was signed out everywhere since `began_at`.
            StoreUnavailable: nothing was heard of revocations for too long.
        """
        self._require_word()
        if subject is not None:
            require_subject(subject, self.policy.client_id)
        now = self.clock()
        record = Record.begin(
            mint_cookie(),
            subject,
            now=now,
            began_at=now if began_at is None else min(began_at, now),
            idle=milliseconds(self.policy.idle),
            absolute=self._absolute,
            amr=words(amr),
            scopes=words(scopes),
            persistent=persistent,
            device=device or Device(),
            data=dict(data or {}),
        )
        record = self.ends.after_cutoff(record)
        box = self._seal(record)
        self._announcer.tell("created" if subject is None else "signed_in", record)
        return Session(record, box)

    async def load(self, cookie: Ticket) -> Session:
        """Return the live session in a box. There is no I/O.

        Not checked: whether it is the newest box of its session: whoever has the browser can bring back an older one.

        Raises:
            Malformed, BadSignature: it is no box of ours.
            Expired: an idle or absolute timeout has passed.
            Revoked: it was ended.
            Superseded: it was ended just now, perhaps because its browser has been given another.
            StoreUnavailable: nothing was heard of revocations for too long, and the policy does not accept that.
        """
        self._require_word()
        if not isinstance(cookie, SessionBox):
            raise Malformed("this cookie names a session in a store; here they are sealed")
        record = self._boxes.open(cookie)
        if not self._in_time(record):
            self._announcer.tell("expired", record)
            raise Expired("the session has expired")
        if self.ends.refuses(record):
            raise self.ends.refusal(record)
        return Session(record)

    async def find(self, session_id: str) -> Session:  # noqa: ARG002 - as Sessions has it
        """Refuse: nobody but its browser has a sealed session.

        Raises:
            ConfigurationError: always.
        """
        raise _needs_a_store("looking a session up by its id")

    async def list(self, subject: str) -> builtins.list[Session]:  # noqa: ARG002 - as Sessions has it
        """Refuse: nobody but their browsers has a subject's sealed sessions.

        Raises:
            ConfigurationError: always.
        """
        raise _needs_a_store('a list of sessions ("your devices")')

    # -- changing ----------------------------------------------------------------------------------------------

    async def save(self, session: Session, *, at_version: int | None = None) -> None:
        """Seal a session with its edits, for its browser to keep. Of two requests at once, the later answer wins.

        Raises:
            SessionGone: it ended meanwhile; the edits are dropped, for dead is final.
            InvalidValue: it would be larger than the policy or its cookies allow.
            ConfigurationError: `at_version` was given: nobody knows what the browser was given since.
        """
        if at_version is not None:
            raise _needs_a_store("at_version")
        record, changes = require_record(session), session.pending()
        if not changes:
            return
        if not self._lives(record):
            raise SessionGone("the session ended while the request ran")
        edited = record.edited(changes.apply(record.data), self.clock())
        session.become(edited, self._seal(edited), saved=changes)

    async def update(
        self,
        session_id: str,  # noqa: ARG002 - as Sessions has it
        function: Callable[[dict[str, Any]], None],  # noqa: ARG002 - as Sessions has it
    ) -> Session:
        """Refuse: an exact read-modify-write needs one place where the value is.

        Raises:
            ConfigurationError: always.
        """
        raise _needs_a_store("an exact update")

    async def touch(self, session: Session) -> None:
        """Write a note that the session was used, if that is due; its box, and so its data, stay as they are."""
        if self.touch_is_due(session):
            record = require_record(session)
            seen = record.seen(self.clock())
            session.used(record, seen, write_note(seen, key=self.keyring.derive(NOTE_KEYS)[0], name=self._name))

    def touch_is_due(self, session: Session) -> bool:
        """Say whether a session lives, and was last noted as used so long ago that it should be again."""
        record = session.record
        return record is not None and self.clock() - record.seen_at >= self._touch_every and self._lives(record)

    @to_the_end
    async def rotate(
        self,
        session: Session,
        *,
        began_at: int | None = None,
        amr: Collection[str] = (),
        scopes: Collection[str] = (),
        persistent: bool = False,
    ) -> None:
        """Give the session a new id and box; the old ones are dead at once (S4, S19). See `Sessions.rotate`.

        Edits of other requests in flight are lost: there is no place where they could meet.

        Raises:
            SessionGone: it ended meanwhile.
            Revoked: the subject was signed out everywhere since `began_at`.
            InvalidValue: it would be larger than the policy or its cookies allow.
        """
        old, changes, now = require_record(session), session.pending(), self.clock()
        if not self._lives(old):
            raise SessionGone("the session ended while the request ran")
        new = _going_on(old, now, changes.apply(old.data))
        if began_at is not None:
            proof = {"amr": words(amr), "scopes": words(scopes)}
            new = new.reauthenticated(min(began_at, now), self._absolute, **proof, persistent=persistent)
        new = self.ends.after_cutoff(new)
        box = self._seal(new)
        await self.ends.of_id(old.id)
        if not self._lives(new):
            raise SessionGone("the session ended while the request ran")
        session.become(new, box, saved=changes)
        self._announcer.tell("rotated" if began_at is None else "signed_in", new)

    # -- tokens ------------------------------------------------------------------------------------------------

    async def issue(self, session: Session) -> Grant:  # noqa: ARG002 - as Sessions has it
        """Refuse: that a refresh token is good only once needs a place where it is written down.

        Raises:
            ConfigurationError: always.
        """
        raise _needs_a_store("issuing tokens")

    async def refresh(self, text: str) -> Grant:  # noqa: ARG002 - as Sessions has it
        """Refuse, as `issue` does.

        Raises:
            ConfigurationError: always.
        """
        raise _needs_a_store("refreshing tokens")

    # -- ending ------------------------------------------------------------------------------------------------

    @to_the_end
    async def revoke(self, session: Session | str, *, reason: str = "signed out") -> bool:
        """End a session, and say whether there could be one. This process refuses at once; see `Sessions.revoke`.

        Args:
            session: the session, which ends with all that has come of it by rotations, or is about to; or its id, which
                ends nothing but the boxes with that id.
            reason: for the audit trail.

        Raises:
            StoreUnavailable: the feed could not take it; try again.
        """
        session_id, record = id_of(session), session.record if isinstance(session, Session) else None
        if session_id is None or not valid_session_id(session_id):
            return False
        if record is not None:
            await self.ends.of_session(record)
            self._announcer.tell("revoked", record, reason)
        else:
            await self.ends.of_id(session_id)
            self._announcer.report("revoked", session_id, None, reason)
        return True

    async def supersede(self, session: Session) -> None:
        """End a session because its browser has been given another one; see `Sessions.supersede`."""
        await self.revoke(session, reason="replaced by a sign-in")

    @to_the_end
    async def revoke_all(
        self, subject: str, *, keep: Session | str | None = None, reason: str = "signed out everywhere"
    ) -> int:
        """End all sessions of a subject, or all but one. How many there were nobody knows: it returns 0.

        A sign-in that is under way meanwhile fails. There is one event for all of them, without a session's id.

        Args:
            subject: whose sessions.
            keep: the session to go on, which gets a new id and box; as a `Session`, for its id is not enough.
            reason: for the audit trail.

        Raises:
            InvalidValue: the subject cannot be one: nobody would have been signed out.
            ConfigurationError: what is to be kept is not at hand.
            StoreUnavailable: the feed could not take it; try again.
        """
        require_subject(subject, self.policy.client_id)
        if isinstance(keep, str):
            raise _needs_a_store("keeping a session of which only the id is known")
        kept = keep.record if keep is not None and keep.subject == subject else None
        if keep is None or kept is None or not self._lives(kept):
            await self.ends.of_subject(subject)
        else:
            before, changes = self.ends.next_cutoff(subject), keep.pending()
            going_on = _going_on(kept, self.clock(), changes.apply(kept.data))
            new = msgspec.structs.replace(going_on, created_at=before)
            box = self._seal(new)
            await self.ends.of_others(subject, before, kept.id)
            if self._lives(new):
                keep.become(new, box, saved=changes)
        self._announcer.report("revoked", "", subject, reason)
        return 0

    async def sweep(self) -> int:
        """Forget revocations that no living box can concern; there are no records to remove, so it returns 0."""
        self._revocations.prune(self.clock())
        return 0

    # -- inside ------------------------------------------------------------------------------------------------

    def _require_possible(self) -> None:
        self.keyring.derive(BOX_KEYS)
        if self.policy.when_stale == "ask":
            raise _needs_a_store("when_stale=ask")
        if self.policy.max_sessions is not None:
            raise _needs_a_store("max_sessions")
        if any(len(cookie.name) + len("20.") + PART_SIZE > MAX_PAIR for cookie in self.policy.session_cookies):
            raise ConfigurationError("the session cookie's name is too long for a sealed session")

    def _require_word(self) -> None:
        """Refuse while this process does not know what was revoked, unless the policy accepts that."""
        if not self._verifier.is_stale():
            return
        if self._revocations.heard_at == NEVER:
            raise StoreUnavailable(
                "no word of revocations yet: no session is trusted (`async with coatcheck` opens it)"
            )
        if self.policy.when_stale != "accept":
            raise StoreUnavailable("no word of revocations for too long: no session is trusted")

    def _seal(self, record: Record) -> SessionBox:
        require_size(record.data, self.policy.max_data)
        return self._boxes.seal(record)

    def _in_time(self, record: Record) -> bool:
        # Never longer than revocations are remembered by this policy, whichever it was when the session began.
        now = self.clock()
        return record.alive(now) and now < record.created_at + self._absolute

    def _lives(self, record: Record) -> bool:
        return self._in_time(record) and not self.ends.refuses(record)


def _going_on(old: Record, now: int, data: dict[str, bytes]) -> Record:
    """Return a session under a new id. It was not made before the old one, whatever the clock says by now."""
    new = old.continued(mint_cookie(), now, data)
    return msgspec.structs.replace(new, created_at=max(now, old.created_at), digest=old.digest)


def _needs_a_store(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what} needs a store: sealed sessions are nowhere but in their browsers' cookies")
