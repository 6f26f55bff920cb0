"""SQLiteStore: records in one SQLite file, shared by the processes of one machine; it survives a power cut.

A record's times, version and subject are columns, and the rest is its encoding: `touch` then rewrites a few
octets, and nothing is stored twice. The checksum binds the encoding to the id and the subject.
"""

from __future__ import annotations

import builtins
import os
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.run import offload
from coatcheck.store import Durability, Page
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.group_commit import Weight
from coatcheck.stores.merging import CUTOFF_MEMORY
from coatcheck.stores.sqlite_file import Migration, SQLiteFile
from coatcheck.stores.walking import PAGE, read_page

_MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        # A rowid table, though ids are unique: rows then lie in the order of their making, in full pages, and
        # only the index of random ids is two thirds full. Measured on 100 000 small records against WITHOUT ROWID:
        # 255 octets each instead of 284, and made 2.8 times as fast.
        """
        CREATE TABLE coatcheck_record (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,
            subject TEXT,
            version INTEGER NOT NULL,
            seen_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            superseded INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT
        """,
        "CREATE INDEX coatcheck_record_subject ON coatcheck_record (subject) WHERE subject IS NOT NULL",
        "CREATE INDEX coatcheck_record_expires_at ON coatcheck_record (expires_at)",
        """
        CREATE TABLE coatcheck_cutoff (
            subject TEXT PRIMARY KEY,
            before INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)

_CREATE: Final = """
    INSERT INTO coatcheck_record (id, subject, version, seen_at, expires_at, superseded, body)
    SELECT :id, :subject, :version, :seen_at, :expires_at, :superseded, :body
    WHERE NOT EXISTS (SELECT 1 FROM coatcheck_cutoff WHERE subject = :subject AND before > :created_at)
    ON CONFLICT (id) DO NOTHING
"""
_LOAD: Final = "SELECT subject, version, seen_at, expires_at, body FROM coatcheck_record WHERE id = ?"
_REPLACE: Final = """
    UPDATE coatcheck_record SET
        version = :version,
        seen_at = max(seen_at, :seen_at),
        expires_at = CASE WHEN :superseded THEN :expires_at ELSE max(expires_at, :expires_at) END,
        superseded = :superseded,
        body = :body
    WHERE id = :id AND subject IS :subject AND version = :version - 1
"""
_TOUCH: Final = """
    UPDATE coatcheck_record SET seen_at = max(seen_at, :seen_at), expires_at = max(expires_at, :expires_at)
    WHERE id = :id AND superseded = 0
"""
_DELETE: Final = """
    DELETE FROM coatcheck_record WHERE id = ? RETURNING subject, version, seen_at, expires_at, body
"""
_LIST: Final = "SELECT id, subject, version, seen_at, expires_at, body FROM coatcheck_record WHERE subject = ?"
_CUT_OFF: Final = """
    INSERT INTO coatcheck_cutoff (subject, before) VALUES (?, ?)
    ON CONFLICT (subject) DO UPDATE SET before = max(before, excluded.before)
"""
_REVOKE: Final = "DELETE FROM coatcheck_record WHERE subject = ? AND id IS NOT ? RETURNING id, superseded"
_SWEEP: Final = """
    DELETE FROM coatcheck_record WHERE number IN (
        SELECT number FROM coatcheck_record WHERE expires_at <= ? LIMIT ?
    )
"""
# A subject that is no text any more would make an error of the whole page, so it is read as octets.
_WALK: Final = """
    SELECT number, id, CAST(subject AS BLOB), version, seen_at, expires_at, body FROM coatcheck_record
    WHERE number > ? ORDER BY number LIMIT ?
"""
_SIZE: Final = "SELECT count(*) FROM coatcheck_record"
_FORGET: Final = "DELETE FROM coatcheck_cutoff WHERE before < ?"


class SQLiteStore:
    """A store in one SQLite file: reads are done directly, in microseconds; writes by one thread.

    Next to the file lie SQLite's own `-wal` and `-shm`, and `-reserve`: up to 1 MiB that is given up when the disk
    is full, so that sessions can still be ended.

    Args:
        path: the file; made if it is not there, readable by nobody else. Not on a network file system.
        busy_timeout: how long another process's transaction is waited for.

    Raises:
        ConfigurationError: the path or the time-out cannot be one, or the SQLite library is too old.
    """

    durability: Durability = "power-safe"

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: timedelta = timedelta(seconds=5)) -> None:
        self.path = Path(os.path.abspath(path))
        self._file = SQLiteFile(path, busy_timeout=busy_timeout, component="store", migrations=_MIGRATIONS)

    async def open(self) -> None:
        """Make the file and the schema; see `Store.open`."""
        await offload(self._file.open)

    async def close(self) -> None:
        """End the writing thread and close the connections; see `Store.close`."""
        await self._file.end()

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        values = _values(record)
        if values is None or not _storable(record.subject):
            return False
        return await self._file.written(lambda c: c.execute(_CREATE, values).rowcount == 1, Weight.DURABLE)

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`."""
        octets = id_octets(id)
        if octets is None:
            return None
        row = self._file.read(lambda c: c.execute(_LOAD, (octets,)).fetchone())
        return _record(id, octets, row) if row is not None else None

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        values = _values(record)
        if values is None or not _storable(record.subject):
            return False
        return await self._file.written(lambda c: c.execute(_REPLACE, values).rowcount == 1, Weight.DURABLE)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        octets = id_octets(id)
        if octets is not None:
            values = {"id": octets, "seen_at": seen_at, "expires_at": expires_at}
            await self._file.written(lambda c: c.execute(_TOUCH, values).close(), Weight.LIGHT)

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; a damaged one is removed too, but not returned; see `Store.delete`.

        Raises:
            StoreUnavailable: what was removed was damaged, so it cannot be told where its session went.
        """
        octets = id_octets(id)
        if octets is None:
            return None
        rows = await self._file.written(lambda c: c.execute(_DELETE, (octets,)).fetchall(), Weight.FINAL)
        return _record(id, octets, rows[0]) if rows else None

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`.

        Raises:
            StoreUnavailable: one of them is damaged: a shorter list would not be the truth.
        """
        if not _storable(subject):
            return []
        rows = self._file.read(lambda c: c.execute(_LIST, (subject,)).fetchall())
        return [_record(base64url.encode(_octets(row[0])), row[0], row[1:]) for row in rows]

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records, damaged ones too; see `Store.revoke_subject`."""
        if not _storable(subject):
            return []
        kept = id_octets(keep) if keep is not None else None

        def work(connection: sqlite3.Connection) -> builtins.list[Any]:
            connection.execute(_CUT_OFF, (subject, before))
            return connection.execute(_REVOKE, (subject, kept)).fetchall()

        rows = await self._file.written(work, Weight.FINAL)
        return [base64url.encode(id) for id, superseded in rows if type(id) is bytes and superseded != 1]

    async def sweep(self, now: int) -> int:
        """Remove expired records, some at a time, so that no other writer waits long; see `Store.sweep`."""
        old = now - CUTOFF_MEMORY
        await self._file.written(lambda c: c.execute(_FORGET, (old,)).close(), Weight.CLEANING)
        return await self._file.sweep(_SWEEP, now)

    async def walk(self) -> AsyncIterator[Page]:
        """Yield every record; see `Walkable.walk`."""
        last = 0
        while True:
            rows = await offload(partial(self._rows_after, last))
            if rows:
                yield read_page([(_name(row[1]), row) for row in rows], _walked)
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def _rows_after(self, number: int) -> builtins.list[Any]:
        return self._file.read(lambda c: c.execute(_WALK, (number, PAGE)).fetchall())

    async def size(self) -> int:
        """Return how many records there are; see `Walkable.size`."""
        return await offload(lambda: int(self._file.read(lambda c: c.execute(_SIZE).fetchone())[0]))


def _storable(subject: str | None) -> bool:
    """Say whether a subject is text at all: a lone surrogate is not, and nobody is called so."""
    try:
        (subject or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def _values(record: Record) -> dict[str, Any] | None:
    octets = id_octets(record.id)
    if octets is None:
        return None
    bare = msgspec.structs.replace(record, id="", subject=None, version=0, seen_at=0, expires_at=0)
    body = protect(bare.encode(), _context(octets, record.subject))
    return {
        "id": octets,
        "subject": record.subject,
        "version": record.version,
        "seen_at": record.seen_at,
        "expires_at": record.expires_at,
        "superseded": record.successor is not None,
        "created_at": record.created_at,
        "body": body,
    }


def _record(id: str, octets: bytes, row: tuple[Any, ...]) -> Record:
    subject, version, seen_at, expires_at, body = row
    # A damaged page can hold values of any type, and msgspec does not check what is put in by `replace`.
    if (
        type(body) is not bytes
        or type(version) is not int
        or type(seen_at) is not int
        or type(expires_at) is not int
        or not (subject is None or type(subject) is str)
    ):
        raise StoreUnavailable("store damaged: a record's columns")
    bare = Record.decode(unprotect(body, _context(octets, subject)))
    return msgspec.structs.replace(
        bare, id=id, subject=subject, version=version, seen_at=seen_at, expires_at=expires_at
    )


def _context(octets: bytes, subject: str | None) -> bytes:
    return octets if subject is None else octets + b"\1" + subject.encode()


def _octets(value: Any) -> bytes:
    if type(value) is not bytes:
        raise StoreUnavailable("store damaged: a record's id")
    return value


def _name(octets: Any) -> str:
    return base64url.encode(octets) if type(octets) is bytes else "?"


def _walked(id: str, row: tuple[Any, ...]) -> Record:
    _, octets, subject, *rest = row
    try:
        text = None if subject is None else str(subject, "utf-8")
    except (TypeError, UnicodeDecodeError):
        raise StoreUnavailable("store damaged: a record's subject") from None
    return _record(id, _octets(octets), (text, *rest))
