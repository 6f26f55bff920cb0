"""The one-time link that makes the first account, an administrator.

It is printed where the server is started, and only there: whoever can read that terminal owns the server. Only its
hash is kept, in memory: a restart makes a new one, as long as there is no account.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from coatcheck.clock import Clock, system_clock
from coatcheck.errors import CoatcheckError, Conflict
from coatcheck.server.accounts import Accounts, checked_name
from coatcheck.server.passwords import Passwords, judge_new
from coatcheck.server.proof import Proof


class Gone(CoatcheckError):
    """This is not, or no longer, the set-up link."""

    status = 410
    code = "gone"
    oauth_error = "invalid_request"

    def __init__(self) -> None:
        super().__init__("this set-up link is not valid, or was used")


class SetUp:
    """Holds the set-up link's hash while there is no account."""

    def __init__(self, accounts: Accounts, passwords: Passwords, *, clock: Clock = system_clock) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._clock = clock
        self._digest: bytes | None = None

    async def issue(self) -> str | None:
        """Return the token of a new link, which takes the place of any other; None if there is an account.

        Raises:
            StoreUnavailable
        """
        if await self._accounts.exist():
            return None
        token = secrets.token_urlsafe(32)
        self._digest = _digest(token)
        return token

    async def check(self, token: str) -> None:
        """Return if the link is good.

        Raises:
            Gone: it is not.
            StoreUnavailable
        """
        if self._digest is None or not hmac.compare_digest(self._digest, _digest(token)):
            raise Gone
        if await self._accounts.exist():
            self._digest = None
            raise Gone

    async def use(self, token: str, name: str, password: str) -> Proof:
        """Make the first account, and return the proof to sign in with.

        Raises:
            Gone: the link is not good, or somebody was faster.
            InvalidValue: name or password will not do; in words for people. The link stays good.
            Busy, StoreUnavailable
        """
        await self.check(token)
        began_at = self._clock()
        judge_new(password, checked_name(name))
        hashed = await self._passwords.hash(password)
        try:
            account = await self._accounts.add_first(name, hashed)
        except Conflict:
            raise Gone from None
        self._digest = None
        return Proof(account, began_at)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
