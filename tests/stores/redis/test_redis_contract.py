"""RedisStore keeps the contract on one server and on a Cluster, in an event loop and without one."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores.redis import RedisStore
from coatcheck.testing import StoreContract, make_record
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio


class Driven:
    """A RedisStore as WSGI uses it: every call is driven by `run`, on a thread that has no event loop."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        import asyncio

        method = getattr(self._store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        @functools.wraps(method)
        async def driven(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(lambda: run(method(*args, **kwargs)))

        return driven


def url_of(where: str, request: pytest.FixtureRequest) -> str:
    from_cluster = {"cluster": True, "cluster without a loop": True}.get(where, False)
    if not from_cluster:
        return str(request.getfixturevalue("single_url"))
    servers = request.getfixturevalue("cluster")
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[:3])


@pytest.fixture(params=["single", "cluster", "cluster without a loop"])
def url(request: pytest.FixtureRequest) -> str:
    return url_of(request.param, request)


@pytest.fixture
async def store(url: str, prefix: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = RedisStore.from_url(url, prefix=prefix, allow_volatile=True)
    without_loop = "without a loop" in request.node.callspec.params["url"]
    store: Any = Driven(made) if without_loop else made
    await store.open()
    yield store
    await store.close()


def raw(url: str) -> Any:
    address = url.rpartition("/")[2].split(",")[0] if "cluster" in url else ""
    if address:
        host, _, port = address.partition(":")
        return RedisCluster(host=host, port=int(port), protocol=2)
    return redis.Redis.from_url(url, protocol=2)


class TestRedis(StoreContract):
    @pytest.fixture(autouse=True)
    def _where(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix

    async def damage(self, store: Store, id: str) -> None:
        flip(self._url, f"{self._prefix}:{id}", 90)


def flip(url: str, key: str, place: int) -> None:
    with raw(url) as client:
        value = bytearray(client.get(key))
        value[place] ^= 1
        client.set(key, bytes(value), keepttl=True)


async def test_a_record_of_another_subject_replaces_nothing(store: Store) -> None:
    record = make_record("alice")
    assert await store.create(record)
    assert not await store.replace(following(record, subject="mallory"))
    assert not await store.replace(following(record, subject=None))
    assert await store.load(record.id) == record
    assert await store.list("mallory") == []


async def test_a_hint_of_anothers_record_harms_nobody(store: Store) -> None:
    """A create that failed for the id was taken leaves a hint; the record is the truth."""
    record = make_record("alice")
    assert await store.create(record)
    assert not await store.create(make_record("mallory", id=record.id))
    assert await store.list("mallory") == []
    assert await store.revoke_subject("mallory", record.created_at) == []
    assert await store.load(record.id) == record
    assert await store.list("alice") == [record]


@pytest.mark.parametrize("place", [1, 9, 20, 33, 34, 40, 55, 120])
async def test_a_damaged_record_is_ended_wherever_it_is_damaged(
    store: Store, url: str, prefix: str, place: int
) -> None:
    """Revoking removes a record even where the octets that say whose it is are the damaged ones (P1)."""
    record = make_record("alice")
    assert await store.create(record)
    flip(url, f"{prefix}:{record.id}", place)
    assert await store.revoke_subject("alice", record.created_at) == [record.id]
    assert await store.load(record.id) is None


async def test_a_damaged_record_is_removed_by_delete_which_says_so(store: Store, url: str, prefix: str) -> None:
    record: Record = make_record("alice")
    assert await store.create(record)
    flip(url, f"{prefix}:{record.id}", 90)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.delete(record.id)
    assert await store.load(record.id) is None
    assert await store.delete(record.id) is None


async def test_an_absolute_timeout_that_moves_is_in_the_index_first(store: Store, url: str, prefix: str) -> None:
    """A replace that lets a record live longer than its index knows has the index know before."""
    record = make_record("alice")
    assert await store.create(record)
    longer = following(record, ends_at=record.ends_at * 2, expires_at=record.ends_at * 2)
    assert await store.replace(longer)
    assert await store.load(record.id) == longer
    assert await store.list("alice") == [longer]
    with raw(url) as client:
        [index] = [key for key in client.scan_iter(f"{prefix}:*") if key.endswith(b"i")]
        assert client.zscore(index, base64url.decode(record.id)) == longer.ends_at
        assert client.pttl(index) / 1000 > longer.ends_at / 1000 - time.time()


async def test_the_index_forgets_what_ended_long_ago(store: Store, url: str, prefix: str) -> None:
    """A sign-in drops the hints of records that no clock lets exist any more, and a sign-out drops its own (P9)."""
    long_ago = 1_000_000_000_000
    old = make_record("alice", created_at=long_ago, expires_at=long_ago, ends_at=long_ago)
    assert await store.create(old)
    record, gone = make_record("alice"), make_record("alice")
    assert await store.create(gone)
    assert await store.create(record)
    assert await store.delete(gone.id) == gone
    with raw(url) as client:
        [index] = [key for key in client.scan_iter(f"{prefix}:*") if key.endswith(b"i")]
        assert client.zrange(index, 0, -1) == [base64url.decode(record.id)]
