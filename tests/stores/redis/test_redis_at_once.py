"""Nearly all that is asked goes at once, without a task; whatever comes of it is answered as if it had not (P1, P3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from failovers import sentinels
from held_sync import HeldSync
from ticks import made
from valkey_server import AOF, Valkey

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_scripts import REPLACE, Call, call
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(valkey: Any, prefix: str) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(valkey.url, prefix=prefix, timeout=timedelta(seconds=10))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def everysec(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path, *AOF, "everysec")
    yield server
    server.kill()


def long_ways(store: RedisStore) -> list[str]:
    """Have listed what takes a task from now on: each round of sending there, and what is only finished there."""
    link: Any = store._here().link
    taken: list[str] = []

    def listed(name: str) -> Any:
        method = getattr(link, name)

        async def taking(*args: Any, **kwargs: Any) -> Any:
            taken.append(name)
            return await method(*args, **kwargs)

        return taking

    link._round, link.finish = listed("_round"), listed("finish")
    return taken


async def test_loads_and_writes_go_at_once(store: RedisStore) -> None:
    records = await made(store, 5, "alice")
    taken = long_ways(store)
    assert await asyncio.gather(*(store.load(record.id) for record in [*records, records[0]])) == [*records, records[0]]
    assert all(await asyncio.gather(*(store.replace(following(record)) for record in records)))
    await store.touch(records[0].id, records[0].seen_at + 5, records[0].expires_at)
    assert await store.delete(records[4].id) == following(records[4])
    assert taken == []


async def test_what_needs_more_than_an_idle_connection_goes_the_long_way(cluster: list[Any], prefix: str) -> None:
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    [record] = await made(store, 1)
    taken = long_ways(store)
    assert await store.load(record.id) == record
    assert taken == ["_round"]
    await store.close()


async def test_a_primary_that_sentinels_have_named_is_asked_at_once_until_it_is_lost(tmp_path: Path) -> None:
    with sentinels(tmp_path, sentinels=1) as failover:
        store = failover.store(timeout=timedelta(seconds=10))
        [record] = await made(store, 1, "alice")
        taken = long_ways(store)
        assert await store.load(record.id) == record
        assert await store.replace(following(record))
        assert taken == []
        assert store._here().link.only() is not None
        failover.primary.kill()
        with pytest.raises(StoreUnavailable):
            await store.load(record.id)
        assert store._here().link.only() is None
        await store.close()


async def test_a_script_that_was_forgotten_is_told_and_nothing_else_is_done_twice(own_valkey: Any) -> None:
    store = RedisStore.from_url(own_valkey.url, timeout=timedelta(seconds=10))
    [record] = await made(store, 1)
    count, key, taken = b"count", store._key(record.id), long_ways(store)
    own_valkey.ask("SCRIPT", "FLUSH")

    async def counted() -> Any:
        return await store._ask(count, ("INCR", count), store._wait)

    replaced, *counts = await asyncio.gather(
        store.replace(following(record)),
        *(counted() for _ in range(2)),
    )
    assert (replaced, counts) == (True, [1, 2])
    assert taken == ["finish", "_round"]
    assert await store.load(record.id) == following(record)
    refused = call(REPLACE, (key,), b"", "0")
    with pytest.raises(StoreUnavailable, match="refuses"):
        await store._here().ask(Call(key, refused), store._wait)
    await store.close()


async def test_a_key_that_holds_something_else_is_no_error_of_the_others(store: RedisStore, valkey: Any) -> None:
    """MGET finds nothing there."""
    records = await made(store, 3)
    key = store._key(records[1].id)
    valkey.ask("DEL", key)
    valkey.ask("RPUSH", key, "not", "ours")
    found = await asyncio.gather(*(store.load(record.id) for record in records))
    assert found == [records[0], None, records[2]]


async def test_a_server_that_refuses_to_be_read_says_so(own_valkey: Any) -> None:
    own_valkey.ask("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all")
    store = RedisStore.from_url(own_valkey.url.replace("//", "//ann:secret@"), allow_volatile=True)
    [record] = await made(store, 1)
    own_valkey.ask("ACL", "SETUSER", "ann", "-mget")
    with pytest.raises(StoreUnavailable, match="NoPermission"):
        await store.load(record.id)
    own_valkey.ask("ACL", "SETUSER", "ann", "+mget")
    assert await store.load(record.id) == record
    await store.close()


async def test_p1_p2_what_went_at_once_is_acknowledged_when_the_log_has_it(everysec: Valkey) -> None:
    store = RedisStore.from_url(everysec.url, timeout=timedelta(seconds=30))
    old, gone = await made(store, 2)
    taken = long_ways(store)
    with HeldSync(everysec) as held:
        writing = [asyncio.ensure_future(store.replace(following(old))), asyncio.ensure_future(store.delete(gone.id))]
        while taken != ["finish"]:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0)
        assert await store.load(gone.id) is None
        assert not any(future.done() for future in writing)
        held.release()
        assert await asyncio.gather(*writing) == [True, gone]
    await store.close()


async def test_p6_what_goes_on_in_a_task_has_the_time_that_was_left(everysec: Valkey) -> None:
    """And not as much again."""
    store = RedisStore.from_url(everysec.url, timeout=timedelta(seconds=30))
    [record] = await made(store, 1)
    drive: Any = store._here().drive
    in_time, limits = drive.in_time, list[tuple[float, float | None]]()

    async def limited(step: Any, *, until: float | None = None) -> Any:
        limits.append((drive.deadline(), until))
        return await in_time(step, until=until)

    drive.in_time = limited
    with HeldSync(everysec) as held:
        writing = asyncio.ensure_future(store.replace(following(record)))
        while not limits:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0)
        held.release()
        assert await writing
    later, until = limits[0]
    assert until is not None
    assert until < later
    await store.close()


@pytest.mark.parametrize("way", ["load", "replace"])
async def test_p6_a_server_that_is_gone_is_unavailable_and_found_again(own_valkey: Any, way: str) -> None:
    store = RedisStore.from_url(own_valkey.url, timeout=timedelta(seconds=10))
    records: Sequence[Any] = await made(store, 3)
    ask = store.load if way == "load" else None
    own_valkey.kill()
    asking = [ask(record.id) if ask else store.replace(following(record)) for record in records]
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    own_valkey.start()
    assert [await store.load(record.id) for record in records] == records
    await store.close()
