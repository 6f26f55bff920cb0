"""GroupCommit: one thread that writes to an SQLite database, all that is waiting in one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

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


class _Job:
    __slots__ = ("future", "weight", "work")

    def __init__(self, work: Work[Any], weight: Weight) -> None:
        self.work = work
        self.weight = weight
        self.future: Future[Any] = Future()


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
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="coatcheck-sqlite", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Say whether the thread is there."""
        return self._thread.is_alive()

    def submit(self, work: Work[T], weight: Weight) -> Future[T]:
        """Queue `work`; its future has a result when it is committed, as surely as its weight says."""
        job = _Job(work, weight)
        self._queue.put(job)
        return job.future

    def stop(self) -> None:
        """Finish what was submitted, and end the thread. Nothing may be submitted afterwards."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._take()
            try:
                self._commit(jobs)
            except BaseException:  # noqa: BLE001
                # Not an error of SQLite's nor of the work's: out of memory, or the interpreter is ending.
                _fail(jobs, StoreUnavailable("the database's writer failed"))
                self._disconnect()
        self._disconnect()

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
            if len(jobs) >= _MOST_AT_ONCE:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _commit(self, jobs: Sequence[_Job]) -> None:
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
                job.future.set_result(result)

    def _commit_what_can_be(self, jobs: Sequence[_Job], error: Exception) -> None:
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
                job.future.set_result(result)

    def _empty_log(self) -> None:
        """Move the log into the database, so that the log's own room, which it keeps, can be used again."""
        with contextlib.suppress(*FAILURES), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _transaction(self, jobs: Sequence[_Job]) -> list[Any]:
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


def _only_ending(jobs: Sequence[_Job], error: Exception) -> list[_Job]:
    """Fail all others with `error`."""
    _fail([job for job in jobs if job.weight not in _ON_A_FULL_DISK], error)
    return [job for job in jobs if job.weight in _ON_A_FULL_DISK]


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
