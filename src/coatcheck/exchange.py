"""Exchange: one HTTP request and its response, as far as sessions, cookies and tokens are concerned.

    begin    read the credential, judge it: `principal`, `session`, or `refusal`
    ...      the handler: sign_in, sign_out, reads, writes, set_cookie
    finish   save the edits, or touch; then `dress` puts Set-Cookie, Vary and Cache-Control on the response

A credential that was presented and is no good is a refusal: the request has no principal, `require` raises, and
no other credential is tried. Its cookie is left alone: taking it back could take away the
newer one that another tab has just been given.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from datetime import timedelta

from coatcheck import session_cookies
from coatcheck.browser_side import BrowserSide
from coatcheck.core import credentials, sufficiency
from coatcheck.core.claims import Principal
from coatcheck.core.credentials import AccessToken, RefreshToken
from coatcheck.core.record import require_subject
from coatcheck.core.session import Session
from coatcheck.errors import (
    ConfigurationError,
    CredentialError,
    Missing,
    SessionGone,
    StoreUnavailable,
    Superseded,
)
from coatcheck.issuer import Grant
from coatcheck.request_head import Headers, RequestHead
from coatcheck.sealed_sessions import SealedSessions
from coatcheck.sessions import Sessions
from coatcheck.verifier import Verifier

Desk = Sessions | SealedSessions
"""Where an Exchange asks for sessions: in a store, or in their browsers' cookies."""

_log = logging.getLogger("coatcheck")


class Exchange(BrowserSide):
    """One request and its response. Made by `begin`, by the middleware; handlers find it in the scope."""

    _refusal: CredentialError | None = None
    _token: Principal | None = None
    _token_text = ""
    _dressed = False

    def __init__(self, head: RequestHead, sessions: Desk, verifier: Verifier, session: Session | None = None) -> None:
        super().__init__(head, sessions.policy, sessions.keyring, sessions.clock)
        self.session = Session() if session is None else session
        self._sessions = sessions
        self._verifier = verifier

    # -- the request -------------------------------------------------------------------------------------------

    @classmethod
    async def begin(cls, head: RequestHead, sessions: Desk, verifier: Verifier) -> Exchange:
        """Read and judge what the request presents. Without a credential there is no I/O at all.

        Not checked: where the request comes from; `require_same_site` does.

        Raises:
            StoreUnavailable: it cannot be told whether the session is alive (P6).
        """
        token = session = refusal = None
        try:
            presented = credentials.read(head.headers, sessions.policy.cookie_names)
            if isinstance(presented, AccessToken):
                token = presented
            elif presented is not None:
                session = await sessions.load(presented)
        except CredentialError as error:
            refusal = error
        exchange = cls(head, sessions, verifier, session)
        if refusal is not None:
            exchange._refusal = refusal
        elif token is not None:
            await exchange._verify(token)
        return exchange

    @property
    def principal(self) -> Principal | None:
        """Whom the request acts as; None if nobody, or if what it presented was refused."""
        self._looked = True
        return self._token or self.session.principal

    @property
    def access_token(self) -> str | None:
        """The access token that the request acts by, or None; whoever has its text acts so, too, until it expires."""
        self._looked = True
        return self._token_text if self._token is not None else None

    @property
    def refusal(self) -> CredentialError | None:
        """Why what the request presented was refused, or None."""
        self._looked = True
        return self._refusal

    def require(
        self, *, scopes: Collection[str] = (), max_age: timedelta | None = None, amr: Collection[str] = ()
    ) -> Principal:
        """Return the principal, or refuse the request.

        Args:
            scopes: all of these must have been granted at the sign-in.
            max_age: how long ago the sign-in may have been (S15, RFC 9470).
            amr: one of these must be among the ways in which the subject signed in.

        Raises:
            CredentialError: what was presented is no good; Missing if nothing was.
            Insufficient: it is good, but not for this.
        """
        principal = self.principal
        if principal is None:
            raise self._refusal or Missing("this needs a signed-in subject")
        now = self._sessions.clock() // 1000
        sufficiency.judge(principal, scopes=scopes, max_age=max_age, amr=amr, now=now)
        return principal

    async def load_session(self) -> Session:
        """Fetch the session behind an access token, so that its data can be read and written.

        Raises:
            Missing: nobody is signed in.
            Revoked: the session has ended.
            StoreUnavailable
        """
        principal = self.require()
        if self.session.record is None:
            self.session.become((await self._sessions.find(principal.session_id)).record)
        return self.session

    # -- signing in and out ------------------------------------------------------------------------------------

    async def sign_in(
        self,
        subject: str,
        *,
        amr: Collection[str] = (),
        scopes: Collection[str] = (),
        persistent: bool = False,
        began_at: int | None = None,
    ) -> Session:
        """Give the browser a session of `subject`, who has just proved who they are, under a new id (S4).

        What an anonymous visit had stored comes along; what another subject had stored does not.

        Args:
            subject: who they are.
            amr: how they proved it (RFC 8176).
            scopes: what the session's access tokens may be used for.
            persistent: "remember me": the cookie survives the end of the browser.
            began_at: when the proof began, in milliseconds since the epoch: take the time before checking a
                password, and a sign-out everywhere in between is not outrun.

        Not checked: the proof itself.

        Raises:
            InvalidValue: the subject cannot be one.
            Revoked: the subject was signed out everywhere meanwhile.
            StoreUnavailable
        """
        require_subject(subject, self._policy.client_id)  # None, too: that would be a visit, not a sign-in
        began = self._sessions.clock() if began_at is None else began_at
        session = self.session
        try:
            if session.record is not None and session.subject == subject:
                await self._sessions.rotate(session, began_at=began, amr=amr, scopes=scopes, persistent=persistent)
            else:
                await self._begin_session(subject, amr, scopes, persistent=persistent, began_at=began)
        except SessionGone:
            # The session that the browser came with ended just now; that is no reason not to begin another.
            session.become(None)
            await self._begin_session(subject, amr, scopes, persistent=persistent, began_at=began)
        self._refusal = self._token = None
        self.cookies.take_back(self._policy.access_cookie, self._policy.refresh_cookie, self._policy.csrf_cookie)
        return session

    async def rotate(self) -> None:
        """Give the session a new id and secret, and the browser its new cookie; tokens of the old id are dead.

        Raises:
            Missing: there is no session.
            SessionGone: it ended meanwhile.
            StoreUnavailable
        """
        self._require_session()
        await self._sessions.rotate(self.session)

    async def issue(self, session: Session | None = None) -> Grant:
        """Return an access token and a refresh token of the current session, as its further credentials.

        Args:
            session: another one, of a client that gets tokens and no cookie: as `Sessions.create` has made it.

        Raises:
            Missing: there is no session at hand; behind an access token, `load_session` fetches it.
            InvalidValue: nobody is signed in to it.
        """
        if session is None:
            self._require_session()
        self._no_store = True
        return await self._sessions.issue(self.session if session is None else session)

    def hand_out_tokens(self, grant: Grant) -> None:
        """Send a grant's tokens in HttpOnly cookies of their own instead of the body."""
        access, refresh = (timedelta(seconds=s) if grant.lasts else None for s in (grant.expires_in, grant.lasts))
        self.cookies.send(self._policy.access_cookie, grant.access_token, max_age=access)
        self.cookies.send(self._policy.refresh_cookie, grant.refresh_token, max_age=refresh)
        self._no_store = True

    async def refresh(self, text: str | None = None) -> Grant:
        """Spend a refresh token, and return its successor with a new access token.

        What came in the refresh cookie goes back in cookies; the new tokens count from the next request on. If it is
        refused, the cookies are left alone: another tab may have been given newer ones meanwhile.

        Args:
            text: the token that the client sent; None takes the refresh cookie.

        Raises:
            Missing: there is none.
            Malformed, BadSignature: it is not one of ours.
            Expired, Revoked: its session has ended.
            Reused: it was spent before; its session has now ended.
            StoreUnavailable
        """
        cookie = credentials.read_refresh(self.head.headers, self._policy.cookie_names) if text is None else None
        presented = cookie.decode("latin-1") if cookie is not None else text
        if presented is None:
            raise Missing("this needs a refresh token")
        try:
            grant = await self._sessions.refresh(presented)
        except CredentialError as refusal:
            refusal.oauth_error = "invalid_grant"  # RFC 6749, 5.2
            raise
        self._no_store = True
        if cookie is not None:
            self.hand_out_tokens(grant)
        return grant

    async def sign_out(self, *, refresh_token: str | None = None) -> bool:
        """End the session that the request acts for, by whichever credential, and take its cookies back.

        Says whether there was one: of two who sign out at once, both may be told so. A refused credential has nothing
        to end, but its cookie is taken back. Then `refresh_token`, or else the refresh cookie, says which session it
        is, spent or not.

        Raises:
            StoreUnavailable: it may not be durable; this process refuses the session nevertheless.
        """
        lived = self.session.record is not None
        here = self.session if lived else self._refreshable(refresh_token)
        ending = self._token.session_id if self._token else here
        ended = ending is not None and await self._sessions.revoke(ending)
        self._leave()
        return ended or lived  # another thread or process, which has heard of this, may be the one that removes it

    async def sign_out_everywhere(self) -> int:
        """End every session of the principal's subject, this one included, and say how many.

        Raises:
            CredentialError: nobody is signed in.
            StoreUnavailable: it may not be durable; this process refuses them nevertheless.
        """
        ended = await self._sessions.revoke_all(self.require().subject)
        self._leave()
        return ended

    async def sign_out_others(self) -> int:
        """End every session of the principal's subject but this one, and say how many.

        Raises:
            CredentialError: nobody is signed in.
            StoreUnavailable: it may not be durable; this process refuses them nevertheless.
        """
        principal, reason = self.require(), "the other devices were signed out"
        keep = self.session if self.session.record is not None else principal.session_id
        return await self._sessions.revoke_all(principal.subject, keep=keep, reason=reason)

    # -- the response ------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Save what the handler changed, before the response leaves; may be called again for a late change.

        An untouched session writes nothing, except that its use is written down now and then (S21). Where the
        session ended meanwhile its edits are dropped: dead is final, and the response still goes out.

        Raises:
            InvalidValue: the data cannot be stored.
            StoreUnavailable
        """
        session = self.session
        if session.is_edited():
            await self._save(session)
        elif self._sessions.touch_is_due(session):
            await self._touch(session)

    def dress(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return a response's headers with ours among them: one Set-Cookie a name, Vary, Cache-Control."""
        session = self.session
        if session.cookie or session.note:
            self._no_store |= session_cookies.send(self.cookies, session, self._policy, self._clock())
        self._dressed = True
        dressed = list(headers) if self._jar is None else self._with_cookies(self._jar, headers)
        if self._no_store:
            dressed = [header for header in dressed if header[0].lower() != b"cache-control"]
            dressed.append((b"cache-control", b"no-store"))
        if session.accessed or self._looked:
            dressed.append((b"vary", b"Cookie, Authorization"))
        return dressed

    # -- inside ------------------------------------------------------------------------------------------------

    async def _verify(self, token: AccessToken) -> None:
        self._ambient = token.ambient
        try:
            self._token = await self._verifier.verify_or_find(token.text, self._sessions.find)
        except CredentialError as refusal:
            self._refusal = refusal
            return
        self._token_text = token.text
        self.session = Session.detached()

    async def _begin_session(
        self, subject: str, amr: Collection[str], scopes: Collection[str], *, persistent: bool, began_at: int
    ) -> None:
        old = self.session
        edits = old.pending()
        carried = edits.apply(old.record.data if old.record else {}) if old.subject is None else {}
        device = self.head.device
        new = await self._sessions.create(
            subject, amr=amr, scopes=scopes, persistent=persistent, began_at=began_at, device=device, data=carried
        )
        if old.record is not None:
            await self._sessions.supersede(old)
        elif self._token is not None and self._ambient:
            await self._sessions.revoke(self._token.session_id, reason="replaced by a sign-in")
        if old.subject is not None:
            old.become(None)  # what the handler has read of another subject's is neither seen nor saved again
        old.become(new.record, new.cookie, saved=edits)

    def _require_session(self) -> None:
        if self.session.record is None:
            hint = "fetch the access token's, `await exchange.load_session()`" if self._token else "nobody is signed in"
            raise self._refusal or Missing(f"there is no session at hand: {hint}")

    def _leave(self) -> None:
        self.session.become(None)
        self._token = None
        session_cookies.take_back(self.cookies, self._policy)
        self._no_store = True

    def _refreshable(self, text: str | bytes | None) -> str | None:
        """Return a refresh token's session: an access token that has expired does not keep it alive."""
        try:
            text = text or credentials.read_refresh(self.head.headers, self._policy.cookie_names)
            return None if text is None else RefreshToken.parse(text, self._sessions.keyring.derive("refresh")).sid
        except (CredentialError, ConfigurationError):
            return None

    async def _save(self, session: Session) -> None:
        record = session.record
        late = self._dressed and (record is None or isinstance(self._sessions, SealedSessions))
        try:
            if record is not None and not late:
                await self._sessions.save(session)
            elif isinstance(self._refusal, Superseded):
                _log.info("edits dropped: the browser has been given another session cookie since")
            elif late:
                _log.warning("edits dropped: the cookie that they need would come after the response")
            elif data := (edits := session.pending()).apply({}):
                made = await self._sessions.create(device=self.head.device, data=data)
                session.become(made.record, made.cookie, saved=edits)
        except SessionGone as gone:
            _log.info("edits of session %s dropped: %s", record.id if record else None, gone)
            if session.record is record:  # else its handler has signed in anew meanwhile
                session.become(None)

    async def _touch(self, session: Session) -> None:
        try:
            await self._sessions.touch(session)
        except StoreUnavailable:
            # The request was served on a fresh load; that its use could not be noted is no reason to fail it.
            _log.warning("use of session %s not noted: the store is unavailable", session.id)
