"""What nearly every request asks goes at once, over a connection that is kept, and is answered as ever (P4, P6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncRawCursor
from ticks import made

from coatcheck.core.record import pack
from coatcheck.errors import StoreUnavailable
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_kept import Kept
from coatcheck.stores.postgres_loop import LoopPool
from coatcheck.stores.postgres_statement import (
    BOOL,
    BOOLS,
    BYTEA,
    BYTEAS,
    INT4,
    INT4S,
    INT8,
    INT8S,
    TEXT,
    TEXTS,
    Kind,
    Statement,
)
from coatcheck.stores.postgres_wire import AsyncConnection, TooLate
from coatcheck.stores.time_limit import TimeLimit
from coatcheck.testing import make_record
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio
Make = Callable[..., PostgresStore]

SHORT = timedelta(milliseconds=300)
LONG = timedelta(seconds=20)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[PostgresStore]:
    store = make(timeout=LONG)
    await store.open()
    yield store
    await store.close()


def pool_of(store: PostgresStore) -> Any:
    return store._loops[asyncio.get_running_loop()].pool


def long_ways(store: PostgresStore) -> list[str]:
    """Have the statements listed that take a task and a cursor from now on."""
    pool = pool_of(store)
    answer, taken = pool.answer, list[str]()

    async def listed(query: str, *rest: Any, **named: Any) -> Any:
        taken.append(query)
        return await answer(query, *rest, **named)

    pool.answer = listed
    return taken


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


# -- the store


async def test_loads_and_writes_go_at_once(store: PostgresStore) -> None:
    records = await made(store, 5, "älice")
    taken = long_ways(store)
    assert await asyncio.gather(*(store.load(record.id) for record in [*records, records[0]])) == [*records, records[0]]
    assert await store.load(records[0].id) == records[0]
    assert await store.load(make_record().id) is None
    edited = [following(record) for record in records]
    assert await asyncio.gather(*map(store.replace, edited)) == [True] * 5
    assert not await store.replace(edited[0])
    assert await store.replace(following(edited[0]))
    await store.touch(records[1].id, records[1].seen_at + 5, records[1].expires_at)
    await asyncio.gather(*(store.touch(record.id, record.seen_at + 6, record.expires_at) for record in records))
    assert taken == []
    loaded = await asyncio.gather(*(store.load(record.id) for record in records))
    assert [(record.version, record.seen_at) for record in loaded if record is not None] == [
        (3 if n == 0 else 2, record.seen_at + 6) for n, record in enumerate(records)
    ]


async def test_what_is_larger_than_any_buffer_goes_as_well(store: PostgresStore) -> None:
    """The socket takes it bit by bit, and what comes does so."""
    records = await made(store, 64)
    taken = long_ways(store)
    edited = [following(record, data={"much": pack(bytes([n]) * 200_000)}) for n, record in enumerate(records)]
    assert all(await asyncio.gather(*map(store.replace, edited)))
    assert await asyncio.gather(*(store.load(record.id) for record in records)) == edited
    assert taken == []


async def test_loads_and_writes_of_one_tick_go_beside_each_other(store: PostgresStore) -> None:
    read, written, used = await made(store, 4), await made(store, 4), await made(store, 4)
    for _ in range(10):
        written = [following(record) for record in written]
        loads = (store.load(record.id) for record in read)
        touches = (store.touch(record.id, record.seen_at, record.expires_at) for record in used)
        assert await asyncio.gather(*loads, *map(store.replace, written), *touches) == [*read, *[True] * 4, *[None] * 4]
    pool = pool_of(store)
    assert 1 < pool._kept <= 3
    assert len(pool._idle) == pool._kept


async def test_p9_those_that_are_kept_are_among_those_that_there_may_be(make: Make, server: Any) -> None:
    """Whoever needs one gets it, though all are kept: nobody waits for a connection that waits for nobody."""
    store = make(connections=2, timeout=LONG)
    records = await made(store, 20, "alice")
    for record in records:
        await asyncio.gather(
            store.load(record.id),
            store.list("alice"),
            store.replace(following(record)),
            store.create(make_record("bob")),
            store.touch(record.id, 1, 1),
        )
    sessions = server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'coatcheck'")
    assert sessions == [(2,)]
    await store.close()


async def test_whoever_waits_for_a_connection_gets_one_that_was_kept(make: Make) -> None:
    store = make(connections=1, timeout=LONG)
    records = await made(store, 3, "alice")
    for _ in range(20):
        loading = asyncio.ensure_future(store.load(records[0].id))
        await asyncio.sleep(0)
        found, other, listed = await asyncio.gather(store.load(records[1].id), loading, store.list("alice"))
        assert (found, other, len(listed)) == (records[1], records[0], 3)
    await store.close()


async def test_one_that_was_kept_for_long_goes_back_to_the_pool(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may renew it, or let it go."""
    [record] = await made(store, 1)
    pool = pool_of(store)
    assert await store.load(record.id) == record
    assert pool._kept == 1
    monkeypatch.setattr("coatcheck.stores.postgres_loop._LONGEST", -1)
    taken = long_ways(store)
    assert await store.load(record.id) == record
    assert pool._kept == 0
    monkeypatch.undo()
    assert await store.load(record.id) == record
    assert (len(taken), pool._kept) == (1, 1)


async def test_p6_the_end_of_one_that_is_kept_is_noticed(store: PostgresStore, server: Any) -> None:
    [record] = await made(store, 1)
    assert await store.load(record.id) == record
    pool = pool_of(store)
    await asyncio.to_thread(server.terminate_all)
    await until(lambda: pool._kept == 0 and not pool._idle)
    assert await store.load(record.id) == record
    server.terminate_all()  # and now it is not noticed before it is used
    assert await store.replace(following(record))


async def test_p6_a_load_whose_connection_is_lost_is_asked_again(make: Make, server: Any) -> None:
    """It waits for a table that somebody has locked when its session is ended."""
    store = make(timeout=LONG)
    [record, other] = await made(store, 2)
    taken = long_ways(store)
    with server.connect() as holder:
        holder.execute("LOCK TABLE coatcheck_record")
        loading = [asyncio.ensure_future(store.load(each.id)) for each in (record, other)]
        waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'coatcheck' AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(server.ask, waiting):  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.01)
        assert taken == []
        await asyncio.to_thread(server.terminate_all)
    assert await asyncio.gather(*loading) == [record, other]
    assert len(taken) == 1
    await store.close()


@pytest.mark.parametrize(
    ("way", "count", "again"), [("load", 1, 0), ("load", 3, 0), ("replace", 1, 0), ("replace", 3, 3)]
)
async def test_p6_what_is_not_answered_in_time_is_unavailable(
    make: Make, server: Any, way: str, count: int, again: int
) -> None:
    """Its connection is closed, and the next one is asked. Only several writes are tried again, each by itself."""
    store = make(timeout=SHORT)
    records = await made(store, count)
    asked = {"load": lambda record: store.load(record.id), "replace": lambda record: store.replace(following(record))}
    taken = long_ways(store)
    with server.connect() as holder:
        holder.execute("LOCK TABLE coatcheck_record")
        answers = await asyncio.gather(*map(asked[way], records), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert len(taken) == again
    async with asyncio.timeout(10):
        while isinstance((await asyncio.gather(store.load(records[0].id), return_exceptions=True))[0], Exception):
            pass
    await store.close()


async def test_a_number_that_is_too_large_is_for_the_server_to_refuse(store: PostgresStore) -> None:
    [record] = await made(store, 1)
    taken = long_ways(store)
    with pytest.raises(StoreUnavailable):
        await store.touch(record.id, 2**70, 1)
    assert len(taken) == 1


async def test_a_connection_that_speaks_otherwise_is_not_kept(server: Any, schema: str) -> None:
    """The values are written in UTF-8."""
    store = PostgresStore(f"{server.url}?client_encoding=latin1", schema=schema)
    [record] = await made(store, 1, "älice")
    assert await store.load(record.id) == record
    assert await store.replace(following(record))
    assert [each.subject for each in await store.list("älice")] == ["älice"]
    assert pool_of(store)._kept == 0
    await store.close()


async def test_a_store_that_is_closed_amid_an_answer_leaves_nothing_open(make: Make, server: Any) -> None:
    store = make()
    [record] = await made(store, 1)
    assert await store.load(record.id) == record
    loading = asyncio.ensure_future(store.load(record.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.close()
    assert await loading == record
    sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'coatcheck'"
    async with asyncio.timeout(10):
        while await asyncio.to_thread(server.ask, sessions):  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


# -- one connection


class Asked:
    """A connection that is kept, and what was heard."""

    def __init__(self, connection: AsyncConnection, seconds: float) -> None:
        self.free = 0
        self.kept = Kept(connection, TimeLimit(seconds), self._freed)

    def _freed(self, _kept: Kept) -> None:
        self.free += 1

    async def ask(self, statement: Statement, *values: Any) -> Any:
        heard: list[Any] = []
        self.kept.ask(statement, statement.pack(values), heard.append)
        await until(lambda: heard)
        return heard[0]


async def kept(server: Any, *statements: Statement, seconds: float = 20) -> Asked:
    connection = await AsyncConnection.connect(server.url, autocommit=True, cursor_factory=AsyncRawCursor)
    connection.add_notice_handler(connection.hear)
    for statement in statements:
        await connection.execute(statement.preparation.encode())
    return Asked(connection, seconds)


def statement(name: LiteralString, query: LiteralString, *kinds: Kind) -> Statement:
    return Statement(name, kinds, query)


ONE = statement("one", "SELECT $1, $2, $3, $4, $5", BYTEA, TEXT, INT4, INT8, BOOL)
MANY = statement("many", "SELECT $1, $2, $3, $4, $5", BYTEAS, TEXTS, INT4S, INT8S, BOOLS)
FAILS = statement("fails", "SELECT 1 / $1", INT4)
SLEEPS = statement("sleeps", "SELECT pg_sleep($1)", INT4)

TEXT_OF_POSTGRES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ROWS = st.tuples(
    st.binary(),
    st.none() | TEXT_OF_POSTGRES,
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
)


@pytest.fixture
async def both(server: Any) -> AsyncIterator[Asked]:
    asked = await kept(server, ONE, MANY)
    yield asked
    await asked.kept.leave().close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=1, max_size=20))
async def test_values_come_to_the_server_as_they_are(both: Asked, rows: list[tuple[Any, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    assert (await both.ask(MANY, *columns)).rows == [tuple(columns)]
    assert (await both.ask(ONE, *rows[0])).rows == [rows[0]]


@pytest.mark.parametrize("row", [(b"", "", 2**31, 0, True), (b"", "", 0, 2**63, True), (b"", "", "1", 0, True)])
def test_what_is_no_such_number_is_refused(row: Sequence[Any]) -> None:
    with pytest.raises(ValueError):
        ONE.pack(row)
    with pytest.raises(ValueError):
        MANY.pack([[value] for value in row])


async def test_p4_a_connection_that_has_shown_an_error_is_closed(server: Any) -> None:
    asked = await kept(server, FAILS)
    assert (await asked.ask(FAILS, 1)).rows == [(1,)]
    assert isinstance(await asked.ask(FAILS, 0), psycopg.errors.DivisionByZero)
    assert asked.kept.connection.closed
    assert asked.free == 2


async def test_p1_a_warning_is_no_acknowledgement(server: Any) -> None:
    """A commit that no longer waits for its standby says so in one, and succeeds."""
    function = "CREATE FUNCTION pg_temp.warns() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE WARNING ''lost''; END'"
    asked = await kept(server)
    warns = statement("warns", "SELECT pg_temp.warns()")
    for query in (function, "PREPARE warns AS SELECT pg_temp.warns()"):
        await asked.kept.leave().execute(query.encode())
    asked = Asked(asked.kept.connection, 20)
    assert isinstance(await asked.ask(warns), TooLate)
    assert asked.kept.connection.closed


async def test_p4_what_cannot_be_read_is_told_and_its_connection_closed(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise KeyError

    asked = await kept(server, ONE)
    monkeypatch.setattr(asked.kept, "_rows", unreadable)
    assert isinstance(await asked.ask(ONE, b"", "", 0, 0, True), KeyError)
    assert asked.kept.connection.closed
    assert str(LoopPool.as_unavailable(KeyError())) == "PostgreSQL's answer cannot be read"


async def test_p4_who_is_late_is_closed_and_says_nothing_more(server: Any) -> None:
    asked = await kept(server, SLEEPS, seconds=0.05)
    assert isinstance(await asked.ask(SLEEPS, 600), TooLate)
    assert asked.kept.connection.closed
    assert asked.free == 1


async def test_p4_one_that_speaks_unasked_is_closed(server: Any) -> None:
    asked = await kept(server, ONE)
    assert asked.kept.fresh
    server.ask("SELECT pg_terminate_backend(%s)", asked.kept.connection.info.backend_pid)
    await until(lambda: not asked.kept.fresh)
    await until(lambda: asked.free)
    assert asked.kept.connection.closed
