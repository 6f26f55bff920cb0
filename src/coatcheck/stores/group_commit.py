"""GroupCommit: one thread that writes to an SQLite database, all that is waiting in one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.reserve import Reserve

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""Statements of one transaction; called again if the transaction fails and is tried anew."""

FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)
"""What `sqlite3` raises: where a schema is damaged, its message may be no text, and this is raised instead."""

_MOST_AT_ONCE = 500
_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "the database is busy",
    sqlite3.SQLITE_LOCKED: "the database is busy",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the database file cannot be read or written",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_READONLY: "the database file cannot be written",
    sqlite3.SQLITE_CORRUPT: "store damaged: the database file",
    sqlite3.SQLITE_NOTADB: "store damaged: the file is no database",
}

_CONCERNS_ALL: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN)  # trying one by one would only take longer


def unavailable(error: Exception) -> StoreUnavailable:
    """Return what callers are told instead of one of `FAILURES`."""
    code = sqlite3.SQLITE_CORRUPT if isinstance(error, UnicodeDecodeError) else _code(error)
    return StoreUnavailable(_REASONS.get(code, "the database failed"))


def lacks_room(error: Exception) -> bool:
    """Say whether an error means that the disk is full."""
    return _code(error) == sqlite3.SQLITE_FULL or _extended_code(error) == sqlite3.SQLITE_IOERR_SHMSIZE


def _code(error: Exception) -> int:
    return _extended_code(error) & 0xFF


def _extended_code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))


class Weight(Enum):
    """How much a piece of work matters."""

    LIGHT = "a power cut may undo it"
    DURABLE = "it survives a power cut"
    FINAL = "durable, and done on a full disk as well: what ends sessions"
    CLEANING = "a power cut may undo it, and done on a full disk as well: what makes room"


_NOT_DURABLE: Final = (Weight.LIGHT, Weight.CLEANING)
_ON_A_FULL_DISK: Final = (Weight.FINAL, Weight.CLEANING)


_PENDING: Final = object()


class Job:
    """A piece of work of one caller's.

    Args:
        work: what is to be done.
        weight: how much it matters.
    """

    __slots__ = ("outcome", "weight", "work")

    def __init__(self, work: Work[Any], weight: Weight) -> None:
        self.work, self.weight = work, weight
        self.outcome: Any = _PENDING
        """What it returned, or the exception for which it was not done."""


class _Errand(NamedTuple):
    """Jobs that were submitted together, and what is called when each of them has its outcome."""

    jobs: Sequence[Job]
    done: Callable[[], object]


class GroupCommit:
    """The writer of one file in one process. Work is done in the order in which it was submitted.

    Args:
        connect: gives a new connection, in autocommit mode.
        reserve: the room that is left for ending sessions when the disk is full.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], reserve: Reserve) -> None:
        self._connect = connect
        self._reserve = reserve
        self._connection: sqlite3.Connection | None = None
        self._synchronous = ""
        self._queue: SimpleQueue[_Errand | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="coatcheck-sqlite", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Say whether the thread is there."""
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job], done: Callable[[], object]) -> None:
        """Queue jobs.

        Args:
            jobs: each has its outcome when it is committed, as surely as its weight says, or will not be.
            done: is called then, on the writer's thread.
        """
        self._queue.put(_Errand(jobs, done))

    def stop(self) -> None:
        """Finish what was submitted, and end the thread. Nothing may be submitted afterwards."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            errands, going = self._take()
            jobs = [job for errand in errands for job in errand.jobs]
            try:
                self._commit(jobs)
            except BaseException:  # noqa: BLE001
                # Not an error of SQLite's nor of the work's: out of memory, or the interpreter is ending.
                _fail(jobs, StoreUnavailable("the database's writer failed"))
                self._disconnect()
            for errand in errands:
                errand.done()
        self._disconnect()

    def _take(self) -> tuple[list[_Errand], bool]:
        errands: list[_Errand] = []
        count = 0
        errand = self._queue.get()
        while errand is not None:
            errands.append(errand)
            count += len(errand.jobs)
            if count >= _MOST_AT_ONCE:
                return errands, True
            try:
                errand = self._queue.get_nowait()
            except Empty:
                return errands, True
        return errands, False

    def _commit(self, jobs: Sequence[Job]) -> None:
        if not self._reserve.held():
            jobs = _only_ending(jobs, StoreUnavailable(_REASONS[sqlite3.SQLITE_FULL]))
        if not jobs:
            return
        try:
            results = self._transaction(jobs)
        except Exception as error:  # noqa: BLE001 (the callers are told)
            self._disconnect()  # whatever ails it, the next transaction starts afresh
            self._commit_what_can_be(jobs, error)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.outcome = result

    def _commit_what_can_be(self, jobs: Sequence[Job], error: Exception) -> None:
        if lacks_room(error):
            jobs = _only_ending(jobs, _told(error))
            if jobs:
                self._reserve.release()
            self._empty_log()
        elif len(jobs) == 1 or _code(error) in _CONCERNS_ALL:
            _fail(jobs, _told(error))
            return
        for job in jobs:  # one job's trouble is not the others'
            try:
                [result] = self._transaction([job])
            except Exception as again:  # noqa: BLE001 (the callers are told)
                self._disconnect()
                _fail([job], _told(again))
            else:
                job.outcome = result

    def _empty_log(self) -> None:
        """Move the log into the database, so that the log's own room, which it keeps, can be used again."""
        with contextlib.suppress(*FAILURES), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _transaction(self, jobs: Sequence[Job]) -> list[Any]:
        if self._connection is None:
            self._connection, self._synchronous = self._connect(), ""
        connection = self._connection
        synchronous = "NORMAL" if all(job.weight in _NOT_DURABLE for job in jobs) else "FULL"
        if synchronous != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        connection.execute("BEGIN IMMEDIATE")
        results = [job.work(connection) for job in jobs]
        connection.execute("COMMIT")
        return results

    def _disconnect(self) -> None:
        """Let the connection go; a transaction that was not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _told(error: Exception) -> Exception:
    return unavailable(error) if isinstance(error, FAILURES) else error


def _only_ending(jobs: Sequence[Job], error: Exception) -> list[Job]:
    """Fail all others with `error`."""
    _fail([job for job in jobs if job.weight not in _ON_A_FULL_DISK], error)
    return [job for job in jobs if job.weight in _ON_A_FULL_DISK]


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        if job.outcome is _PENDING:
            job.outcome = error
