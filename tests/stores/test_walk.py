"""Every store of ours can be walked: what is there during the whole walk is yielded, and what is damaged is named."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from places import KINDS, Places, place
from redis.cluster import RedisCluster

from coatcheck.core import base64url
from coatcheck.core.record import Record, pack
from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.store import Page, Store, Walkable
from coatcheck.stores import file, memory, postgres_walk, redis_walk, sqlite, store_from_url
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import following

__all__ = ["place"]

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (file, memory, postgres_walk, redis_walk, sqlite):
        monkeypatch.setattr(module, "PAGE", 7)


@pytest.fixture(params=["memory", *KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, place: Places) -> str:
    return f"{kind}:" if kind in {"memory", "postgres"} else place(kind)


@pytest.fixture
async def store(kind: str, url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    # A schema of its own costs less than the database of its own that a URL needs.
    store = request.getfixturevalue("make")() if kind == "postgres" else store_from_url(url)
    await store.open()
    yield store
    await store.close()


def walkable(store: Store) -> Walkable:
    assert isinstance(store, Walkable)
    return store


async def walked(store: Store) -> tuple[dict[str, Record], set[str]]:
    records: dict[str, Record] = {}
    damaged: set[str] = set()
    async for page in walkable(store).walk():
        records |= {record.id: record for record in page.records}
        damaged |= set(page.damaged)
    return records, damaged


async def all_created(store: Store, *records: Record) -> dict[str, Record]:
    assert all(await asyncio.gather(*(store.create(record) for record in records)))
    return {record.id: record for record in records}


async def test_every_record_is_yielded_as_it_is_stored(store: Store) -> None:
    """Those of nobody, the stumps, and all that belongs to a record."""
    made = [make_record(f"subject {number % 5}", data={"n": pack(number)}, version=number + 1) for number in range(20)]
    # So many in one of a file store's folders that they are several pages.
    made += [make_record("ann", id=base64url.encode(b"\7" + secrets.token_bytes(15))) for _ in range(20)]
    made += [make_record(None), make_record("täuschung", persistent=True, amr=("pwd",), generation=3)]
    stored = await all_created(store, *made)
    stump = following(made[0], successor=made[1].id, data={}, expires_at=START + 1000)
    assert await store.replace(stump)
    assert await walked(store) == ({**stored, stump.id: stump}, set())


async def test_an_empty_store_is_walked_at_once_and_has_no_size(store: Store) -> None:
    assert await walked(store) == ({}, set())
    assert await walkable(store).size() == 0


async def test_the_size_is_about_how_many_records_there_are(store: Store, kind: str) -> None:
    """Redis is asked for a sample only, of keys among which there are those of other tests."""
    await all_created(store, *(make_record(f"subject {number % 3}") for number in range(200)))
    size = await walkable(store).size()
    assert 50 < size < 800 if kind in {"redis", "cluster"} else size == 200


async def test_what_is_there_during_the_whole_walk_is_yielded_whatever_comes_and_goes(store: Store) -> None:
    staying = await all_created(store, *(make_record(f"stays {number % 3}") for number in range(30)))
    going = await all_created(store, *(make_record("goes") for _ in range(10)))
    seen: set[str] = set()
    async for page in walkable(store).walk():
        seen |= {record.id for record in page.records}
        if going:
            await all_created(store, make_record("comes"), make_record("comes"))
            await store.delete(going.popitem()[0])
    assert seen >= staying.keys()


async def test_a_walk_that_is_left_early_leaves_the_store_usable(store: Store) -> None:
    await all_created(store, *(make_record("alice") for _ in range(20)))
    async with aclosing(cast("Any", walkable(store).walk())) as pages:
        async for _ in pages:
            break
    assert len((await walked(store))[0]) == 20


async def test_what_has_been_signed_out_everywhere_is_not_yielded(store: Store) -> None:
    """P1: neither its record nor the grave in its place."""
    await all_created(store, *(make_record("alice") for _ in range(9)))
    staying = await all_created(store, make_record("bob"))
    await store.revoke_subject("alice", START + 1)
    assert await walked(store) == (staying, set())


def flip_file(url: str, id: str, request: pytest.FixtureRequest) -> None:
    name = base64url.decode(id).hex()
    path = Path(url.removeprefix("file://")) / "records" / name[:2] / name
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def flip_row(url: str, id: str, request: pytest.FixtureRequest) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        change = "UPDATE coatcheck_record SET subject = CAST(x'ff' AS TEXT) WHERE id = ?"
        connection.execute(change, (base64url.decode(id),))
    connection.close()


def flip_value(url: str, id: str, request: pytest.FixtureRequest) -> None:
    address, _, options = url.partition("?")
    prefix = options.partition("=")[2].partition("&")[0]
    clustered = address.startswith("redis+cluster")
    host, _, port = address.rpartition("/")[2].partition(",")[0].partition(":")
    single = None if clustered else redis.Redis.from_url(address, protocol=2)
    client: Any = single or RedisCluster(host=host, port=int(port), protocol=2)
    with client:
        value = bytearray(client.get(f"{prefix}:{id}"))
        value[90] ^= 1
        client.set(f"{prefix}:{id}", bytes(value), keepttl=True)


def flip_tuple(url: str, id: str, request: pytest.FixtureRequest) -> None:
    change = "UPDATE coatcheck_record SET subject = 'mallory' WHERE id = %s"
    request.getfixturevalue("server").ask(change, base64url.decode(id))


FLIPS = {"file": flip_file, "sqlite": flip_row, "redis": flip_value, "cluster": flip_value, "postgres": flip_tuple}


@pytest.mark.parametrize("kind", KINDS, indirect=True)
async def test_p4_a_damaged_record_is_named_and_keeps_no_other_from_being_yielded(
    store: Store, kind: str, url: str, request: pytest.FixtureRequest
) -> None:
    stored = await all_created(store, *(make_record(f"subject {number % 3}") for number in range(20)))
    first, *_, last = stored
    for id in (first, last):
        FLIPS[kind](url, id, request)
        del stored[id]
    assert await walked(store) == (stored, {first, last})


@pytest.mark.parametrize("kind", ["redis", "cluster"], indirect=True)
async def test_what_else_lies_under_the_prefix_is_no_record(store: Store, url: str) -> None:
    await all_created(store, *(make_record("alice") for _ in range(3)))
    prefix = url.partition("=")[2].partition("&")[0]
    ours = cast("Any", store)
    for key in (f"{prefix}:{{x}}d:accounts", f"{prefix}:w{{x}}", f"{prefix}:short", f"{prefix}x:{'A' * 22}"):
        assert await ours._ask(key.encode(), ("SET", key, "x", "PX", 60_000)) == b"OK"
    records, damaged = await walked(store)
    assert (len(records), damaged) == (3, set())


@pytest.mark.parametrize("kind", ["cluster"], indirect=True)
async def test_a_walk_during_which_slots_have_moved_does_not_end_as_if_it_had_seen_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: a key may slip through between two servers, and a session that is not copied is lost."""
    await all_created(store, *(make_record("alice") for _ in range(3)))
    said: Iterator[Any] = iter([[[0, 16383]], [[0, 16382]]])
    ask = redis_walk._ask

    async def answer(here: Any, address: Any, command: Any) -> Any:
        return next(said) if command[0] == "CLUSTER" else await ask(here, address, command)

    monkeypatch.setattr(redis_walk, "_ask", answer)
    with pytest.raises(StoreUnavailable, match="slots have moved"):
        await walked(store)


def test_a_store_is_walked_without_an_event_loop_as_well() -> None:
    store = MemoryStore()
    record = make_record()
    assert run(store.create(record))
    assert run(cast("Any", store.walk().__aiter__().__anext__())) == Page((record,))
