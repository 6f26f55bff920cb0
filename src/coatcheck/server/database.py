"""Database: the SQLite file of accounts and sign-in attempts; one connection, used off the event loop.

The same file may hold sessions and revocations: each component has tables of its own, ours begin with `server_`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import offload

T = TypeVar("T")

_VERSION: Final = 1
# Waiting is bounded (P9): for another process's write, and for our own connection.
_BUSY_SECONDS: Final = 1.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS server_schema (version INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS server_accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    admin INTEGER NOT NULL,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS server_unfinished (
    account TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS server_attempts (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    account BLOB,
    address TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS server_attempts_at ON server_attempts (at);
CREATE INDEX IF NOT EXISTS server_attempts_account ON server_attempts (account, at);
CREATE INDEX IF NOT EXISTS server_attempts_address ON server_attempts (address, at);
"""


class Database:
    """A connection to the file. What `write` has acknowledged survives a power cut.

    Args:
        path: of the file; made, readable by nobody else, when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Connect and make the tables; calling it again does nothing.

        Raises:
            StoreUnavailable: the file cannot be opened.
            ConfigurationError: it was made by a newer version.
        """
        if self._connection is None:
            self._connection = await offload(self._connect)

    async def close(self) -> None:
        """Disconnect; calling it again does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` finds.

        Raises:
            StoreUnavailable
        """
        return await offload(lambda: self._do(work, "BEGIN"))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction, durably: all of it, or, if it raises, nothing.

        Raises:
            StoreUnavailable
        """
        return await offload(lambda: self._do(work, "BEGIN IMMEDIATE"))

    async def note(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction that survives `kill -9`, and perhaps not a power cut; it waits for no disk.

        Raises:
            StoreUnavailable
        """
        return await offload(lambda: self._do(work, "BEGIN IMMEDIATE", synchronous="NORMAL"))

    def _connect(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error):
            raise StoreUnavailable(f"the database {self.path} cannot be opened") from None
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            self._migrate(connection)
        except sqlite3.Error:
            connection.close()
            raise StoreUnavailable(f"the database {self.path} cannot be opened") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
        found = connection.execute("SELECT max(version) FROM server_schema").fetchone()[0]
        if found is None:
            connection.execute("INSERT INTO server_schema VALUES (?)", (_VERSION,))
        elif found > _VERSION:
            raise ConfigurationError(f"the database {self.path} was made by a newer version")

    def _do(self, work: Callable[[sqlite3.Connection], T], begin: str, *, synchronous: str = "FULL") -> T:
        if not self._lock.acquire(timeout=2 * _BUSY_SECONDS):
            raise StoreUnavailable("the accounts' database is busy")
        try:
            if self._connection is None:
                raise StoreUnavailable("the accounts' database is not open")
            # Every commit says anew how durable it is, so that none inherits another's word.
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            return _in_transaction(self._connection, work, begin)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the accounts' database: {type(error).__name__}") from None
        finally:
            self._lock.release()


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
