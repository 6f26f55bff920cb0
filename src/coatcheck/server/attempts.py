"""Attempts: how often passwords may be tried, per account and per address; and Alarm, which counts guessed cookies.

An attempt counts from the moment it begins, so that many at once cannot slip through together; a success takes it
back. Names that nobody has count like the others. The counters are in the database: a restart forgets nothing (only a
power cut may), and several processes count together.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import sqlite3
from typing import Final

import msgspec

from coatcheck.clock import Clock, system_clock
from coatcheck.errors import BadSignature, CoatcheckError, CredentialError, Malformed, Revoked, Superseded
from coatcheck.server.accounts import fold
from coatcheck.server.database import Database

WINDOW: Final = 15 * 60 * 1000  # milliseconds
PER_ACCOUNT: Final = 10
PER_ADDRESS: Final = 50
ALARM_AT: Final = 200
_MAX_ADDRESSES = 10_000

_log = logging.getLogger("coatcheck.server")


class TooMany(CoatcheckError):
    """Too many sign-in attempts; `retry_after` is in seconds, at least 1."""

    status = 429
    code = "too_many_attempts"
    oauth_error = "temporarily_unavailable"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Attempt(msgspec.Struct, frozen=True):
    """An attempt that has begun."""

    id: int
    account: bytes


class Attempts:
    """Counts the sign-in attempts of the last quarter of an hour. All methods may raise StoreUnavailable.

    Args:
        database: where they are kept.
        key: secret octets. Names are kept as MACs under it: people type passwords into the wrong field (S17).
        clock: milliseconds since the epoch.
    """

    def __init__(self, database: Database, key: bytes, *, clock: Clock = system_clock) -> None:
        self._database = database
        self._key = key
        self._clock = clock

    async def begin(self, name: str, address: str) -> Attempt:
        """Count an attempt to sign in.

        Args:
            name: as it was typed.
            address: of the client; "" counts as an address of its own.

        Raises:
            TooMany: name or address have had theirs; it is not counted then.
        """
        now, source = self._clock(), network(address)
        account = hmac.digest(self._key, fold(name).encode("utf-8", "surrogatepass"), "sha256")

        def work(connection: sqlite3.Connection) -> Attempt:
            # Those from the future were noted before the clock was set back: they would lock out until it is there.
            connection.execute("DELETE FROM server_attempts WHERE at <= ? OR at > ?", (now - WINDOW, now + WINDOW))
            for column, value, most, words in (
                ("account", account, PER_ACCOUNT, "for this account"),
                ("address", source, PER_ADDRESS, "from this address"),
            ):
                wait = _wait(connection, column, value, most, now)
                if wait:
                    raise TooMany(f"more than {most} attempts to sign in {words} in 15 minutes", wait)
            values = (now, account, source)
            cursor = connection.execute("INSERT INTO server_attempts (at, account, address) VALUES (?, ?, ?)", values)
            return Attempt(cursor.lastrowid or 0, account)

        return await self._database.note(work)

    async def succeeded(self, attempt: Attempt) -> None:
        """Take the attempt back, and forget the account's failures; those of the address still count."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM server_attempts WHERE id = ?", (attempt.id,))
            connection.execute("UPDATE server_attempts SET account = NULL WHERE account = ?", (attempt.account,))

        await self._database.note(work)

    async def undo(self, attempt: Attempt) -> None:
        """Take the attempt back: no password was checked."""
        statement = "DELETE FROM server_attempts WHERE id = ?"
        await self._database.note(lambda connection: connection.execute(statement, (attempt.id,)).rowcount)


class Alarm:
    """Raises an alarm in the log, once a quarter of an hour, when an address presents many dead credentials (S23).

    Whoever guesses needs about 2^384 tries, so nothing is refused for it: behind one address there may be many people
    whose sessions have ended. The counters are in memory, for ten thousand addresses at most (P9).
    """

    def __init__(self, *, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, int]] = {}

    def note(self, refusal: CredentialError | None, address: str) -> None:
        """Count a refused credential; what has expired, or came late with the right secret, is no guess."""
        if isinstance(refusal, Superseded) or not isinstance(refusal, Revoked | BadSignature | Malformed):
            return
        now, source = self._clock(), network(address)
        since, count = self._seen.pop(source, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        # Popped and put back: the oldest entry is the one that was quiet for longest.
        self._seen[source] = (since, count + 1)
        if len(self._seen) > _MAX_ADDRESSES:
            self._seen.pop(next(iter(self._seen)))
        if count + 1 == ALARM_AT:
            _log.warning("alarm: %d refused credentials from %s in 15 minutes", ALARM_AT, source)


def network(address: str) -> str:
    """Return what an address counts as: an IPv6 host has at least 2^64 of them, so its /64 counts."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _wait(connection: sqlite3.Connection, column: str, value: bytes | str, most: int, now: int) -> int:
    """Return in how many seconds the next attempt may begin, or 0 if it may now."""
    # The attempt that is `most` places back must have left the window.
    query = f"SELECT at FROM server_attempts WHERE {column} = ? ORDER BY at DESC LIMIT 1 OFFSET ?"  # noqa: S608
    row = connection.execute(query, (value, most - 1)).fetchone()
    return 0 if row is None else max(1, -((row[0] + WINDOW - now) // -1000))
