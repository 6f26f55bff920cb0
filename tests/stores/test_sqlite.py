"""SQLiteStore: what it writes, when, and how much; full disks. The file itself: test_sqlite_file.py."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from coatcheck.core.record import pack
from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.group_commit import Weight
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.contract import DAY
from coatcheck.testing.records import following

Together = Callable[..., list[int]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    run(store.close())


def add_keys(store: SQLiteStore, id: str, keys: range) -> None:
    for key in keys:
        while True:
            record = run(store.load(id))
            assert record is not None
            if run(store.replace(following(record, data={**record.data, str(key): pack(key)}))):
                break


def many(store: SQLiteStore, count: int, **changes: object) -> None:
    async def create() -> None:
        for start in range(0, count, 500):
            records = [make_record(f"user{n}", **changes) for n in range(start, min(start + 500, count))]
            assert all(await asyncio.gather(*(store.create(record) for record in records)))

    asyncio.run(create())


# -- writing


def test_two_processes_lose_no_write(store: SQLiteStore, path: Path, together: Together) -> None:
    """200 of 200 keys of concurrent compare-and-swap writers, two processes with four threads each."""
    record = make_record("alice")
    run(store.create(record))
    run(store.close())

    def write(first: int) -> None:
        mine = SQLiteStore(path)
        with ThreadPoolExecutor(4) as pool:
            for done in [
                pool.submit(add_keys, mine, record.id, range(n, n + 25)) for n in range(first, first + 100, 25)
            ]:
                done.result()
        run(mine.close())

    assert together(lambda: write(0), lambda: write(100)) == [0, 0]
    stored = run(store.load(record.id))
    assert stored is not None
    assert len(stored.data) == 200
    assert stored.version == 201


def test_work_is_done_in_its_order_and_in_one_transaction(store: SQLiteStore) -> None:
    """Whatever waits while a transaction runs shares the next commit."""
    file = store._file
    file.open()
    entered, go, order = threading.Event(), threading.Event(), list[int]()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        go.wait(10)

    def job(number: int) -> Callable[[sqlite3.Connection], int]:
        def work(connection: sqlite3.Connection) -> int:
            order.append(number)
            assert connection.in_transaction
            return connection.total_changes

        return work

    commits = file.read(lambda c: c.execute("PRAGMA data_version").fetchone()[0])
    first = file.write(hold, Weight.DURABLE)
    entered.wait(10)
    rest = [file.write(job(number), Weight.DURABLE) for number in range(100)]
    record = file.write(
        lambda c: c.execute("INSERT INTO coatcheck_cutoff VALUES ('alice', 1)").rowcount, Weight.DURABLE
    )
    go.set()
    assert first.result(10) is None
    assert record.result(10) == 1
    assert [future.done() for future in rest] == [True] * 100
    assert order == list(range(100))
    assert file.read(lambda c: c.execute("PRAGMA data_version").fetchone()[0]) == commits + 1


def test_the_trouble_of_one_is_not_the_others(store: SQLiteStore) -> None:
    """A job that fails is told so; those that shared its transaction are committed without it."""
    file = store._file
    file.open()
    entered, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        go.wait(10)

    def bad(connection: sqlite3.Connection) -> None:
        raise LookupError("mine")

    file.write(hold, Weight.DURABLE)
    entered.wait(10)
    insert = "INSERT INTO coatcheck_cutoff VALUES (?, 1)"
    good = [file.write(lambda c, n=n: c.execute(insert, (f"user{n}",)).rowcount, Weight.DURABLE) for n in range(3)]  # type: ignore[misc]
    wrong = file.write(lambda c: c.execute("INSERT INTO nowhere VALUES (1)"), Weight.DURABLE)
    ours = file.write(bad, Weight.DURABLE)
    go.set()
    assert [future.result(10) for future in good] == [1, 1, 1]
    assert isinstance(wrong.exception(10), StoreUnavailable)
    assert isinstance(ours.exception(10), LookupError)
    assert file.read(lambda c: c.execute("SELECT count(*) FROM coatcheck_cutoff").fetchone()[0]) == 3


def test_only_a_touch_may_be_lost_in_a_power_cut(store: SQLiteStore) -> None:
    """`synchronous` is FULL (2) for every transaction that holds anything but touches."""
    seen: list[int] = []

    def watch(connection: sqlite3.Connection) -> None:
        seen.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    for weight in (Weight.LIGHT, Weight.DURABLE, Weight.FINAL, Weight.LIGHT):
        store._file.write(watch, weight).result(10)
    assert seen == [1, 2, 2, 1]

    weights: list[Weight] = []
    write = store._file.write

    def spy(work: Callable[[sqlite3.Connection], object], weight: Weight) -> object:
        weights.append(weight)
        return write(work, weight)

    store._file.write = spy  # type: ignore[method-assign,assignment]
    record = make_record("alice")
    run(store.create(record))
    run(store.replace(following(record)))
    run(store.delete(record.id))
    run(store.revoke_subject("alice", START))
    assert weights == [Weight.DURABLE, Weight.DURABLE, Weight.FINAL, Weight.FINAL]
    run(store.touch(record.id, START, START))
    assert weights[-1] is Weight.LIGHT


def test_a_database_that_somebody_holds_is_unavailable_and_heals(path: Path) -> None:
    """P6: 503 within the time-out, normal again without a restart; reading is not stopped at all."""
    store = SQLiteStore(path, busy_timeout=timedelta(milliseconds=20))
    record = make_record("alice")
    assert run(store.create(record))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    for work in (store.delete(record.id), store.create(make_record())):
        with pytest.raises(StoreUnavailable, match="busy"):
            run(work)
    assert run(store.load(record.id)) == record
    holder.execute("ROLLBACK")
    holder.close()
    assert run(store.delete(record.id)) == record
    run(store.close())


def test_a_writer_that_dies_is_replaced(store: SQLiteStore) -> None:
    """Whoever waited is told; the next one is served."""
    run(store.open())

    def fatal(connection: sqlite3.Connection) -> None:
        raise SystemExit

    assert isinstance(store._file.write(fatal, Weight.DURABLE).exception(10), StoreUnavailable)
    writer = store._file._writer
    assert writer is not None
    writer.stop()
    assert run(store.create(make_record("alice")))


# -- a full disk


def test_a_full_database_refuses_sign_ins_keeps_what_it_has_and_heals(store: SQLiteStore, path: Path) -> None:
    record = make_record("alice")
    assert run(store.create(record))

    def connect_to_full() -> sqlite3.Connection:
        connection = store._file._connect()
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    writer = store._file._writer
    assert writer is not None
    connect, writer._connect = writer._connect, connect_to_full
    writer._disconnect()
    big = {"key": pack("x" * 10_000)}
    for work in (store.create(make_record("bob", data=big)), store.replace(following(record, data=big))):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            run(work)
    assert run(store.load(record.id)) == record
    assert run(store.revoke_subject("alice", START)) == [record.id]
    writer._connect = connect
    writer._disconnect()
    assert run(store.create(make_record("bob", data=big)))


FULL_DISK = """
import asyncio, os, sys
from coatcheck.errors import StoreUnavailable
from coatcheck.core.revocation import Revoked
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record

async def main(path):
    store, feed = SQLiteStore(path), SQLiteFeed(path)
    await feed.publish((Revoked(session_id="first", until=10**15),), 0)
    acked, refused = [], 0
    while refused < 20:
        record = make_record(f"user{len(acked) // 3}")
        try:
            if await store.create(record):
                acked.append(record)
        except StoreUnavailable as error:
            assert "the disk is full" in str(error), error
            refused += 1
    with open(os.path.join(os.path.dirname(path), "other"), "wb", buffering=0) as other:
        try:
            while True:
                other.write(bytes(1024))
        except OSError:
            pass
    gone = set()
    for record in acked[::2]:
        assert await store.delete(record.id) == record
        await feed.publish((Revoked(session_id=record.id, until=10**15),), 0)
        gone.add(record.id)
    gone.update(await store.revoke_subject("user1", 10**13))
    for record in acked:
        assert await store.load(record.id) == (None if record.id in gone else record)
    assert len((await feed.snapshot(0)).revoked) == 1 + len(acked[::2])
    await store.close()
    print(len(acked), len(gone))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("size", ["1m", "4m"])
def test_on_a_full_disk_nothing_acknowledged_is_lost_and_revoking_works(size: str, tmp_path: Path) -> None:
    """P1, P2: on a disk that is really full, a small tmpfs in a name space of its own."""
    unshare, disk = shutil.which("unshare"), tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs "$1"'
    inside = [str(unshare), "-rm", "sh", "-c"]
    if (
        unshare is None
        or subprocess.run([*inside, mount, "sh", str(disk)], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets nobody mount a tmpfs")
    command = [*inside, mount + ' && exec "$2" -c "$3" "$1/store.db"', "sh", str(disk), sys.executable, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    acked, gone = map(int, done.stdout.split())
    assert acked > 20
    assert gone > 10


# -- sweeping, sizes


def test_sweep_lets_other_writers_in_between_its_chunks(store: SQLiteStore) -> None:
    many(store, 250, expires_at=START)
    many(store, 3, expires_at=START + 1)
    sizes: list[int] = []
    write = store._file.write

    def spy(work: Callable[[sqlite3.Connection], object], weight: Weight) -> object:
        future = write(work, weight)
        removed = future.result(10)
        if isinstance(removed, int):
            sizes.append(removed)
            run(store.touch("A" * 22, START, START))  # another writer: it would wait for ever inside a chunk
        return future

    store._file.write = spy  # type: ignore[method-assign,assignment]
    assert run(store.sweep(START)) == 250
    assert [size for size in sizes if size] == [100, 100, 50]


def test_a_million_small_sessions_take_300_octets_each(store: SQLiteStore, path: Path) -> None:
    """P9: measured on 20 000, with all indexes, after the log was moved into the file."""
    count = 20_000
    many(store, count, amr=("pwd",), data={"theme": pack("dark")})
    run(store.close())
    assert path.stat().st_size / count <= 300


def test_what_was_deleted_is_not_left_in_the_file(store: SQLiteStore, path: Path) -> None:
    """Sessions hold personal data: a deleted one is overwritten."""
    record = make_record("alice", data={"note": pack("a very private remark")})
    run(store.create(record))
    run(store.create(make_record("bob")))
    run(store.delete(record.id))
    run(store.close())
    assert b"a very private remark" not in path.read_bytes()


def test_cut_offs_do_not_pile_up(store: SQLiteStore) -> None:
    for n in range(20):
        run(store.revoke_subject(f"user{n}", START))
    run(store.sweep(START + DAY + 1))
    assert store._file.read(lambda c: c.execute("SELECT count(*) FROM coatcheck_cutoff").fetchone()[0]) == 0
