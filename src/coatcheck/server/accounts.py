"""Accounts: who may sign in. A name, a password's hash, and whether the account is disabled.

`version` counts what ends every proof under way: a new password, and being disabled. A sign-in that was proved
against an older version does not stand (`coatcheck.server.proof`).
"""

from __future__ import annotations

import builtins
import secrets
import sqlite3
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from coatcheck.clock import Clock, system_clock
from coatcheck.errors import Conflict, InvalidValue
from coatcheck.server.database import Database

MAX_NAME: Final = 64
# Normal form C has at least a quarter of what it was made of: what is longer than this is too long afterwards as well.
# Normalising takes time that grows with the square of the length: 60 000 octets of accents would hold up the loop.
_MOST_TO_NORMALISE = 4 * MAX_NAME + 1

_BY_ID = "SELECT * FROM server_accounts WHERE id = ?"
_BY_NAME = "SELECT * FROM server_accounts WHERE folded = ?"
_LIST = "SELECT * FROM server_accounts ORDER BY folded"
_LIST_DISABLED = "SELECT * FROM server_accounts WHERE disabled = 1"
_DISABLE = "UPDATE server_accounts SET disabled = 1, version = version + 1 WHERE folded = ?"
_ENABLE = "UPDATE server_accounts SET disabled = 0 WHERE folded = ?"
_CHANGE = """
    UPDATE server_accounts SET password_hash = ?, version = version + 1 WHERE id = ? AND version = ? AND disabled = 0
"""
_BEGIN_ENDING = "INSERT OR REPLACE INTO server_unfinished VALUES (?, ?)"
_END_ENDING = "DELETE FROM server_unfinished WHERE account = ?"
_LIST_UNFINISHED = "SELECT account FROM server_unfinished WHERE at <= ?"


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


class Accounts:
    """The accounts in the server's database. All methods may raise StoreUnavailable."""

    def __init__(self, database: Database, *, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, name: str, password_hash: str, *, admin: bool = False) -> Account:
        """Make an account.

        Raises:
            InvalidValue: the name cannot be one.
            Conflict: it is taken.
        """
        return await self._add(name, password_hash, admin=admin, only_first=False)

    async def add_first(self, name: str, password_hash: str) -> Account:
        """Make the first account, an administrator, in one step with making sure that it is the first.

        Raises:
            InvalidValue: the name cannot be one.
            Conflict: there is an account already.
        """
        return await self._add(name, password_hash, admin=True, only_first=True)

    async def find(self, name: str) -> Account | None:
        """Return the account with this name, in whatever case it is typed, or None."""
        folded = fold(name)
        return await self._database.read(lambda connection: _one(connection, _BY_NAME, (folded,)))

    async def get(self, id: str) -> Account | None:
        """Return the account with this id, or None."""
        return await self._database.read(lambda connection: _one(connection, _BY_ID, (id,)))

    async def list(self) -> builtins.list[Account]:
        """Return all accounts, by name."""
        return await self._database.read(lambda connection: _all(connection, _LIST))

    async def disabled(self) -> builtins.list[Account]:
        """Return the accounts that may not sign in."""
        return await self._database.read(lambda connection: _all(connection, _LIST_DISABLED))

    async def exist(self) -> bool:
        """Say whether there is any account."""
        return await self._database.read(_any)

    async def set_password(self, account: Account, password_hash: str) -> Account:
        """Give an account a new password, once: whoever else held the old one loses the race.

        It is `unfinished` from then on: end its sessions, then say so with `finished`.

        Args:
            account: as it was when the old password was proved.
            password_hash: of the new one.

        Raises:
            Conflict: password or state have changed since.
        """
        now = self._clock()

        def work(connection: sqlite3.Connection) -> Account | None:
            if not connection.execute(_CHANGE, (password_hash, account.id, account.version)).rowcount:
                return None
            connection.execute(_BEGIN_ENDING, (account.id, now))
            return _one(connection, _BY_ID, (account.id,))

        changed = await self._database.write(work)
        if changed is None:
            raise Conflict("the account has changed meanwhile")
        return changed

    async def finished(self, id: str) -> None:
        """Note that the sessions of an account with a new password have been ended."""
        await self._database.note(lambda connection: connection.execute(_END_ENDING, (id,)).rowcount)

    async def unfinished(self, before: int) -> builtins.list[str]:
        """Return the accounts with a new password since then whose sessions are not ended: a process was killed."""
        return await self._database.read(
            lambda connection: [id for (id,) in connection.execute(_LIST_UNFINISHED, (before,))]
        )

    async def rehash(self, account: Account, password_hash: str) -> None:
        """Store the same password's hash with new parameters, unless the stored one has changed meanwhile."""
        statement = "UPDATE server_accounts SET password_hash = ? WHERE id = ? AND password_hash = ?"
        values = (password_hash, account.id, account.password_hash)
        await self._database.write(lambda connection: connection.execute(statement, values).rowcount)

    async def disable(self, name: str) -> Account | None:
        """Let an account sign in no more, and return it; None if there is none.

        Its sessions are not touched: end them *afterwards*, with `Sessions.revoke_all`, never before.
        """
        # The version moves even if it was disabled already: saying it twice must not be weaker.
        return await self._change(name, _DISABLE)

    async def enable(self, name: str) -> Account | None:
        """Let an account sign in again, and return it; None if there is none."""
        return await self._change(name, _ENABLE)

    async def _add(self, name: str, password_hash: str, *, admin: bool, only_first: bool) -> Account:
        account = Account(
            id="acct_" + secrets.token_urlsafe(16),
            name=checked_name(name),
            password_hash=password_hash,
            admin=admin,
            disabled=False,
            created_at=self._clock(),
            version=1,
        )

        def work(connection: sqlite3.Connection) -> bool:
            if only_first and _any(connection):
                return False
            if _one(connection, _BY_NAME, (fold(account.name),)) is not None:
                return False
            row = (account.id, account.name, fold(account.name), password_hash, admin, account.created_at)
            connection.execute("INSERT INTO server_accounts VALUES (?, ?, ?, ?, ?, 0, ?, 1)", row)
            return True

        if not await self._database.write(work):
            raise Conflict("there is an account already" if only_first else "this name is taken")
        return account

    async def _change(self, name: str, statement: str) -> Account | None:
        folded = fold(name)

        def work(connection: sqlite3.Connection) -> Account | None:
            connection.execute(statement, (folded,))
            return _one(connection, _BY_NAME, (folded,))

        return await self._database.write(work)


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


def _one(connection: sqlite3.Connection, query: str, values: tuple[str, ...]) -> Account | None:
    row = connection.execute(query, values).fetchone()
    return None if row is None else _account(row)


def _all(connection: sqlite3.Connection, query: str) -> list[Account]:
    rows = connection.execute(query).fetchall()
    return [_account(row) for row in rows]


def _any(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM server_accounts LIMIT 1").fetchone() is not None


def _account(row: tuple[str, str, str, str, int, int, int, int]) -> Account:
    id, name, _, password_hash, admin, disabled, created_at, version = row
    return Account(
        id=id,
        name=name,
        password_hash=password_hash,
        admin=bool(admin),
        disabled=bool(disabled),
        created_at=created_at,
        version=version,
    )
