"""The writes of one tick are one statement and one commit; each is judged by itself, and none harms another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
import ticks
from postgres_sent import statements
from ticks import half_stop_waiting, written_before_it_closes

from coatcheck.core import base64url
from coatcheck.core.record import Record, pack
from coatcheck.errors import StoreUnavailable
from coatcheck.stores.coalesce import MOST
from coatcheck.stores.postgres import PostgresStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import HOUR, following, make_id

pytestmark = pytest.mark.anyio
Make = Callable[..., PostgresStore]

SHORT = timedelta(seconds=0.6)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[PostgresStore]:
    store = make()
    await store.open()
    yield store
    await store.close()


async def made(store: PostgresStore, count: int, subject: str | None = None) -> list[Record]:
    """Records in the order of their ids."""
    return sorted(await ticks.made(store, count, subject), key=octets)


def octets(record: Record) -> bytes:
    return base64url.decode(record.id)


# -- one statement ----------------------------------------------------------------------------------------------------


async def test_the_replacements_of_one_tick_are_one_statement_and_so_are_the_touches(store: PostgresStore) -> None:
    records = await made(store, 40)
    sent = statements(store)
    edited = [following(record, data={"n": pack(n)}) for n, record in enumerate(records)]
    assert await asyncio.gather(*map(store.replace, reversed(edited))) == [True] * 40
    assert len(sent) == 1
    await asyncio.gather(*(store.touch(r.id, r.seen_at + n, r.expires_at + n) for n, r in enumerate(records)))
    assert len(sent) == 2
    loaded = await asyncio.gather(*(store.load(record.id) for record in records))
    assert [(r.data, r.version, r.seen_at) for r in loaded if r is not None] == [
        ({"n": pack(n)}, 2, record.seen_at + n) for n, record in enumerate(records)
    ]


async def test_p3_of_two_replacements_of_one_tick_the_first_wins(store: PostgresStore) -> None:
    """Each is judged after those that were asked before it, and one that builds on another finds it."""
    [record, other, gone] = await made(store, 3)
    assert await store.delete(gone.id)
    first, second = (following(record, data={"who": pack(who)}) for who in ("first", "second"))
    third = following(first, data={"who": pack("third")})
    foreign = following(other, subject="mallory")
    sent = statements(store)
    answers = await asyncio.gather(*map(store.replace, (following(gone), foreign, first, second, third)))
    assert answers == [False, False, True, False, True]
    assert len(sent) == 1
    assert await store.load(record.id) == third
    assert await store.load(other.id) == other
    assert await store.load(gone.id) is None


async def test_values_of_all_kinds_go_together(store: PostgresStore) -> None:
    """Small numbers and large ones, subjects and none, stumps and sessions."""
    records = [*await made(store, 3), *await made(store, 3, "älice")]
    edited = [following(record, seen_at=record.seen_at + 10**n) for n, record in enumerate(records)]
    edited[0] = msgspec.structs.replace(edited[0].superseded(records[1].id, 5), version=2)
    assert await asyncio.gather(*map(store.replace, edited)) == [True] * 6
    assert await asyncio.gather(*(store.load(record.id) for record in records)) == edited
    assert await asyncio.gather(*map(store.replace, [following(edited[1]), following(edited[2])])) == [True] * 2
    await asyncio.gather(*(store.touch(record.id, 1, 2) for record in records))  # never backward
    await asyncio.gather(*(store.touch(records[0].id, n, n) for n in (2**50, 2**51)))  # and no stump
    assert await store.load(records[0].id) == edited[0]


async def test_p9_a_statement_has_a_bounded_number_of_rows(store: PostgresStore) -> None:
    sent = statements(store)
    await asyncio.gather(*(store.touch(make_id(), START, START + HOUR) for _ in range(MOST * 2 + 2)))
    assert len(sent) == 3


# -- one harms no other -----------------------------------------------------------------------------------------------


async def test_data_that_the_server_refuses_is_an_error_of_nobody_elses(store: PostgresStore) -> None:
    records = await made(store, 5)
    edited = [following(record) for record in records]
    edited[2] = following(records[2], expires_at=2**63)
    answers = await asyncio.gather(*map(store.replace, edited), return_exceptions=True)
    assert [answer for n, answer in enumerate(answers) if n != 2] == [True] * 4
    assert isinstance(answers[2], StoreUnavailable)
    touches = [store.touch(record.id, 2**70 if n == 2 else START + HOUR, 1) for n, record in enumerate(records)]
    touched = await asyncio.gather(*touches, return_exceptions=True)
    assert [type(answer) for answer in touched] == [type(None), type(None), StoreUnavailable, type(None), type(None)]
    loaded = await asyncio.gather(*(store.load(record.id) for record in records))
    assert [record.seen_at for record in loaded if record is not None].count(START + HOUR) == 4


async def test_p6_a_row_that_somebody_holds_keeps_only_its_own_writer_waiting(make: Make, server: Any) -> None:
    """The others are written all the same, and whoever waits for it is told in time."""
    store = make(timeout=SHORT)
    records = await made(store, 5)
    with server.connect() as holder:
        holder.execute("SELECT 1 FROM coatcheck_record WHERE id = %s FOR UPDATE", (octets(records[2]),))
        answers = await asyncio.gather(*(store.replace(following(r)) for r in records), return_exceptions=True)
        assert [answer for n, answer in enumerate(answers) if n != 2] == [True] * 4
        assert isinstance(answers[2], StoreUnavailable)
    # Nobody knows whether a statement that was not answered in time was done; this one was, or can be.
    await asyncio.gather(store.replace(following(records[2])), return_exceptions=True)
    loaded = await store.load(records[2].id)
    assert loaded == following(records[2])
    await store.close()


async def test_p4_whoever_stops_waiting_stops_nothing(store: PostgresStore) -> None:
    """Half of those who wrote in one tick are cancelled while it is under way; all is written."""
    records = await made(store, 40)
    await half_stop_waiting(store, records, statements(store))


async def test_a_store_that_is_closed_has_written_what_was_asked_for(store: PostgresStore) -> None:
    await written_before_it_closes(store)


# -- no deadlocks -----------------------------------------------------------------------------------------------------


def is_free(server: Any, record: Record) -> bool:
    """Say whether nobody holds a record's row."""
    with server.connect() as connection:
        try:
            query = "SELECT 1 FROM coatcheck_record WHERE id = %s FOR UPDATE NOWAIT"
            connection.execute(query, (octets(record),))
        except psycopg.errors.LockNotAvailable:
            return False
    return True


async def until_blocked(server: Any) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'coatcheck' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(server.ask, query):  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


WRITES: dict[str, Callable[[PostgresStore, list[Record]], Any]] = {
    "replace": lambda store, records: asyncio.gather(*(store.replace(following(r)) for r in reversed(records))),
    "touch": lambda store, records: asyncio.gather(
        *(store.touch(r.id, r.seen_at + 1, r.expires_at + 1) for r in reversed(records))
    ),
    "revoke_subject": lambda store, _: store.revoke_subject("alice", START),
}


@pytest.mark.parametrize("write", WRITES)
async def test_who_wants_several_rows_takes_them_in_the_order_of_their_ids(make: Make, server: Any, write: str) -> None:
    """While the first is held by somebody, none of the others is: so two that wait for each other cannot be."""
    store = make(timeout=timedelta(seconds=20))
    records = sorted((make_record("alice") for _ in range(30)), key=octets)
    for record in reversed(records):  # not in the order of the table either
        assert await store.create(record)
    sent = statements(store)
    with server.connect() as holder:
        holder.execute("SELECT 1 FROM coatcheck_record WHERE id = %s FOR UPDATE", (octets(records[0]),))
        writing = asyncio.ensure_future(WRITES[write](store, records))
        await until_blocked(server)
        assert all(is_free(server, record) for record in records[1:])
    await writing
    assert len(sent) == 1  # a short wait is no reason to write each by itself
    await store.close()
