"""SQLiteFile: one SQLite database, shared by processes and by components, each with a schema of its own.

Reads run on the calling thread, for a read costs less than a change of threads. Writes go to one thread; it
takes all that is waiting into one transaction: the more callers there are, the fewer commits each waits for.

SQLite's locks do not survive a fork: a child would believe that it holds its parent's. So `os.fork` first
closes every connection of this process; parent and child open their own when they need them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import offload, running_loop
from coatcheck.stores.coalesce import Asked, Coalescer
from coatcheck.stores.group_commit import FAILURES, GroupCommit, Job, Weight, Work, lacks_room, unavailable
from coatcheck.stores.reserve import Reserve

T = TypeVar("T")

Migration = tuple[str, ...]
"""The statements that lead from one version of a component's schema to the next."""

_OLDEST = (3, 37)  # STRICT tables
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS coatcheck_schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) "
    "STRICT, WITHOUT ROWID"
)
_PRAGMAS: Final = (
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
    # What was deleted is overwritten where the page is written anyway: sessions hold personal data.
    "PRAGMA secure_delete = FAST",
    # 1 MiB: a checkpoint must not need more room than the reserve can give.
    "PRAGMA wal_autocheckpoint = 256",
    # After a burst the log is cut back to this size; below it, it keeps its room, for revoking on a full disk.
    "PRAGMA journal_size_limit = 16777216",
)
_MOST_WAIT = timedelta(minutes=10)
# Measured on 400 000 records: with 500 at a time, other writers' p99 is 24 to 35 ms meanwhile; with 100 it is 7 ms.
_CHUNK = 100
_PAUSE = 0.005  # seconds between two chunks, for the writers of other processes


class SQLiteFile:
    """A database file, opened when it is first used.

    Args:
        path: the file; made if it is not there, readable by nobody else; its directory must exist.
        busy_timeout: how long another process's transaction is waited for.
        component: whose schema this is.
        migrations: all that were ever published, oldest first; how many have run is the schema's version.

    Raises:
        ConfigurationError: the path or the time-out cannot be one, or the SQLite library is too old.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: timedelta,
        component: str,
        migrations: tuple[Migration, ...],
    ) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old; 3.37 is needed")
        if not timedelta(0) < busy_timeout <= _MOST_WAIT:
            raise ConfigurationError("busy_timeout is more than nothing and at most 10 minutes")
        name = os.fspath(path)
        if not name or name == ":memory:" or "\0" in name:
            raise ConfigurationError("an SQLite store needs the path of a file")
        self._path = os.path.abspath(name)
        self._reserve = Reserve(self._path + "-reserve")
        self._wait = busy_timeout.total_seconds()
        self._component = component
        self._migrations = migrations
        self._lock = threading.RLock()
        self._owner = os.getpid()  # the process that the connections belong to
        self._pid = 0  # the process that has it open
        self._idle: list[sqlite3.Connection] = []  # its ends are atomic: a reader takes one and puts it back
        self._readers: set[sqlite3.Connection] = set()
        self._writer: GroupCommit | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer[Job, Any]] = WeakKeyDictionary()
        _files.add(self)

    def open(self) -> None:
        """Make the file and the schema if they are not there; calling it again does nothing.

        Raises:
            StoreUnavailable: it cannot be opened.
            ConfigurationError: a newer version of this component made it.
        """
        with self._lock:
            if self._pid == os.getpid():
                return
            if self._owner != os.getpid():
                self._forsake()
            try:
                connection = self._prepare()
            except FAILURES as error:
                raise unavailable(error) from error
            except OSError as error:
                raise StoreUnavailable(f"the database file cannot be opened: {error.strerror}") from error
            # It stays open for as long as the file is: the last one to close would take the log and its index away,
            # and on a full disk they could not be made again.
            self._readers.add(connection)
            self._idle.append(connection)
            self._writer = self._new_writer()
            self._pid = os.getpid()

    def close(self) -> None:
        """Finish what is waiting to be written, end the writing thread, and close all connections."""
        with self._lock:
            if self._pid != os.getpid():
                return
            self._pid = 0
            if self._writer is not None:
                self._writer.stop()
                self._writer = None
            while self._idle:
                self._discard(self._idle.pop())

    async def end(self) -> None:
        """Have everything written that this event loop has asked for, and close it."""
        loop = running_loop()
        coalescer = self._loops.pop(loop, None) if loop is not None else None
        if coalescer is not None:
            await coalescer.settled()
        await offload(self.close)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `query` returns, on this thread; it must fetch all of its rows.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        connection = self._borrow()
        try:
            result = query(connection)
        except FAILURES as error:
            self._discard(connection)
            raise unavailable(error) from error
        except BaseException:
            self._discard(connection)
            raise
        self._idle.append(connection)
        return result

    def write(self, work: Work[T], weight: Weight) -> Future[T]:
        """Have `work` done in a transaction of the writing thread.

        It may be called again if the transaction fails. The future's error is then StoreUnavailable, or whatever
        else `work` raised.
        """
        job, future = Job(work, weight), Future[T]()
        future.set_running_or_notify_cancel()  # nobody who stops waiting stops it
        self._submit([job], partial(_settle, future, job))
        return future

    async def written(self, work: Work[T], weight: Weight) -> T:
        """Have `work` done as `write` does, and return what it returned; whoever stops waiting stops nothing.

        What the tasks of an event loop want to have written in one tick is handed over together.
        """
        loop = running_loop()
        if loop is None:
            return self.write(work, weight).result()
        coalescer = self._loops.get(loop)
        if coalescer is None:
            coalescer = self._loops[loop] = Coalescer(self._submit_asked)
        outcome: T = await coalescer.ask(Job(work, weight))
        return outcome

    def _submit_asked(self, asked: Asked[Job, Any]) -> None:
        loop, jobs = asyncio.get_running_loop(), asked.questions

        def done() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(asked.answer, [job.outcome for job in jobs])

        self._submit(jobs, done)

    def _submit(self, jobs: Sequence[Job], done: Callable[[], object]) -> None:
        with self._lock:
            self.open()
            if self._writer is None or not self._writer.alive():
                self._writer = self._new_writer()
            self._writer.submit(jobs, done)

    async def sweep(self, statement: str, now: int) -> int:
        """Remove what has expired, some at a time, so that no other writer waits long, and return how many rows.

        Args:
            statement: removes some rows; its arguments are the time, and how many at most.
            now: milliseconds since the epoch.
        """
        removed = 0
        while True:
            chunk = await self.written(lambda c: c.execute(statement, (now, _CHUNK)).rowcount, Weight.CLEANING)
            removed += chunk
            if chunk < _CHUNK:
                return removed
            await offload(lambda: time.sleep(_PAUSE))

    def _prepare(self) -> sqlite3.Connection:
        try:
            return self._prepared()
        except sqlite3.Error as error:
            if not lacks_room(error):
                raise
            self._reserve.release()
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        _make_private(self._path)
        connection = self._connect()
        try:
            _use_wal(connection, self._wait)
            _migrate(connection, self._component, self._migrations)
        except BaseException:
            connection.close()
            raise
        return connection

    def _new_writer(self) -> GroupCommit:
        return GroupCommit(self._connect, self._reserve)

    def _borrow(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self.open()
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            with self._lock:
                connection = self._connect()
                self._readers.add(connection)
                return connection
        except FAILURES as error:
            raise unavailable(error) from error

    def _discard(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._readers.discard(connection)
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._wait,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _forsake(self) -> None:
        """Forget a parent's connections without closing them: closing would give up the parent's locks."""
        _inherited.extend(self._readers)
        if self._writer is not None:
            _inherited.append(self._writer)
        self._idle, self._readers, self._writer = [], set(), None
        self._pid, self._owner = 0, os.getpid()

    def before_fork(self) -> None:
        """Close everything, and let nobody open it again until `after_fork`."""
        self._lock.acquire()
        deadline = time.monotonic() + 1  # other threads' reads take microseconds
        while len(self._idle) < len(self._readers) and time.monotonic() < deadline:
            time.sleep(0.0002)
        self.close()

    def after_fork(self) -> None:
        """Let it be opened again, in the parent and in the child."""
        self._lock.release()


def _settle(future: Future[Any], job: Job) -> None:
    if isinstance(job.outcome, Exception):
        future.set_exception(job.outcome)
    else:
        future.set_result(job.outcome)


_inherited: list[object] = []
_files: WeakSet[SQLiteFile] = WeakSet()
_waiting: list[SQLiteFile] = []
_forking = threading.Lock()


def _before_fork() -> None:
    _forking.acquire()
    _waiting[:] = list(_files)
    for file in _waiting:
        file.before_fork()


def _after_fork() -> None:
    while _waiting:
        _waiting.pop().after_fork()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _make_private(path: str) -> None:
    """Make the file before SQLite does: it then gives its log and index the same permissions."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    try:
        os.chmod(path, 0o600)  # whatever the umask
    finally:
        os.close(file)


def _use_wal(connection: sqlite3.Connection, wait: float) -> None:
    """Turn the write-ahead log on. SQLite does not wait for others who are doing the same, so this does."""
    deadline = time.monotonic() + wait
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
            continue
        if mode != "wal":
            raise ConfigurationError("SQLite has no write-ahead log on this file system")
        return


def _migrate(connection: sqlite3.Connection, component: str, migrations: tuple[Migration, ...]) -> None:
    if not _missing(connection, component, migrations):
        return
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_SCHEMA)
        # Looked up again: another process may have run some of them while this one waited.
        for migration in _missing(connection, component, migrations):
            for statement in migration:
                connection.execute(statement)
        connection.execute(
            "INSERT INTO coatcheck_schema (component, version) VALUES (?, ?) "
            "ON CONFLICT (component) DO UPDATE SET version = excluded.version",
            (component, len(migrations)),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _missing(
    connection: sqlite3.Connection, component: str, migrations: tuple[Migration, ...]
) -> tuple[Migration, ...]:
    """Return the migrations that have not run.

    Raises:
        ConfigurationError: more have run than are known.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'coatcheck_schema'").fetchall():
        return migrations
    query = "SELECT version FROM coatcheck_schema WHERE component = ?"
    found = connection.execute(query, (component,)).fetchall()
    version = int(found[0][0]) if found else 0
    if version > len(migrations):
        raise ConfigurationError(f"a newer coatcheck made this database ({component} version {version})")
    return migrations[version:]
