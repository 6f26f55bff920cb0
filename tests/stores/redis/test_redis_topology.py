"""Slots that move, primaries that change, processes that fork: nothing is lost, and nobody is restarted (P1, P2)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from failovers import fail_over, of_cluster, sentinels
from redis.crc import key_slot
from valkey_server import Valkey

from coatcheck import Coatcheck
from coatcheck.core.record import Record
from coatcheck.errors import CredentialError, StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.redis import RedisStore
from coatcheck.testing import make_record
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(cluster: list[Any], prefix: str) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    await store.open()
    yield store
    await store.close()


def name_of(server: Any) -> str:
    return bytes(server.ask("CLUSTER", "MYID")).decode()


def record_at(store: RedisStore, server: Any, **changes: Any) -> Record:
    """A record that the server holds."""
    ranges = [entry for entry in server.ask("CLUSTER", "SLOTS") if server.port == entry[2][1]]
    while True:
        record = make_record("alice", **changes)
        slot = key_slot(store._key(record.id))
        if any(first <= slot <= last for first, last, *_ in (entry for entry in ranges)):
            return record


async def test_a_slot_that_is_moving_is_followed(store: RedisStore, cluster: list[Any]) -> None:
    """What the old server has is asked there, what it has not is asked of the new one (ASK); later all is (MOVED)."""
    old, new = cluster[0], cluster[1]
    stays = record_at(store, old)
    assert await store.create(stays)
    slot = key_slot(store._key(stays.id))
    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", name_of(old))
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", name_of(new))
    assert await store.load(stays.id) == stays
    assert await store.replace(following(stays))
    new.ask("SCRIPT", "FLUSH")
    old.ask("MIGRATE", "127.0.0.1", new.port, store._key(stays.id), 0, 1000)
    assert await store.load(stays.id) == following(stays)
    assert await store.replace(following(following(stays)))
    assert await store.list("alice") == [following(following(stays))]
    for server in (new, old, cluster[2]):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", name_of(new))
    assert await store.load(stays.id) == following(following(stays))
    assert await store.revoke_subject("alice", stays.created_at) == [stays.id]
    assert await store.list("alice") == []


async def test_a_replica_that_takes_over_is_found(store: RedisStore, cluster: list[Any]) -> None:
    """Records stay where they are served; the store learns by itself who serves them, and back again."""
    old, new = cluster[2], next(server for server in cluster[3:] if replicates(server, cluster[2]))
    record = record_at(store, old)
    assert await store.create(record)
    take_over(new)
    assert await store.load(record.id) == record
    assert await store.replace(following(record))
    take_over(old)
    assert await store.delete(record.id) == following(record)
    assert await store.list("alice") == []


def replicates(server: Any, primary: Any) -> bool:
    return bool(server.ask("ROLE")[2] == primary.port)


def take_over(server: Any) -> None:
    server.ask("CLUSTER", "FAILOVER")
    until(lambda: server.ask("ROLE")[0] == b"master")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The other two of these four are for `make soak`.
async def test_p1_p2_nothing_comes_back_and_nothing_is_lost_when_a_sentinel_promotes_a_replica(tmp_path: Path) -> None:
    """The primary dies amid writes; what one replica had to have before it was acknowledged is so at the next."""
    with sentinels(tmp_path, sentinels=1) as failover:
        seen = await fail_over(failover, Valkey.kill)
    assert min(seen.kept, seen.ended) > 40


async def test_p1_p2_the_same_when_a_primary_of_a_cluster_freezes(cluster: list[Valkey], prefix: str) -> None:
    """It answers nothing, and refuses nobody: whoever asks it where the others are waits in vain."""
    with of_cluster(cluster, prefix) as failover:
        seen = await fail_over(failover, Valkey.pause)
    assert min(seen.kept, seen.ended) > 40


@pytest.fixture
def replica(own_valkey: Any, tmp_path: Path) -> Any:
    (tmp_path / "replica").mkdir()
    of = ("--replicaof", "127.0.0.1", str(own_valkey.port))
    server = type(own_valkey)(tmp_path / "replica", "--appendonly", "yes", *of)
    until(lambda: server.ask("ROLE")[3] == b"connected")
    yield server
    server.kill()


async def test_p1_a_pending_sign_out_is_refused_here_at_once(own_valkey: Any, replica: Any) -> None:
    """No replica has it, so it is no success; but this process takes the cookie no more."""
    store = RedisStore.from_url(own_valkey.url, wait_replicas=1, timeout=timedelta(seconds=0.5))
    async with Coatcheck(store) as coat:
        one, other = [await coat.sessions.create("ann") for _ in range(2)]
        replica.pause()
        try:
            for ending in (coat.sessions.revoke(one.id or ""), coat.sessions.revoke_all("ann")):
                with pytest.raises(StoreUnavailable, match="pending"):
                    await ending
            for session in (one, other):
                assert session.cookie is not None
                with pytest.raises((CredentialError, StoreUnavailable)):
                    await coat.sessions.load(session.cookie)
        finally:
            replica.resume()


async def test_p1_a_sign_out_said_again_is_pending_until_the_replica_has_it(own_valkey: Any, replica: Any) -> None:
    """The second call finds nothing to do, on a connection that wrote nothing: that is no acknowledgement."""
    record = make_record("alice")
    stores = [RedisStore.from_url(own_valkey.url, wait_replicas=1, timeout=timedelta(seconds=0.5)) for _ in range(3)]
    assert await stores[0].create(record)
    replica.pause()
    try:
        for store in stores:
            await store.open()
            with pytest.raises(StoreUnavailable, match="pending"):
                await store.delete(record.id)
            assert await store.load(record.id) is None
    finally:
        replica.resume()
    until(lambda: own_valkey.ask("WAIT", 1, 100) == 1)
    assert await stores[1].delete(record.id) is None
    for store in stores:
        await store.close()


def test_a_forked_process_opens_connections_of_its_own(
    valkey: Any, prefix: str, together: Callable[..., list[int]]
) -> None:
    """A child that used its parent's connections would read its parent's replies (P4)."""
    store = RedisStore.from_url(valkey.url, prefix=prefix, timeout=timedelta(seconds=10))
    records = [make_record(f"user{number}") for number in range(40)]
    for record in records:
        assert run(store.create(record))

    def reader() -> None:
        for _ in range(5):
            for record in records:
                assert run(store.load(record.id)) == record

    assert together(reader, reader) == [0, 0]
    reader()
    run(store.close())
