"""The one-time link that makes the first account, an administrator.

It is printed where a server is started, and only there: whoever can read that terminal owns the server. Only its hash
is kept, among the documents, so that every server of one store knows the links of all. It is good for as long as the
server that has printed it runs, and as there is no account: `renew` says so every minute.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from coatcheck.clock import Clock, system_clock
from coatcheck.documents import Documents, Values
from coatcheck.errors import CoatcheckError, Conflict
from coatcheck.server.accounts import Accounts, checked_name
from coatcheck.server.document import pack, unpack
from coatcheck.server.passwords import Passwords, judge_new
from coatcheck.server.proof import Proof

_LIFETIME: Final = 10 * 60 * 1000  # milliseconds; several times as long as it takes until it is renewed


class Gone(CoatcheckError):
    """This is not, or no longer, the set-up link."""

    status = 410
    code = "gone"
    oauth_error = "invalid_request"

    def __init__(self) -> None:
        super().__init__("this set-up link is not valid, or was used")


class SetUp:
    """Makes set-up links while there is no account, and knows those of the other servers."""

    def __init__(
        self, documents: Documents, accounts: Accounts, passwords: Passwords, *, clock: Clock = system_clock
    ) -> None:
        self._documents = documents
        self._accounts = accounts
        self._passwords = passwords
        self._clock = clock
        self._ours: str | None = None

    async def issue(self) -> str | None:
        """Return the token of a new link, which takes the place of our last one; None if there is an account.

        Raises:
            StoreUnavailable
        """
        if await self._accounts.exist():
            return None
        token = secrets.token_urlsafe(32)
        last, self._ours = self._ours, _key(token)
        await self._write(self._ours, {} if last is None else {last: None})
        return token

    async def renew(self) -> None:
        """Let our link stay good for a while, if there is still no account.

        Raises:
            StoreUnavailable
        """
        if self._ours is None:
            return
        if await self._accounts.exist():
            self._ours = None
        else:
            await self._write(self._ours, {})

    async def check(self, token: str) -> None:
        """Return if the link is good.

        Raises:
            Gone: it is not.
            StoreUnavailable
        """
        [stored] = await self._documents.get(_key(token))
        until = 0 if stored is None else unpack(stored, int, "a set-up link")
        if until <= self._clock() or await self._accounts.exist():
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
        return Proof(account, began_at)

    async def _write(self, key: str, more: Values) -> None:
        until = self._clock() + _LIFETIME
        await self._documents.note({}, {key: pack(until), **more}, expires_at=until)


def _key(token: str) -> str:
    return "set-up/" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
