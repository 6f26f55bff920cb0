"""Accounts: who may sign in. A name, a password's hash, and whether the account is disabled.

`version` counts what ends every proof under way: a new password, and being disabled. A sign-in that was proved
against an older version does not stand (`coatcheck.server.proof`).

    account/<id>           the account
    name/<hash of it>      the id of the account that has the name: who commits it first has it
    any-account            is there when there is any
    disabled/<id>          is there when the account is
    unfinished/<id>        the account's sessions are to be ended: since when, and for which version of it
"""

from __future__ import annotations

import builtins
import hashlib
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from coatcheck.clock import Clock, system_clock
from coatcheck.documents import MAX_KEYS, Documents, Values
from coatcheck.errors import Conflict, InvalidValue, StoreUnavailable
from coatcheck.server.document import every, pack, unpack, until_committed

MAX_NAME: Final = 64
# Normal form C has at least a quarter of what it was made of: what is longer than this is too long afterwards as well.
# Normalising takes time that grows with the square of the length: 60 000 octets of accents would hold up the loop.
_MOST_TO_NORMALISE = 4 * MAX_NAME + 1

_ACCOUNT, _DISABLED, _UNFINISHED, _ANY = "account/", "disabled/", "unfinished/", "any-account"
_THERE: Final = b"\x01"
_NOBODY: Final = "nobody"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """An account as it is stored.

    Args:
        id: the subject of its sessions; never changes, and says nothing.
        name: what is typed at the sign-in.
        password_hash: an Argon2id hash in PHC form.
        admin: may look after other accounts.
        disabled: may not sign in.
        created_at: milliseconds since the epoch.
        version: moves when the password changes and when the account is disabled.
    """

    id: str
    name: str
    password_hash: str = field(repr=False)
    admin: bool
    disabled: bool
    created_at: int
    version: int


class _Mark(msgspec.Struct, frozen=True):
    """An account's sessions are to be ended: milliseconds since the epoch, and the version that says so."""

    at: int
    version: int


class Accounts:
    """The accounts among the server's documents. All methods may raise StoreUnavailable."""

    def __init__(self, documents: Documents, *, clock: Clock = system_clock) -> None:
        self._documents = documents
        self._clock = clock

    async def add(self, name: str, password_hash: str, *, admin: bool = False) -> Account:
        """Make an account.

        Raises:
            InvalidValue: the name cannot be one.
            Conflict: it is taken.
        """
        account = self._new(name, password_hash, admin=admin)
        if not await self._enter(account, {}):
            raise Conflict("this name is taken")
        return account

    async def add_first(self, name: str, password_hash: str) -> Account:
        """Make the first account, an administrator, in one step with making sure that it is the first.

        Raises:
            InvalidValue: the name cannot be one.
            Conflict: there is an account already.
        """
        account = self._new(name, password_hash, admin=True)
        if not await self._enter(account, {_ANY: None}):
            raise Conflict("there is an account already")
        return account

    async def find(self, name: str) -> Account | None:
        """Return the account with this name, in whatever case it is typed, or None."""
        [id] = await self._documents.get(_key_of_name(name))
        # Nobody's account is asked for as well: that a name is unknown must not show in the time it takes.
        return await self.get(_NOBODY if id is None else id.decode("ascii"))

    async def get(self, id: str) -> Account | None:
        """Return the account with this id, or None."""
        return (await self._read(id))[1]

    async def list(self) -> builtins.list[Account]:
        """Return all accounts, by name."""
        found = [_account(id, stored) async for id, stored in every(self._documents, _ACCOUNT)]
        return sorted(found, key=lambda account: fold(account.name))

    async def disabled(self) -> builtins.list[Account]:
        """Return the accounts that may not sign in."""
        found = await self._get_all([id async for id, _ in every(self._documents, _DISABLED)])
        return [account for account in found if account.disabled]

    async def exist(self) -> bool:
        """Say whether there is any account."""
        [found] = await self._documents.get(_ANY)
        return found is not None

    async def set_password(self, account: Account, password_hash: str) -> Account:
        """Give an account a new password, once: whoever else held the old one loses the race.

        It is `unfinished` from then on: end its sessions, then say so with `finished`.

        Args:
            account: as it was when the old password was proved.
            password_hash: of the new one.

        Raises:
            Conflict: password or state have changed since.
        """

        async def step() -> Account | None:
            stored, now = await self._read(account.id)
            if now is None or now.disabled or now.version != account.version:
                raise Conflict("the account has changed meanwhile")
            changed = replace(now, password_hash=password_hash, version=now.version + 1)
            return changed if await self._replace(stored, changed, self._mark(changed)) else None

        return await until_committed(step)

    async def finished(self, account: Account) -> None:
        """Note that the sessions of an unfinished account, as it is handed in, have been ended."""
        key = _UNFINISHED + account.id
        [stored] = await self._documents.get(key)
        # A later change is somebody else's to finish. Where this commit loses, it is to one, or to who was faster.
        if stored is not None and _mark(stored).version <= account.version:
            await self._documents.note({key: stored}, {key: None})

    async def unfinished(self, before: int) -> builtins.list[Account]:
        """Return the accounts whose sessions should have been ended by then, and are not: a process was killed."""
        marks = [(id, _mark(stored)) async for id, stored in every(self._documents, _UNFINISHED)]
        return await self._get_all([id for id, mark in marks if mark.at <= before])

    async def rehash(self, account: Account, password_hash: str) -> None:
        """Store the same password's hash with new parameters, unless the stored one has changed meanwhile."""
        stored, now = await self._read(account.id)
        if now is not None and now.password_hash == account.password_hash:
            # Whoever loses leaves it as it is: it is due at the next sign-in as well.
            await self._replace(stored, replace(now, password_hash=password_hash), {})

    async def disable(self, name: str) -> Account | None:
        """Let an account sign in no more, and return it; None if there is none.

        Its sessions are not touched: end them *afterwards*, with `Sessions.revoke_all`, never before. It is
        `unfinished` until then.
        """

        def edit(now: Account) -> tuple[Account, Values]:
            # The version moves even if it was disabled already: saying it twice must not be weaker.
            changed = replace(now, disabled=True, version=now.version + 1)
            return changed, {_DISABLED + now.id: _THERE, **self._mark(changed)}

        return await self._change(name, edit)

    async def enable(self, name: str) -> Account | None:
        """Let an account sign in again, and return it; None if there is none."""
        return await self._change(name, lambda now: (replace(now, disabled=False), {_DISABLED + now.id: None}))

    def _new(self, name: str, password_hash: str, *, admin: bool) -> Account:
        return Account(
            id="acct_" + secrets.token_urlsafe(16),
            name=checked_name(name),
            password_hash=password_hash,
            admin=admin,
            disabled=False,
            created_at=self._clock(),
            version=1,
        )

    async def _enter(self, account: Account, expected: Values) -> bool:
        key, name = _ACCOUNT + account.id, _key_of_name(account.name)
        writes = {key: pack(account), name: account.id.encode("ascii"), _ANY: _THERE}
        return await self._documents.commit({key: None, name: None, **expected}, writes)

    async def _change(self, name: str, edit: Callable[[Account], tuple[Account, Values]]) -> Account | None:
        account = await self.find(name)
        if account is None:
            return None

        async def step() -> Account | None:
            stored, now = await self._read(account.id)
            if now is None:
                raise StoreUnavailable("store damaged: an account is gone")
            changed, more = edit(now)
            return changed if await self._replace(stored, changed, more) else None

        return await until_committed(step)

    async def _read(self, id: str) -> tuple[bytes | None, Account | None]:
        """Return an account as it is stored, to be replaced, and as it is; or nothing."""
        try:
            [stored] = await self._documents.get(_ACCOUNT + id)
        except InvalidValue:
            return None, None  # not an id that we would give
        return stored, None if stored is None else _account(id, stored)

    async def _get_all(self, ids: Sequence[str]) -> builtins.list[Account]:
        found: builtins.list[Account] = []
        for start in range(0, len(ids), MAX_KEYS):
            some = ids[start : start + MAX_KEYS]
            stored = await self._documents.get(*(_ACCOUNT + id for id in some))
            found += [_account(id, one) for id, one in zip(some, stored, strict=True) if one is not None]
        return found

    async def _replace(self, stored: bytes | None, account: Account, more: Values) -> bool:
        key = _ACCOUNT + account.id
        return await self._documents.commit({key: stored}, {key: pack(account), **more})

    def _mark(self, account: Account) -> Values:
        return {_UNFINISHED + account.id: pack(_Mark(self._clock(), account.version))}


def fold(name: str) -> str:
    """Return what names are compared by: two that people would take for the same are the same."""
    return unicodedata.normalize("NFC", _normal(name).casefold())


def checked_name(name: str) -> str:
    """Return the name as it is stored: in Unicode's normal form C.

    Raises:
        InvalidValue: it is empty or too long, begins or ends with a space, or has characters that cannot be seen.
    """
    normal = _normal(name)
    if not 0 < len(normal) <= MAX_NAME:
        raise InvalidValue(f"a name has 1 to {MAX_NAME} characters")
    if not normal.isprintable() or normal != normal.strip():
        raise InvalidValue("a name has printable characters only, and no space at its ends")
    return normal


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name[:_MOST_TO_NORMALISE])


def _key_of_name(name: str) -> str:
    # Its hash: 64 characters may have more octets than a key, and what is typed may be no text at all.
    return "name/" + hashlib.sha256(fold(name).encode("utf-8", "surrogatepass")).hexdigest()


def _account(id: str, stored: bytes) -> Account:
    account = unpack(stored, Account, "an account")
    if account.id != id:
        raise StoreUnavailable("store damaged: an account answers to another's id")
    return account


def _mark(stored: bytes) -> _Mark:
    return unpack(stored, _Mark, "a note about an account")
