"""Sessions: the desk that creates, loads, saves, rotates, refreshes and revokes; the only compare-and-swap loops.

Every loop has the same shape: read, judge with floor 1, `store.replace`; whoever loses the race begins again.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Mapping
from typing import Any

from coatcheck.admission import Admission
from coatcheck.announcer import Announcer
from coatcheck.clock import Clock, system_clock
from coatcheck.core import rotation
from coatcheck.core.credentials import RefreshToken, SessionCookie, Ticket
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy, milliseconds
from coatcheck.core.record import Device, Record, editing, require_size, require_subject, words
from coatcheck.core.revocation import Revocations
from coatcheck.core.session import Session, id_of, require_record
from coatcheck.ending import STUMP_LIFETIME, Ending, own, stored
from coatcheck.errors import Conflict, Expired, Malformed, Reused, SessionGone, StoreUnavailable
from coatcheck.errors import Revoked as RevokedError
from coatcheck.events import OnEvent, log_event
from coatcheck.feed import Feed
from coatcheck.issuer import Grant, Issuer, mint_cookie
from coatcheck.run import to_the_end
from coatcheck.store import MAX_ATTEMPTS, Recall, Store, no_memory


class Sessions:
    """The desk at which sessions are made, found, changed and ended.

    All methods raise StoreUnavailable when the store cannot answer, besides what they say: nobody is signed in or
    out on a guess (P6).
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        policy: Policy,
        revocations: Revocations,
        feed: Feed,
        *,
        clock: Clock = system_clock,
        on_event: OnEvent = log_event,
        recall: Recall = no_memory,
    ) -> None:
        self.store = store
        self.keyring = keyring
        self.policy = policy
        self.clock = clock
        self._recall = recall
        self._touch_every = milliseconds(policy.touch_every)
        # As long as a token of the old id lives: until then it must be found, to be refused with the session.
        self._stump_lifetime = max(STUMP_LIFETIME, milliseconds(policy.access_lifetime + policy.leeway))
        self.issuer = Issuer(keyring, policy, clock)
        self._announcer = Announcer(revocations, feed, policy, clock, on_event)
        self._ending = Ending(store, self._announcer)
        self._admission = Admission(store, self._ending, policy, clock)

    # -- making and finding ------------------------------------------------------------------------------------

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
        """Make a session; `.cookie` of the result is the only copy of its secret.

        Args:
            subject: who has proved who they are; None makes an anonymous session.
            amr: how they proved it (RFC 8176), for example ("pwd",).
            scopes: what the session's access tokens may be used for.
            persistent: the cookie survives the end of the browser ("remember me").
            began_at: when the proof began, in milliseconds since the epoch; now, if left out. A session whose
                proof began before the subject was signed out everywhere is refused.
            device: where the sign-in comes from.
            data: the first data, as `coatcheck.core.record.pack` encodes it.

        Not checked: the proof itself; that is the caller's.

        Raises:
            InvalidValue: the subject cannot be one, or the data is too large.
            Revoked: the subject was signed out everywhere since `began_at`.
            TooManySessions: the policy's `max_sessions` are there, and its `when_full` is `refuse`.
        """
        if subject is not None:
            require_subject(subject, self.policy.client_id)
        require_size(data or {}, self.policy.max_data)
        now, cookie = self.clock(), mint_cookie()
        record = Record.begin(
            cookie,
            subject,
            now=now,
            began_at=now if began_at is None else min(began_at, now),
            idle=milliseconds(self.policy.idle),
            absolute=milliseconds(self.policy.absolute),
            amr=words(amr),
            scopes=words(scopes),
            persistent=persistent,
            device=device or Device(),
            data=dict(data or {}),
        )
        await self._admission.admit(record)
        self._announcer.tell("created" if subject is None else "signed_in", record)
        return Session(record, cookie)

    async def load(self, cookie: Ticket) -> Session:
        """Return the live session that a cookie names; its data may be a moment old, with a `NearStore`.

        Raises:
            Revoked: there is none: never was, or it was ended.
            Superseded: its browser has been given another cookie since.
            BadSignature: the secret is not that session's.
            Expired: an idle or absolute timeout has passed.
        """
        if not isinstance(cookie, SessionCookie):
            raise Malformed("this cookie holds a sealed session; here they are in a store")
        record = self._recall(cookie.id)
        if record is None or not self._lives(record):  # of what is remembered; every no is the store's
            record = own(await self.store.load(cookie.id), cookie.id)
        if record is None:
            raise RevokedError("no live session has this id")
        if self._announcer.refuses(record):
            return await self._refused(record, cookie)
        self._judge(record, cookie)
        return Session(record)

    async def find(self, session_id: str) -> Session:
        """Return the live session with this id, for callers that need no proof: consoles, and verifiers that ask.

        Not checked: that anybody presented the session's secret.

        Raises:
            Revoked: there is no live one.
        """
        record = await stored(self.store, session_id)
        if record is not None and self._announcer.refuses(record):
            record = await self._again(record)
        return await self._session(record if record is not None and record.alive(self.clock()) else None)

    async def list(self, subject: str) -> builtins.list[Session]:
        """Return the subject's live sessions, last seen first."""
        records = [r for r in await self.store.list(subject) if r.subject == subject and self._lives(r)]
        return [Session(record) for record in sorted(records, key=lambda record: (-record.seen_at, record.id))]

    # -- changing ----------------------------------------------------------------------------------------------

    async def save(self, session: Session, *, at_version: int | None = None) -> None:
        """Write a session's edits, and only those, onto whatever is stored by now.

        Args:
            session: as loaded; its edits are the pending ones.
            at_version: write only if nobody has written since this version of `session.record`.

        Raises:
            SessionGone: it ended meanwhile; the edits are dropped, for dead is final.
            Conflict: somebody wrote first, and `at_version` was given.
            InvalidValue: the data would be larger than the policy allows.
        """
        record, changes = require_record(session), session.pending()

        def edit(data: Mapping[str, bytes]) -> dict[str, bytes]:
            nonlocal changes
            changes = session.pending()  # anew each time: of what was said before, another task may have saved more
            return changes.apply(data)

        if changes:
            session.saved(record, await self._edit(record, edit, at_version), changes)

    async def update(self, session_id: str, function: Callable[[dict[str, Any]], None]) -> Session:
        """Change a session's data by an exact read-modify-write: for counters, and whatever depends on its value.

        Args:
            session_id: the session's public id.
            function: changes the dictionary that it is given; called again whenever somebody else wrote first.

        Raises:
            Revoked: there is no such session.
            SessionGone: it ended meanwhile.
            InvalidValue: the result is not plain data, or too large.
        """
        return Session(await self._edit(require_record(await self.find(session_id)), editing(function), None))

    async def touch(self, session: Session) -> None:
        """Write down that the session was used, if that is due: the idle timeout starts anew."""
        record = session.record
        if record is not None and self.touch_is_due(session):
            seen = record.seen(self.clock())
            await self.store.touch(seen.id, seen.seen_at, seen.expires_at)
            session.used(record, seen)

    def touch_is_due(self, session: Session) -> bool:
        """Say whether a session lives, and was last written down as used so long ago that it should be again."""
        record = session.record
        return record is not None and (now := self.clock()) - record.seen_at >= self._touch_every and record.alive(now)

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
        """Give the session a new id and secret; the old ones are dead at once (S4, S19).

        The new record exists before the old one dies. Requests in flight may still have their edits applied to
        it. Tokens of the old id die with it: issue new ones.

        Args:
            session: the live session; it takes over the new id, and its pending edits are saved on the way.
            began_at: when the subject began to prove again who they are, if they did, in milliseconds since the
                epoch: both timeouts then start anew (S7), and the rest is that of the new proof.
            amr: how they proved it.
            scopes: what the session's access tokens may be used for from now on.
            persistent: the cookie survives the end of the browser.

        Raises:
            SessionGone: it ended meanwhile.
            Revoked: the subject was signed out everywhere since `began_at`.
            InvalidValue: the data would be larger than the policy allows.
        """
        old, changes = require_record(session), session.pending()
        if not self._lives(old):
            old = await self._living(old.id, old.subject)
        for _ in range(MAX_ATTEMPTS):
            cookie, now = mint_cookie(), self.clock()
            new = old.continued(cookie, now, changes.apply(old.data))
            if began_at is not None:
                proof = {"amr": words(amr), "scopes": words(scopes)}
                absolute = milliseconds(self.policy.absolute)
                new = new.reauthenticated(min(began_at, now), absolute, **proof, persistent=persistent)
            require_size(new.data, self.policy.max_data)
            if not await self.store.create(new):
                raise RevokedError("the subject was signed out everywhere meanwhile")
            if await self._ending.by_rotation(old, new, now + self._stump_lifetime):
                await self._announcer.publish([self._announcer.refuse_session(old.id)])
                session.become(new, cookie, saved=changes)
                self._announcer.tell("rotated" if began_at is None else "signed_in", new)
                return
            old = await self._living(old.id, old.subject)
        raise StoreUnavailable("too many writers at once")

    # -- tokens ------------------------------------------------------------------------------------------------

    async def issue(self, session: Session) -> Grant:
        """Return an access token and a refresh token of a session: two more credentials of the same thing.

        Raises:
            SessionGone: it has ended, or there is none; a session held for long may have.
            InvalidValue: nobody is signed in to the session.
            ConfigurationError: the key ring can only verify.
        """
        record = require_record(session)
        return await self.issuer.grant(await self._living(record.id, record.subject))

    async def refresh(self, text: str) -> Grant:
        """Spend a refresh token: return a new access token, and the refresh token's successor.

        The table in `coatcheck.core.rotation` decides. All racers get the identical successor; a spent token out
        of grace ends its session, and no other.

        Raises:
            Malformed, BadSignature: it is not one of ours.
            Expired, Revoked: its session has ended.
            Reused: it was spent before; its session has now ended.
        """
        token, grace = RefreshToken.parse(text, self.keyring.derive("refresh")), milliseconds(self.policy.refresh_grace)
        for _ in range(MAX_ATTEMPTS):
            record, now = require_record(await self.find(token.sid)), self.clock()
            verdict = rotation.judge(token.generation, record.generation, record.refreshed_at, now, grace)
            if verdict is rotation.Verdict.REUSE:
                await self.revoke(record.id, reason="refresh token reused")
                self._announcer.tell("reused", record)
                raise Reused("this refresh token was spent before; its session has ended")
            if verdict is rotation.Verdict.RETRY:
                return await self.issuer.grant(record)
            spent = record.refreshed(now)
            if await self.store.replace(spent):
                self._announcer.tell("refreshed", spent)
                return await self.issuer.grant(spent)
        raise StoreUnavailable("too many writers at once")

    # -- ending ------------------------------------------------------------------------------------------------

    @to_the_end
    async def revoke(self, session: Session | str, *, reason: str = "signed out") -> bool:
        """End a session, and say whether there was one: cookie, access and refresh tokens die together.

        This process refuses at once, whatever feed and store answer; once the call has returned, every process does.

        Args:
            session: the session, or its id.
            reason: for the audit trail.

        Raises:
            StoreUnavailable: it may not be durable; try again.
        """
        return await self._ending.one(id_of(session) or "", reason)

    async def supersede(self, session: Session) -> None:
        """End a session because its browser has been given another one, and remember that for a while.

        A request that still comes with the old cookie is then known to be late, and gets no session of its own,
        whose cookie would undo the sign-in.
        """
        await self._ending.replaced(require_record(session), self.clock())

    @to_the_end
    async def revoke_all(
        self, subject: str, *, keep: Session | str | None = None, reason: str = "signed out everywhere"
    ) -> int:
        """End all sessions of a subject, or all but one, and return how many ended.

        A sign-in that is under way meanwhile fails. Without `keep`, the subject's access tokens issued before
        now are dead by the subject's cut-off as well as by their sessions' ids.

        Raises:
            InvalidValue: the subject cannot be one: nobody would have been signed out.
            StoreUnavailable: it may not be durable; try again.
        """
        require_subject(subject, self.policy.client_id)
        return await self._ending.every(subject, self.clock(), id_of(keep), reason)

    async def sweep(self) -> int:
        """Remove expired records, and return how many; the composition root calls it every minute."""
        now = self.clock()
        self._announcer.revocations.prune(now)
        return await self.store.sweep(now)

    async def _edit(
        self, record: Record, edit: Callable[[Mapping[str, bytes]], dict[str, bytes]], at_version: int | None
    ) -> Record:
        for _ in range(MAX_ATTEMPTS):
            if at_version is not None and record.version != at_version:
                raise Conflict("somebody else has written the session since")
            now = self.clock()
            if not record.alive(now):
                raise SessionGone("the session ended while the request ran")
            edited = record.edited(edit(record.data), now)
            require_size(edited.data, self.policy.max_data)
            if await self.store.replace(edited):
                return edited
            record = await self._living(record.id, record.subject)
        raise StoreUnavailable("too many writers at once")

    async def _living(self, session_id: str, subject: str | None) -> Record:
        """Return the stored record, following a rotation to the same subject's new id."""
        record = await stored(self.store, session_id)
        while record is not None and record.successor is not None and record.subject == subject:
            record = await stored(self.store, record.successor)
        if record is None or record.subject != subject or not self._lives(record):
            raise SessionGone("the session ended while the request ran")
        return record

    async def _refused(self, record: Record, cookie: SessionCookie) -> Session:
        again = await self._again(record)
        if again is not None:
            self._judge(again, cookie)
        return await self._session(again)

    async def _again(self, refused: Record) -> Record | None:
        """Return what is stored of a refused session, read after this process has heard of it.

        An id that was given up is refused as well. Whoever had read the record just before, and ended the session for
        being refused, would end the one that goes on under the new id.
        """
        return await stored(self.store, refused.id) if refused.successor is None else refused

    def _judge(self, record: Record, cookie: SessionCookie) -> None:
        try:
            record.judge(cookie.secret, self.clock())
        except Expired:
            self._announcer.tell("expired", record)
            raise

    def _lives(self, record: Record) -> bool:
        return record.alive(self.clock()) and not self._announcer.refuses(record)

    async def _session(self, record: Record | None) -> Session:
        if record is not None and self._announcer.refuses(record):
            # Refused here and still stored: a revocation that the store could not take. Whoever comes with the
            # credential again, perhaps to sign out once more, has it finished.
            await self.revoke(record.id, reason="a revocation was finished")
            record = None
        if record is None:
            raise RevokedError("no live session has this id")
        return Session(record)
