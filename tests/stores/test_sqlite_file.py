"""SQLiteFile: schema, permissions, processes, forks, errors, as SQLiteStore shows them."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.group_commit import Weight
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite_file import SQLiteFile
from coatcheck.testing import make_record

Together = Callable[..., list[int]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    run(store.close())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "coatcheck-sqlite"]


# -- the file and its schema


def test_file_log_and_index_are_nobody_elses_whatever_the_umask(store: SQLiteStore, path: Path) -> None:
    before = os.umask(0)
    try:
        run(store.create(make_record()))
    finally:
        os.umask(before)
    assert {file.name for file in path.parent.iterdir()} == {
        path.name + end for end in ("", "-wal", "-shm", "-reserve")
    }
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_permissions_that_somebody_chose_are_left_alone(store: SQLiteStore, path: Path) -> None:
    path.touch(0o660)
    path.chmod(0o660)
    run(store.open())
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_newer_schema_is_a_configuration_error(store: SQLiteStore, path: Path) -> None:
    run(store.open())
    run(store.close())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE coatcheck_schema SET version = 99 WHERE component = 'store'")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer"):
        run(store.open())


def test_components_share_a_file_each_with_a_version_of_its_own(path: Path) -> None:
    def file(component: str, *migrations: tuple[str, ...]) -> SQLiteFile:
        return SQLiteFile(path, busy_timeout=timedelta(seconds=5), component=component, migrations=migrations)

    first, second = (
        ("CREATE TABLE one (a INTEGER)",),
        ("ALTER TABLE one ADD COLUMN b INTEGER", "INSERT INTO one VALUES (1, 2)"),
    )
    for each in (file("x", first), file("y", ("CREATE TABLE two (a INTEGER)",)), file("x", first, second)):
        each.open()
        each.close()
    again = file("x", first, second)
    assert again.read(lambda c: c.execute("SELECT a, b FROM one").fetchall()) == [(1, 2)]
    versions = again.read(lambda c: c.execute("SELECT component, version FROM coatcheck_schema").fetchall())
    assert sorted(versions) == [("x", 2), ("y", 1)]
    again.close()


def test_a_migration_that_fails_leaves_nothing_behind(path: Path) -> None:
    broken = SQLiteFile(
        path,
        busy_timeout=timedelta(seconds=5),
        component="x",
        migrations=(("CREATE TABLE one (a INTEGER)", "CREATE TABLE one (a INTEGER)"),),
    )
    with pytest.raises(StoreUnavailable):
        broken.open()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()


def test_ten_processes_may_open_it_at_once(path: Path, together: Together) -> None:
    """The first migrates, the others wait; each of them can then write."""

    def use() -> None:
        store = SQLiteStore(path)
        assert run(store.create(make_record("alice")))
        run(store.close())

    assert together(*[use] * 10) == [0] * 10
    store = SQLiteStore(path)
    assert len(run(store.list("alice"))) == 10
    run(store.close())


def test_nothing_of_sqlites_escapes(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"this is no database, but it is longer than a header is" * 100)
    (tmp_path / "directory.db").mkdir()
    for name in ("text.db", "directory.db", "no/such/directory.db"):
        store = SQLiteStore(tmp_path / name)
        for work in (store.open(), store.load("A" * 22), store.create(make_record())):
            with pytest.raises(StoreUnavailable):
                run(work)
        run(store.close())


@pytest.mark.parametrize("place", ["", ":memory:", "a\0b"])
def test_what_is_no_file_is_a_configuration_error(place: str) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteStore(place)


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(seconds=-1), timedelta(days=1)])
def test_waiting_is_bounded_at_construction(wait: timedelta, path: Path) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteStore(path, busy_timeout=wait)


# -- opening, closing, forking


def test_it_opens_itself_when_used_and_again_after_close(store: SQLiteStore) -> None:
    record = make_record("alice")
    assert run(store.load(record.id)) is None
    assert run(store.create(record))
    run(store.close())
    assert run(store.load(record.id)) == record
    assert run(store.delete(record.id)) == record


def test_close_ends_the_thread_and_every_connection(store: SQLiteStore, path: Path) -> None:
    """The last connection takes the log with it: none was forgotten."""
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: run(store.create(make_record("alice"))), range(50)))
        assert {len(found) for found in pool.map(lambda _: run(store.list("alice")), range(50))} == {50}
    assert threads() == ["coatcheck-sqlite"]
    run(store.close())
    assert threads() == []
    assert not path.with_name(path.name + "-wal").exists()


def test_what_waits_when_it_is_closed_is_written(store: SQLiteStore) -> None:
    run(store.open())
    entered, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        go.wait(10)

    held = store._file.write(hold, Weight.DURABLE)
    entered.wait(10)
    late = store._file.write(lambda c: c.execute("SELECT 42").fetchone()[0], Weight.DURABLE)
    closing = threading.Thread(target=store._file.close)
    closing.start()
    go.set()
    assert held.result(10) is None
    assert late.result(10) == 42
    closing.join(10)
    assert not closing.is_alive()


def test_a_forked_child_opens_its_own_connections(store: SQLiteStore, path: Path, together: Together) -> None:
    """Parent and child go on after a fork; what either has written is there for the other."""
    before, parents, childs = (make_record("alice") for _ in range(3))
    assert run(store.create(before))
    assert run(store.load(before.id)) == before

    def child() -> None:
        assert run(store.load(before.id)) == before
        assert run(store.create(childs))
        assert run(store.delete(before.id)) == before
        run(store.close())

    assert together(child) == [0]
    assert run(store.create(parents))
    assert {record.id for record in run(store.list("alice"))} == {parents.id, childs.id}


def test_a_parent_that_closes_takes_nothing_from_its_child(
    store: SQLiteStore, path: Path, spawn: Callable[[Callable[[], object]], int]
) -> None:
    """SQLite's locks are the process's: a child that inherited connections would hold none, and lose its log."""
    first, second = make_record("alice"), make_record("alice")
    run(store.create(first))
    run(store.load(first.id))
    (ready_out, ready_in), (go_out, go_in) = os.pipe(), os.pipe()

    def child() -> None:
        assert run(store.delete(first.id)) == first
        os.write(ready_in, b"!")
        os.read(go_out, 1)
        assert run(store.create(second))
        os.write(ready_in, b"!")
        os.read(go_out, 1)  # and is killed, without closing

    spawn(child)
    assert os.read(ready_out, 1) == b"!"
    run(store.load(first.id))
    run(store.close())
    os.write(go_in, b"!")
    assert os.read(ready_out, 1) == b"!"
    assert run(store.load(second.id)) == second
    for end in (ready_out, ready_in, go_out, go_in):
        os.close(end)


def test_a_parents_connections_are_not_used_even_if_nothing_told_it_of_the_fork(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in C may fork without Python's hooks."""
    record = make_record("alice")
    assert run(store.create(record))
    inherited = set(store._file._readers)
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    assert run(store.load(record.id)) == record
    assert inherited
    assert not inherited & store._file._readers
    run(store.close())
    monkeypatch.setattr(os, "getpid", lambda: real)
