"""What the tasks of an event loop write in one tick is handed to the writing thread together, and judged one by one."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ticks import half_stop_waiting, made, written_before_it_closes

from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.group_commit import Job, Weight
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    run(store.close())


def hand_overs(store: SQLiteStore) -> list[int]:
    """Have listed how much is handed to the writing thread at a time, from now on."""
    writer, handed = store._file._writer, list[int]()
    assert writer is not None
    submit = writer.submit

    def listed(jobs: Sequence[Job], done: Callable[[], object]) -> None:
        handed.append(len(jobs))
        submit(jobs, done)

    writer.submit = listed  # type: ignore[method-assign]
    return handed


async def test_what_is_written_in_one_tick_is_handed_over_together(store: SQLiteStore) -> None:
    """And each is answered for itself."""
    records = await made(store, 20, "alice")
    handed = hand_overs(store)
    answers = await asyncio.gather(
        *(store.replace(following(record)) for record in records),
        store.replace(following(records[0])),
        store.delete(records[1].id),
        store.touch(records[2].id, 1, 1),
    )
    assert answers == [*[True] * 20, False, following(records[1]), None]
    assert handed == [23]
    await store.close()


async def test_the_trouble_of_one_is_not_that_of_others_in_the_same_tick(store: SQLiteStore) -> None:
    records = await made(store, 3)
    bad = store._file.written(lambda c: c.execute("INSERT INTO nowhere VALUES (1)"), Weight.DURABLE)
    answers = await asyncio.gather(
        *(store.replace(following(record)) for record in records), bad, return_exceptions=True
    )
    assert answers[:3] == [True] * 3
    assert isinstance(answers[3], StoreUnavailable)
    await store.close()


async def test_p4_whoever_stops_waiting_stops_nothing(store: SQLiteStore) -> None:
    records = await made(store, 20)
    await half_stop_waiting(store, records, hand_overs(store))
    await store.close()


async def test_a_store_that_is_closed_has_written_what_was_asked_for(store: SQLiteStore) -> None:
    """By a request that was cancelled before anything was handed over; and closing is the end of it (P2)."""
    await written_before_it_closes(store)
    await store.close()
    await asyncio.sleep(0)
    assert store._file._writer is None


async def test_a_file_that_cannot_be_opened_is_an_error_of_all(path: Path) -> None:
    store = SQLiteStore(path / "nowhere" / "store.db")
    answers = await asyncio.gather(*(store.create(make_record()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3


def test_a_loop_that_was_closed_is_told_nothing(store: SQLiteStore) -> None:
    """Its write is done all the same, and the next ones are."""
    [record] = asyncio.run(made(store, 1))
    entered, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        go.wait(10)

    async def gone() -> None:
        store._file.write(hold, Weight.DURABLE)
        writing = asyncio.ensure_future(store.replace(following(record)))
        await asyncio.sleep(0.01)
        writing.cancel()

    asyncio.run(gone())
    go.set()
    assert asyncio.run(store.load(record.id)) is not None
    assert asyncio.run(store.replace(following(following(record))))
    asyncio.run(store.close())
