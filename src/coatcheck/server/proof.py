"""Proving: from a name and a password to a session; pages and API go the same way.

    prove      attempts.begin -> account -> hash -> rehash if it is due -> attempts.succeeded
    sign_in    create the session -> does the proof still stand? -> hand out the cookie

Why a proof is looked at again: disabling an account, or changing its password, first changes the account and then
ends its sessions. A session that was created before the latter is ended by it; one that was created after it is
created after the former too, and finds the account changed. Either way nothing survives, whatever the clocks say (P7).
The store's cut-off (`began_at`) stops most of these earlier.

Not told to anybody: whether it is the name or the password that is wrong, or the account that is disabled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coatcheck import Coatcheck, Exchange, Grant, SealedSessions, Sessions
from coatcheck.errors import CoatcheckError, CredentialError, Revoked
from coatcheck.server.accounts import Account, Accounts
from coatcheck.server.attempts import Attempts
from coatcheck.server.passwords import Busy, Passwords, judge_new


class WrongPassword(CredentialError):
    """Name and password do not belong together, or the account is disabled; nobody is told which."""

    code = "wrong_password"
    oauth_error = "invalid_grant"

    def __init__(self) -> None:
        super().__init__("name or password is wrong")


@dataclass(frozen=True, slots=True)
class Proof:
    """Somebody has proved to be an account's owner.

    Args:
        account: as it was when they did.
        began_at: when they began to, in milliseconds since the epoch.
    """

    account: Account
    began_at: int


class Proving:
    """Everything that takes a password."""

    def __init__(self, coat: Coatcheck, accounts: Accounts, passwords: Passwords, attempts: Attempts) -> None:
        self._coat = coat
        self._accounts = accounts
        self._passwords = passwords
        self._attempts = attempts

    async def prove(self, name: str, password: str, *, address: str) -> Proof:
        """Return the proof that name and password make.

        Args:
            name: as it was typed.
            password: as it was typed.
            address: of the client, for the limit.

        Raises:
            WrongPassword
            TooMany: the account or the address have had their attempts.
            Busy: too many passwords are being checked at once; it is not counted as an attempt.
            StoreUnavailable
        """
        began_at = self._coat.clock()
        attempt = await self._attempts.begin(name, address)
        account = await self._accounts.find(name)
        try:
            right = await self._passwords.verify(password, account.password_hash if account else None)
        except Busy:
            await self._attempts.undo(attempt)
            raise
        if account is None or account.disabled or not right:
            raise WrongPassword
        await self._attempts.succeeded(attempt)
        await self._rehash(account, password)
        return Proof(account, began_at)

    async def sign_in(self, exchange: Exchange, proof: Proof, *, persistent: bool = False) -> None:
        """Give the browser a session of the proved account.

        Args:
            exchange: of the request.
            proof: from `prove`.
            persistent: "remember me".

        Raises:
            WrongPassword: the account was disabled, or its password changed, in the meantime.
            StoreUnavailable
        """
        try:
            await exchange.sign_in(proof.account.id, amr=("pwd",), persistent=persistent, began_at=proof.began_at)
        except Revoked:
            raise WrongPassword from None
        try:
            await self._confirm(proof)
        except BaseException:
            # Whatever went wrong: a session whose proof may not stand is not handed out, even if it cannot be ended.
            try:
                await exchange.sign_out()
            finally:
                exchange.session.become(None)
            raise

    async def grant(self, exchange: Exchange, proof: Proof, *, persistent: bool = False) -> Grant:
        """Make a session for a client that keeps no cookies, and return its tokens.

        Raises:
            WrongPassword: the account was disabled, or its password changed, in the meantime.
            StoreUnavailable
        """
        sessions = self._coat.sessions
        try:
            session = await sessions.create(
                proof.account.id,
                amr=("pwd",),
                persistent=persistent,
                began_at=proof.began_at,
                device=exchange.head.device,
            )
        except Revoked:
            raise WrongPassword from None
        try:
            await self._confirm(proof)
        except BaseException:
            if session.id is not None:
                await sessions.revoke(session.id, reason="the proof did not stand")
            raise
        return await sessions.issue(session)

    async def change_password(self, exchange: Exchange, proof: Proof, password: str) -> int:
        """Give the proved account a new password, and end its other sessions; say how many those were.

        The order is what makes it final: first the password changes, then the sessions end, so that a sign-in with
        the old password which is under way cannot slip in between. This session gets a new id (S4): whoever has
        copied its cookie is out too.

        Args:
            exchange: of the request, whose principal is the account.
            proof: that the old password was known.
            password: the new one.

        Raises:
            InvalidValue: the new password will not do; in words for people.
            Conflict: somebody else has changed the password first.
            CredentialError: the request's principal is not the proved account.
            Busy, StoreUnavailable
        """
        principal, account = exchange.require(), proof.account
        if principal.subject != account.id:
            raise WrongPassword
        judge_new(password, account.name)
        hashed = await self._passwords.hash(password)
        changed = await self._accounts.set_password(account, hashed)
        ended = await self._coat.sessions.revoke_all(
            account.id, keep=principal.session_id, reason="the password was changed"
        )
        await self._accounts.finished(changed)
        if exchange.head.value(b"authorization") is None:
            # Behind an access cookie the session is fetched first: it gets a new id like any other.
            await exchange.load_session()
        record = exchange.session.record
        if record is not None:
            fresh = replace(proof, account=changed, began_at=self._coat.clock())
            await self.sign_in(exchange, fresh, persistent=record.persistent)
            if exchange.head.presents(self._coat.policy.refresh_cookie.name):
                exchange.hand_out_tokens(await exchange.issue())
        return ended

    async def may_refresh(self, grant: Grant) -> None:
        """Refuse a grant that was just made if its account may not sign in any more.

        Raises:
            CredentialError: it may not; the session has been ended.
            StoreUnavailable
        """
        principal = self._coat.verifier.verify(grant.access_token)
        account = await self._accounts.get(principal.subject)
        if account is None or account.disabled:
            await self._coat.sessions.revoke(principal.session_id, reason="the account is disabled")
            raise Revoked("the session has ended")

    async def _confirm(self, proof: Proof) -> None:
        now = await self._accounts.get(proof.account.id)
        if now is None or now.disabled or now.version != proof.account.version:
            raise WrongPassword

    async def _rehash(self, account: Account, password: str) -> None:
        if not self._passwords.needs_rehash(account.password_hash):
            return
        try:
            await self._accounts.rehash(account, await self._passwords.hash(password))
        except CoatcheckError:
            # It is due at the next sign-in as well.
            return


async def disable(name: str, accounts: Accounts, sessions: Sessions | SealedSessions) -> tuple[Account, int] | None:
    """Disable an account and then end all its sessions; return it and their number, or None for an unknown name.

    The order is what makes it final: see above.

    Raises:
        StoreUnavailable: it may not be complete; try again.
    """
    account = await accounts.disable(name)
    if account is None:
        return None
    ended = await sessions.revoke_all(account.id, reason="the account was disabled")
    await accounts.finished(account)
    return account, ended
