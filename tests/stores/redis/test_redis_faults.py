"""Round trips, revocations step by step, and servers that forget their scripts or run out of memory (P1, P2).

What is the same for every networked store stands in `tests/stores/test_faults.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import redis
import ticks

from coatcheck import Coatcheck
from coatcheck.core.record import Device, Record, pack
from coatcheck.errors import StoreUnavailable
from coatcheck.feeds.local import LocalFeed
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_waiting import Wait
from coatcheck.testing import FaultProxy, make_record
from coatcheck.testing.records import following, make_id

pytestmark = pytest.mark.anyio

SHORT = timedelta(seconds=0.3)


@pytest.fixture
async def store(valkey: Any, prefix: str) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(valkey.url, prefix=prefix, timeout=timedelta(seconds=10))
    await store.open()
    yield store
    await store.close()


async def made(store: RedisStore, count: int, subject: str | None = "alice", **changes: Any) -> list[Record]:
    return await ticks.made(store, count, subject, **changes)


# -- one round trip -------------------------------------------------------------------------------------------------


async def test_the_loads_of_one_tick_are_one_command(store: RedisStore, valkey: Any) -> None:
    records = await made(store, 50)
    before = valkey.calls("mget")
    assert await asyncio.gather(*(store.load(record.id) for record in records)) == records
    assert valkey.calls("mget") - before == 1


async def test_an_untouched_session_writes_nothing(store: RedisStore, valkey: Any) -> None:
    [record] = await made(store, 1)
    before = {name: valkey.calls(name) for name in ("set", "setrange", "pexpireat", "evalsha", "get", "mget")}
    assert await store.load(record.id) == record
    after = {name: valkey.calls(name) for name in before}
    assert after == {**before, "mget": before["mget"] + 1}


async def test_p9_a_small_session_takes_at_most_600_bytes(store: RedisStore, valkey: Any, prefix: str) -> None:
    """With what a sign-in by a browser brings along, and with its share of the index."""
    browser = Device("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "203.0.113.7")
    for number in range(1000):
        data = {"cart": pack([number])}
        assert await store.create(make_record(f"user{number}", device=browser, amr=("pwd",), data=data))
    with valkey.client() as client:
        sizes = [client.memory_usage(key) for key in client.scan_iter(f"{prefix}:*", count=1000)]
    assert len(sizes) == 2000
    assert sum(sizes) / 1000 <= 600


# -- replies --------------------------------------------------------------------------------------------------------


async def test_p4_a_connection_whose_reply_is_late_is_never_used_again(valkey: Any, prefix: str) -> None:
    """It is closed, which the server hears of."""
    async with FaultProxy("127.0.0.1", valkey.port) as proxy:
        before = clients(valkey)
        store = RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", prefix=prefix, pool_size=1, timeout=SHORT)
        records = [make_record() for _ in range(2)]
        assert all([await store.create(record) for record in records])
        proxy.hold_replies()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.load(records[0].id)
            async with asyncio.timeout(10):
                while clients(valkey) > before:  # noqa: ASYNC110 (there is no event to wait for)
                    await asyncio.sleep(0.01)
        proxy.heal()
        assert await store.load(records[1].id) == records[1]
        await store.close()


def clients(valkey: Any) -> int:
    with valkey.client() as client:
        return len(client.client_list())


# -- revoking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True], ids=["everywhere", "the others"])
async def test_p1_nobody_survives_in_any_order_of_steps(cluster: list[Any], prefix: str, keep: bool) -> None:
    """Between the two steps of a create the whole revocation takes place; the record must not be stored after it."""
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    await store.open()
    kept = await made(store, int(keep))
    record = make_record("alice")
    ask, reached, go = store._ask, asyncio.Event(), asyncio.Event()

    async def slow(key: bytes, command: Command, wait: Wait | None = None) -> Any:
        if key == store._key(record.id):
            reached.set()
            await go.wait()
        return await ask(key, command, wait)

    store._ask = slow  # type: ignore[method-assign]
    signing_in = asyncio.create_task(store.create(record))
    await reached.wait()
    assert await store.revoke_subject("alice", record.created_at, *(each.id for each in kept)) == []
    go.set()
    assert not await signing_in
    assert await store.load(record.id) is None
    assert await store.list("alice") == kept
    await store.close()


async def test_p1_a_rotation_between_the_steps_of_a_revocation_is_undone(cluster: list[Any], prefix: str) -> None:
    """The ids have been read, none is buried: now a session takes a new id, younger than the cut-off."""
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    [old] = await made(store, 1)
    new = following(old, id=make_id(), created_at=old.created_at + 1)
    bury, rotated = store._bury, False

    async def late(subject: str, members: Sequence[bytes]) -> list[str]:
        nonlocal rotated
        if not rotated:
            assert await store.create(new)
            assert await store.replace(old.superseded(new.id, old.expires_at))
            rotated = True
        return await bury(subject, members)

    store._bury = late  # type: ignore[method-assign]
    assert await store.revoke_subject("alice", old.created_at) == [new.id]
    assert await store.load(new.id) is None
    assert await store.list("alice") == []
    await store.close()


@pytest.mark.parametrize("where", ["valkey", "cluster"])
async def test_p1_rotations_and_a_sign_out_everywhere(where: str, request: pytest.FixtureRequest, prefix: str) -> None:
    """Sessions that rotate without end are all ended by one revocation, though each new id is younger than it."""
    server = request.getfixturevalue(where)
    url = server.url if where == "valkey" else f"redis+cluster://127.0.0.1:{server[0].port}"
    store = RedisStore.from_url(url, prefix=prefix, timeout=timedelta(seconds=10))
    begun = asyncio.Semaphore(0)

    async def rotating(record: Record) -> None:
        while True:
            new = following(record, id=make_id(), created_at=record.created_at + 1000)
            begun.release()
            if not await store.create(new):  # it was buried before it was stored: the desk says Revoked
                return
            if not await store.replace(record.superseded(new.id, record.expires_at)):
                await store.delete(new.id)
                return
            record = new

    for _ in range(3):
        records = await made(store, 20)
        racers = [asyncio.create_task(rotating(record)) for record in records]
        for _ in range(60):
            await begun.acquire()
        await store.revoke_subject("alice", records[0].created_at)
        await asyncio.gather(*racers)
        assert await store.list("alice") == []
    await store.close()


async def test_a_list_is_the_truth_while_sessions_come_and_go(store: RedisStore) -> None:
    """Whoever was signed in before a list began and is still there after it is in it, and nobody who had gone."""
    there = await made(store, 10)
    gone = await made(store, 10)
    await asyncio.gather(*(store.delete(record.id) for record in gone))

    async def come_and_go() -> None:
        [record] = await made(store, 1)
        await store.delete(record.id)

    passing = [asyncio.create_task(come_and_go()) for _ in range(50)]
    ids = {record.id for record in await store.list("alice")}
    await asyncio.gather(*passing)
    assert {record.id for record in there} <= ids
    assert not {record.id for record in gone} & ids


async def test_p1_revoking_works_on_a_full_server(own_valkey: Any) -> None:
    store = RedisStore.from_url(own_valkey.url)
    await store.open()
    records = await made(store, 5)
    own_valkey.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await store.create(make_record("alice"))
    assert len(await store.revoke_subject("alice", records[0].created_at)) == 5
    assert await store.list("alice") == []
    own_valkey.ask("CONFIG", "SET", "maxmemory", "0")
    assert not await store.create(make_record("alice", created_at=records[0].created_at - 1))
    await store.close()


# -- servers --------------------------------------------------------------------------------------------------------


async def test_a_server_that_forgot_its_scripts_is_told_them_again(store: RedisStore, valkey: Any) -> None:
    [record] = await made(store, 1)
    valkey.ask("SCRIPT", "FLUSH")
    assert await store.replace(following(record))
    valkey.ask("SCRIPT", "FLUSH")
    assert await store.revoke_subject("alice", record.created_at) == [record.id]
    await made(store, 5, "bob")
    before = unknown_scripts(valkey)
    assert before > 0
    await made(store, 5, "bob")
    assert unknown_scripts(valkey) == before  # the first ones have told it


def unknown_scripts(valkey: Any) -> int:
    return int(valkey.ask("INFO", "errorstats")["errorstat_NOSCRIPT"]["count"])


async def test_p2_a_pending_sign_out_is_never_done(own_valkey: Any) -> None:
    """Without a replica that acknowledges, the answer is pending; the session is ended here all the same (P1)."""
    store = RedisStore.from_url(own_valkey.url)
    [record, other] = await made(store, 2)
    await store.close()
    waiting = RedisStore.from_url(own_valkey.url, wait_replicas=1, timeout=SHORT)
    await waiting.open()
    assert waiting.durability == "failover-safe"
    for work in (waiting.delete(record.id), waiting.delete(record.id), waiting.revoke_subject("alice", 1)):
        with pytest.raises(StoreUnavailable, match="pending"):
            await work
    assert await waiting.load(record.id) is None
    assert await waiting.load(other.id) == other
    await waiting.close()


async def test_p1_replicas_are_waited_for_on_a_full_server(cluster: list[Any], prefix: str) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    store = RedisStore.from_url(url, prefix=prefix, wait_replicas=1)
    await store.open()
    records = await made(store, 3)
    for server in cluster[:3]:
        server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert await store.delete(records[0].id) == records[0]
        assert len(await store.revoke_subject("alice", records[0].created_at)) == 2
    finally:
        for server in cluster[:3]:
            server.ask("CONFIG", "SET", "maxmemory", "0")
    await store.close()


def values_of(replica: Any, pattern: str) -> list[bytes]:
    with redis.Redis(port=replica.port, protocol=2, single_connection_client=True) as client:
        client.execute_command("READONLY")
        keys: list[Any] = [key for key in client.scan_iter(pattern) if b"{" not in key]
        values: Any = [client.execute_command("GET", key) for key in keys]
        return list(values)


async def test_p1_replicas_have_what_was_acknowledged(cluster: list[Any], prefix: str) -> None:
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[1].port}", prefix=prefix, wait_replicas=1)
    records = await made(store, 20)
    assert await store.delete(records[0].id) == records[0]
    assert len(await store.revoke_subject("alice", records[0].created_at)) == 19
    left = [value for replica in cluster[3:] for value in values_of(replica, f"{prefix}:*")]
    assert left == [b"\0"] * 19  # the graves
    await store.close()


async def test_a_record_expires_by_the_servers_clock(store: RedisStore, valkey: Any) -> None:
    """What is past by now is gone at once; a stump keeps its own, shorter time; a touch prolongs."""
    now = int(time.time() * 1000)
    gone = make_record("alice", expires_at=now - 1)
    assert await store.create(gone)
    assert await store.load(gone.id) is None
    assert await store.list("alice") == []
    record = make_record("alice", expires_at=now + 60_000, ends_at=now + 600_000)
    assert await store.create(record)
    key = store._key(record.id)
    await store.touch(record.id, now, now + 120_000)
    assert abs(valkey.client().pttl(key) - 120_000) < 10_000
    await store.touch(record.id, now, now + 3_600_000)
    assert abs(valkey.client().pttl(key) - 600_000) < 10_000  # dead by then, whatever touches
    assert await store.replace(following(record, successor=make_id(), expires_at=now + 30_000))
    assert abs(valkey.client().pttl(key) - 30_000) < 10_000


async def test_p1_a_subject_with_many_sessions_is_signed_out_everywhere_over_a_slow_line(
    own_valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is in time; all of them together need not be."""
    for module in ("redis", "redis_connections"):
        monkeypatch.setattr(f"coatcheck.stores.{module}._CHUNK", 5)
    async with FaultProxy("127.0.0.1", own_valkey.port) as proxy:
        store = RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}/0", timeout=timedelta(milliseconds=500))
        async with Coatcheck(store, feed=LocalFeed()) as coat:
            for _ in range(40):
                await coat.sessions.create("eve")
            proxy.delay(0.04)
            assert await coat.sessions.revoke_all("eve") == 40
            proxy.heal()
            assert await coat.sessions.list("eve") == []
