"""SQLiteFeed: revocations through an SQLite file, for the processes of one machine.

A position only ever grows and is given inside of the writing transaction, so positions appear in their order:
who has seen one has seen all before it. Followers look for what is newer every few milliseconds, a read of a few
microseconds; nothing is pushed, so nothing can be lost on the way.

    coatcheck_revocation     the entries
    coatcheck_publication    what time each of the last calls of `publish` has told, by whichever clock

There is no server whose clock could say that an entry is of no use any more, and one that is far ahead would drop what
everybody else still needs (P7). So the last calls must all agree that it is: the time is the earliest that they told.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, Final

import msgspec

from coatcheck.core.revocation import Revoked
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.run import offload, settle
from coatcheck.stores.group_commit import Weight
from coatcheck.stores.sqlite_file import Migration, SQLiteFile

_HEARTBEAT: Final = 0.5  # seconds
_WITNESSES: Final = 128
_PRUNE_EVERY: Final = 128

_MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        # AUTOINCREMENT: a number is never given again, however much was pruned.
        """
        CREATE TABLE coatcheck_revocation (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            until INTEGER NOT NULL,
            session_id TEXT,
            subject TEXT,
            before INTEGER NOT NULL
        ) STRICT
        """,
    ),
    ("CREATE TABLE coatcheck_publication (number INTEGER PRIMARY KEY, told INTEGER NOT NULL) STRICT",),
)
_PUBLISH: Final = "INSERT INTO coatcheck_revocation (until, session_id, subject, before) VALUES (?, ?, ?, ?)"
_FIELDS: Final = ("until", "session_id", "subject", "before")
_TELL: Final = "INSERT INTO coatcheck_publication (told) VALUES (?)"
_FORGET: Final = """
    DELETE FROM coatcheck_publication WHERE number <= (SELECT max(number) FROM coatcheck_publication) - ?
"""
_PRUNE: Final = """
    DELETE FROM coatcheck_revocation
    WHERE until <= (SELECT CASE WHEN count(*) >= ? THEN min(told) END FROM coatcheck_publication)
"""
_POSITION: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'coatcheck_revocation'"
_SNAPSHOT: Final = """
    SELECT position, until, session_id, subject, before FROM coatcheck_revocation
    WHERE position <= ? AND until > ? ORDER BY position
"""
_FOLLOW: Final = """
    SELECT position, until, session_id, subject, before FROM coatcheck_revocation
    WHERE position > ? ORDER BY position LIMIT 1000
"""


class SQLiteFeed:
    """A feed in one SQLite file.

    Args:
        path: the file; made if it is not there. It may be the one of an SQLiteStore.
        poll: how often a follower looks for news; at most half a second, which is the heartbeat.
        busy_timeout: how long another process's transaction is waited for.

    Raises:
        ConfigurationError: one of them cannot be what it should be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        poll: timedelta = timedelta(milliseconds=50),
        busy_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        if not timedelta(0) < poll <= timedelta(seconds=_HEARTBEAT):
            raise ConfigurationError("poll is more than nothing and at most half a second")
        self._poll = poll.total_seconds()
        self._file = SQLiteFile(path, busy_timeout=busy_timeout, component="feed", migrations=_MIGRATIONS)
        self._published = 0
        self._closings = 0

    async def open(self) -> None:
        """Make the file and the schema; see `Feed.open`."""
        await offload(self._file.open)

    async def close(self) -> None:
        """End the followers and the writing thread, and close the connections."""
        self._closings += 1
        await offload(self._file.close)

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        """Make revocations known to every follower, durably; see `Feed.publish`."""
        if not revoked:
            return
        rows = [(entry.until, entry.session_id, entry.subject, entry.before) for entry in revoked]
        pruning = self._published % _PRUNE_EVERY == 0
        self._published += 1

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUBLISH, rows)
            connection.execute(_TELL, (now,))
            if pruning:
                connection.execute(_FORGET, (_WITNESSES,))
                connection.execute(_PRUNE, (_WITNESSES,))

        await settle(self._file.write(work, Weight.FINAL))

    async def snapshot(self, now: int) -> Batch:
        """Return everything that is still of use; see `Feed.snapshot`."""

        def query(connection: sqlite3.Connection) -> tuple[int, tuple[Revoked, ...]]:
            position = _position(connection)
            return position, _revoked(connection.execute(_SNAPSHOT, (position, now)).fetchall())

        # In a thread: a million of them take seconds, in which the event loop has others to serve.
        position, revoked = await offload(lambda: self._file.read(query))
        return Batch(after=0, position=position, revoked=revoked)

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and a heartbeat every half second; see `Feed.follow`."""
        closings, now = self._closings, asyncio.get_running_loop().time
        spoken = float("-inf")
        while self._closings == closings:
            batch = self._after(position)
            if batch.revoked or batch.after != position or now() - spoken >= _HEARTBEAT:
                spoken = now()
                yield batch
                position = batch.position
            if not batch.revoked:
                await asyncio.sleep(self._poll)

    def _after(self, position: int) -> Batch:
        def query(connection: sqlite3.Connection) -> tuple[int, list[Any]]:
            # The position first: these are two reads, and what is published in between must be among the rows. Read
            # the other way round, a follower would pass by what it has not heard.
            reached = _position(connection)
            rows = connection.execute(_FOLLOW, (position,)).fetchall()
            return rows[-1][0] if rows else reached, rows

        newest, rows = self._file.read(query)
        # A file that never came this far is another one, restored or made anew: a gap.
        return Batch(after=min(position, newest), position=newest, revoked=_revoked(rows))


def _position(connection: sqlite3.Connection) -> int:
    found = connection.execute(_POSITION).fetchall()
    return int(found[0][0]) if found else 0


def _revoked(rows: list[Any]) -> tuple[Revoked, ...]:
    try:
        return tuple(msgspec.convert(dict(zip(_FIELDS, row[1:], strict=True)), Revoked) for row in rows)
    except msgspec.ValidationError:
        raise StoreUnavailable("store damaged: a revocation cannot be read") from None
