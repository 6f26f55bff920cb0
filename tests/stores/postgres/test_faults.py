"""P4 and P6 on PostgreSQL: damage, rows that others hold, a server that restarts, or has lost its standby.

What is the same for every networked store stands in `tests/stores/test_faults.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from ledger import NOTHING, Ledger
from postgres_sent import statements
from postgres_server import OwnServer

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_loop import LoopPool
from coatcheck.stores.postgres_pool import Options, read_url
from coatcheck.stores.postgres_rows import row_of
from coatcheck.stores.postgres_wire import AsyncConnection, Connection
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import HOUR, following, make_id

pytestmark = pytest.mark.anyio
Make = Callable[..., PostgresStore]

SHORT = timedelta(milliseconds=300)
WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
async def store(make: Make) -> AsyncIterator[PostgresStore]:
    store = make()
    await store.open()
    yield store
    await store.close()


async def created(store: PostgresStore, **changes: Any) -> Record:
    record = make_record(**changes)
    assert await store.create(record)
    return record


def idle_sessions(server: Any) -> list[str]:
    """What the store's sessions are doing."""
    query = "SELECT state FROM pg_stat_activity WHERE application_name = 'coatcheck'"
    return [state for (state,) in server.ask(query)]


async def settled(check: Callable[[], bool]) -> None:
    """Return when something is so; it must become so within 10 s."""
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(check):  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


# -- loads of one tick


async def test_50_loads_of_one_tick_are_one_query(store: PostgresStore) -> None:
    records = [await created(store) for _ in range(25)]
    sent = statements(store)
    ids = [record.id for record in records] + [make_id() for _ in range(25)]
    assert await asyncio.gather(*map(store.load, ids)) == [*records, *[None] * 25]
    assert len(sent) == 1
    assert "ANY" in sent[0]


async def test_a_load_sees_what_was_acknowledged_before_it_was_asked_for(store: PostgresStore) -> None:
    """A load never joins a query that was sent before it."""
    record = await created(store)
    for version in range(2, 30):
        earlier = asyncio.ensure_future(store.load(record.id))
        record = following(record)
        assert await store.replace(record)
        assert (found := await store.load(record.id)) is not None
        assert found.version == version
        await earlier


async def test_a_damaged_record_is_no_error_for_those_who_load_others_in_the_same_tick(
    store: PostgresStore, server: Any
) -> None:
    damaged, sound = await created(store), await created(store)
    server.ask("UPDATE coatcheck_record SET subject = 'bob' WHERE id = %s", base64url.decode(damaged.id))
    results = await asyncio.gather(store.load(damaged.id), store.load(sound.id), return_exceptions=True)
    assert isinstance(results[0], StoreUnavailable)
    assert results[1] == sound


def flipped(body: bytes, place: int) -> bytes:
    return bytes([*body[:place], body[place] ^ 16, *body[place + 1 :]])


async def test_p4_no_changed_octet_makes_a_record_somebody_elses(store: PostgresStore, server: Any) -> None:
    """Each octet of a body changed in turn, and one body in another's row: never returned, always removable."""
    sound = await created(store, subject="bob")
    rows = [row for _ in range(200) if (row := row_of(make_record("alice"))) is not None]
    del rows[len(rows[0][-1]) + 1 :]
    columns = [[*row[:-1], flipped(row[-1], n)] for n, row in enumerate(rows[:-1])]
    with server.connect() as connection, connection.cursor() as cursor:
        statement = "COPY coatcheck_record (id, subject, version, seen_at, expires_at, superseded, body) FROM STDIN"
        with cursor.copy(statement) as copy:
            for values in [*columns, [*rows[-1][:-1], rows[0][-1]]]:
                copy.write_row(values)
    ids = [base64url.encode(row[0]) for row in rows]
    results = await asyncio.gather(*map(store.load, [*ids, sound.id]), return_exceptions=True)
    assert [type(result) for result in results[:-1]] == [StoreUnavailable] * len(rows)
    assert results[-1] == sound
    for id in ids[:5]:
        with pytest.raises(StoreUnavailable, match="damaged"):
            await store.delete(id)
        assert await store.delete(id) is None
    assert sorted(await store.revoke_subject("alice", START)) == sorted(ids[5:])


# -- cancelled requests


async def test_p1_a_sign_out_that_was_begun_is_done_though_its_request_was_cancelled(
    store: PostgresStore, server: Any
) -> None:
    """It waits for a row that somebody holds when its request is cancelled, and goes on when that one lets go."""
    record = await created(store)
    with server.connect() as holder:
        holder.execute("SELECT 1 FROM coatcheck_record FOR UPDATE")
        leaving = asyncio.ensure_future(store.revoke_subject("alice", START))
        await settled(lambda: server.ask(WAITING) != [])
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
    async with asyncio.timeout(10):
        while await store.load(record.id) is not None:
            pass
    assert not await store.create(make_record("alice", created_at=START - 1))


# -- a server that does not answer


async def recovered(store: PostgresStore) -> None:
    """Return when a new session can be made and found; it must be so within 10 s, by the same object."""
    async with asyncio.timeout(10):
        while True:
            record = make_record("carol")
            try:
                if await store.create(record) and await store.load(record.id) == record:
                    return
            except StoreUnavailable:
                await asyncio.sleep(0.01)


async def test_p6_a_row_that_somebody_holds_is_waited_for_in_bounds(make: Make, server: Any) -> None:
    store = make(timeout=SHORT)
    record = await created(store)
    with server.connect() as holder:
        holder.execute("SELECT 1 FROM coatcheck_record FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            await store.delete(record.id)
        assert await store.load(record.id) == record  # readers do not wait
        assert await store.sweep(record.expires_at) == 0  # nor does the sweep
    assert await store.delete(record.id) == record
    await settled(lambda: set(idle_sessions(server)) == {"idle"})
    await store.close()


async def test_p6_connections_that_the_server_ended_cost_no_request(store: PostgresStore, server: Any) -> None:
    """The end of an idle connection is noticed before it is used."""
    record = await created(store)
    await asyncio.gather(*(store.list("alice") for _ in range(30)))
    assert len(idle_sessions(server)) > 1
    server.terminate_all()
    assert await store.load(record.id) == record
    server.terminate_all()
    assert await store.replace(following(record))


@pytest.mark.parametrize("end", [OwnServer.stop, OwnServer.kill])
async def test_p6_a_server_that_restarts_in_the_middle_of_transactions_is_found_again(
    end: Callable[[OwnServer], None], store: PostgresStore, own_server: OwnServer
) -> None:
    """What waits for a lock then is done or says that it is not; what was acknowledged before is so."""
    waiting = [await created(store, subject=f"waiting{number}") for number in range(4)]
    ledger = Ledger(store)
    async with ledger:
        await ledger.more(3)
        with contextlib.closing(own_server.connect()) as holder:
            ids = [base64url.decode(record.id) for record in waiting]
            holder.execute("SELECT 1 FROM coatcheck_record WHERE id = ANY (%s) FOR UPDATE", (ids,))
            calls = [store.delete(waiting[0].id), *(store.revoke_subject(r.subject or "", START) for r in waiting[1:])]
            tasks = [asyncio.ensure_future(call) for call in calls]
            await settled(lambda: len(own_server.ask(WAITING)) >= len(tasks))
            await asyncio.to_thread(end, own_server)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(own_server.start)
        await ledger.more(3)
    if end is OwnServer.kill:  # at once; when it is stopped, some may still get the lock of who was ended before them
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(tasks)
        assert await asyncio.gather(*(store.load(record.id) for record in waiting)) == waiting
    for record, outcome in zip(waiting, outcomes, strict=True):
        assert isinstance(outcome, StoreUnavailable) or await store.load(record.id) is None
    assert await ledger.wrong(store) == NOTHING


async def test_p9_an_attempt_to_connect_that_fails_leaves_nothing_open() -> None:
    """Not even until the garbage is collected: in an outage many fail."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = read_url(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/coats")
        gc.disable()
        try:
            attempts = (AsyncConnection.connect(url), asyncio.to_thread(Connection.connect, url))
            outcomes = await asyncio.gather(*attempts, return_exceptions=True)
            assert [isinstance(outcome, psycopg.Error) for outcome in outcomes] == [True, True]
            for _ in outcomes:
                heard, _ = silent.accept()
                with heard:
                    heard.settimeout(10)
                    while heard.recv(1024):
                        pass
        finally:
            gc.enable()


def test_a_program_that_ends_during_an_outage_ends() -> None:
    """Its event loop is shut down while the pool still tries to connect to a server that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        accepted: list[socket.socket] = []
        url = read_url(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/coats")

        async def program() -> None:
            await LoopPool(Options(url, "coatcheck", 1, 1.0), lambda _: None).open()
            heard, _ = await asyncio.to_thread(silent.accept)
            accepted.append(heard)

        thread = threading.Thread(target=lambda: asyncio.run(program()), daemon=True)
        thread.start()
        thread.join(10)
        for connection in accepted:
            connection.close()
    assert not thread.is_alive()
    assert len(accepted) == 1


async def test_p1_without_its_standby_nothing_is_acknowledged_but_a_touch(make: Make, own_server: Any) -> None:
    """A commit that waits for a standby is not done, not even when the wait is cancelled and the server says it is."""
    first = make()
    record = await created(first)
    await first.close()
    own_server.ask("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    own_server.ask("SELECT pg_reload_conf()")
    try:
        await settled(lambda: own_server.ask("SHOW synchronous_standby_names") == [("nobody",)])
        store = make(timeout=SHORT)
        await store.open()
        assert store.durability == "failover-safe"
        await store.touch(record.id, START + 1, START + 2 * HOUR)
        await asyncio.gather(*(store.touch(record.id, START + n, START + 2 * HOUR) for n in (2, 3)))
        for writes in ([store.create(make_record("alice"))], [store.replace(following(record)) for _ in range(2)]):
            answers = await asyncio.gather(*writes, return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailable}
        await store.close()

        store = make(timeout=timedelta(seconds=20))
        leaving = asyncio.ensure_future(store.revoke_subject("alice", START))
        query = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        async with asyncio.timeout(10):
            while not leaving.done():  # the one before waits for the standby as well
                await asyncio.to_thread(own_server.ask, query)
                await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            await leaving
    finally:
        own_server.ask("ALTER SYSTEM RESET synchronous_standby_names")
        own_server.ask("SELECT pg_reload_conf()")
        await settled(lambda: own_server.ask("SHOW synchronous_standby_names") == [("",)])
    await recovered(store)
    await store.close()


# -- connections after an error


_WHO: Any = "SELECT pg_backend_pid()"
_FAILS: Any = "SELECT 1 / $1::int"


async def test_p4_a_connection_is_not_used_again_after_an_error(make: Make) -> None:
    """Nobody can be sure what is left in it; the one connection of this pool is another one afterwards."""
    store = make(connections=1)
    await store.open()
    before = (await store._ask(_WHO, ())).rows
    with pytest.raises(StoreUnavailable, match="DivisionByZero"):
        await store._ask(_FAILS, (0,))
    assert (await store._ask(_WHO, ())).rows != before
    await store.close()


def test_p4_nor_where_no_event_loop_runs(make: Make) -> None:
    store = make(connections=1)
    run(store.open())
    before = run(store._ask(_WHO, ())).rows
    with pytest.raises(StoreUnavailable, match="DivisionByZero"):
        run(store._ask(_FAILS, (0,)))
    assert run(store._ask(_WHO, ())).rows != before
    run(store.close())
