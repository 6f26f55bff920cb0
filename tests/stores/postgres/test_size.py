"""What a session costs on PostgreSQL, and that sweeping it away disturbs nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coatcheck.core import base64url
from coatcheck.core.record import Device, Record, pack
from coatcheck.stores.postgres import _CHUNK, PostgresStore
from coatcheck.stores.postgres_rows import row_of
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import HOUR, following

pytestmark = pytest.mark.anyio
MANY = 20_000


@pytest.fixture
async def store(make: Callable[..., PostgresStore]) -> AsyncIterator[PostgresStore]:
    store = make()
    await store.open()
    yield store
    await store.close()


def fill(server: Any, records: list[Record]) -> None:
    columns = "id, subject, version, seen_at, expires_at, superseded, body"
    with server.connect() as connection:
        copying = f"COPY coatcheck_record ({columns}) FROM STDIN".encode()
        with connection.cursor().copy(copying) as copy:
            for record in records:
                copy.write_row(row_of(record) or ())
    server.ask("ANALYZE coatcheck_record")


async def test_a_session_costs_at_most_400_bytes_with_its_indexes(
    store: PostgresStore, server: Any, record_property: Callable[[str, object], None]
) -> None:
    """A session with a device and a small value, of a subject with two of them."""
    device = Device("Firefox on Linux", "203.0.113.7")
    data = {"theme": pack("dark")}
    fill(server, [make_record(f"user-{n // 2}", device=device, data=data, amr=("pwd",)) for n in range(MANY)])
    [(whole, table)] = server.ask(
        "SELECT pg_total_relation_size('coatcheck_record'), pg_relation_size('coatcheck_record')"
    )
    record_property("bytes_per_session", whole / MANY)
    record_property("bytes_per_session_without_indexes", table / MANY)
    assert whole / MANY <= 400


async def test_most_touches_write_no_index(store: PostgresStore, server: Any) -> None:
    """A touch that leaves `due` as it is stays inside of its page."""
    record = make_record("alice")
    assert await store.create(record)
    for n in range(1, 200):
        await store.touch(record.id, START + n, record.expires_at + n)
    await store.close()  # a session reports its statistics when it ends
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = %s::regclass"
    async with asyncio.timeout(10):
        while True:
            [(updates, inside)] = server.ask(query, "coatcheck_record")
            if updates == 199:
                break
            await asyncio.sleep(0.01)
    assert inside >= 190


async def test_a_sweep_of_many_chunks_leaves_the_living_and_stops_no_writer(store: PostgresStore, server: Any) -> None:
    """Thousands of expired records in several chunks, while one of them is held and others are written."""
    expired = [make_record("alice", expires_at=START - n * 50_000) for n in range(5 * _CHUNK + 7)]
    alive = [make_record("bob", expires_at=START + 1 + n) for n in range(300)]
    held = make_record("carol", expires_at=START - 1)
    fill(server, [*expired, *alive, held])
    sweeping = True
    rounds = 0

    async def writer() -> None:
        nonlocal rounds
        while sweeping:
            for n, record in enumerate(alive[:3]):
                alive[n] = following(record)
                assert await store.replace(alive[n])
            rounds += 1

    with server.connect() as holder:
        query = "SELECT 1 FROM coatcheck_record WHERE id = %s FOR UPDATE"
        holder.execute(query, (base64url.decode(held.id),))
        writing = asyncio.ensure_future(writer())
        try:
            removed = await asyncio.gather(store.sweep(START), store.sweep(START))
        finally:
            sweeping = False
            await writing
    assert sum(removed) == len(expired)
    assert rounds > 0
    assert await store.list("alice") == []
    assert await store.list("carol") == [held]
    assert {record.id: record for record in await store.list("bob")} == {record.id: record for record in alive}
    assert await store.sweep(START) == 1


async def test_a_sweep_uses_the_index(store: PostgresStore, server: Any) -> None:
    """Looking for what has expired reads a part of the index, not the table."""
    fill(server, [make_record(None, expires_at=START + n * HOUR) for n in range(3000)])
    looking = "SELECT id FROM coatcheck_record WHERE due BETWEEN 0 AND %s::bigint >> 18 ORDER BY due LIMIT 500"
    plan = server.ask(f"EXPLAIN {looking}", START)
    assert any("coatcheck_record_due" in line for (line,) in plan)
