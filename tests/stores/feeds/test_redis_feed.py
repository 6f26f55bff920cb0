"""RedisFeed where servers come and go: its stream moves, is lost, is cut off; whoever follows misses nothing (P1)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hearing import Hearing, publish, until
from redis.crc import key_slot

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.feeds.redis import RedisFeed
from coatcheck.feeds.redis_line import Line
from coatcheck.testing.clock import START
from coatcheck.testing.feeds import PATIENCE, heard, session

pytestmark = pytest.mark.anyio


@pytest.fixture
async def feed(valkey: Any, prefix: str) -> AsyncIterator[RedisFeed]:
    """On a server of our own: these tests look into it, and change what they find."""
    feed = RedisFeed.from_url(valkey.url, prefix=prefix)
    await feed.open()
    yield feed
    await feed.close()


@pytest.fixture
async def on_cluster(cluster: list[Any], prefix: str) -> AsyncIterator[RedisFeed]:
    feed = RedisFeed.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    await feed.open()
    yield feed
    await feed.close()


# -- the stream


async def test_r12_p9_what_is_of_no_use_any_more_is_dropped_and_the_newest_stays(
    feed: RedisFeed, valkey: Any, prefix: str
) -> None:
    """Its number is needed: who has heard the last one, and nothing since, has missed nothing."""
    for number in range(50):
        await feed.publish((session(str(number), START),), START)
    assert valkey.ask("XLEN", f"{prefix}:{{feed}}s") <= 2
    position = (await feed.snapshot(START)).position
    async with aclosing(feed.follow(position)) as batches:
        assert (await anext(batches)).after == position
    await feed.publish((session("last"),), START)
    assert await heard(feed, position, 1) == ["last"]


async def test_p7_what_is_of_use_is_kept_for_as_long_whatever_the_publishers_clock_says(feed: RedisFeed) -> None:
    """One that is years behind, or ahead, drops nothing of the others'."""
    await feed.publish((session("a"),), START)
    for now in (0, 2 * START):
        await feed.publish((session(str(now), now + 1000),), now)
    assert await heard(feed, 0, 3) == ["a", "0", str(2 * START)]


async def test_p1_a_newest_entry_that_was_lost_and_numbered_again_is_a_gap(
    feed: RedisFeed, valkey: Any, prefix: str
) -> None:
    """As after a failover: there is an entry of the number that the follower has heard last, and it is another."""
    key = f"{prefix}:{{feed}}s"
    for name in "abc":
        await feed.publish((session(name),), START)
    last, entry = valkey.ask("XREVRANGE", key, "+", "-", "COUNT", 2)[0], valkey.ask("XRANGE", key, "-", "+")
    position = (await feed.snapshot(START)).position
    valkey.ask("DEL", key)
    for id, fields in entry[:2]:
        valkey.ask("XADD", key, id, *(each for pair in fields.items() for each in pair))
    assert last[0].startswith(b"3-")
    for name in ("", "x", "y"):  # nothing has come since; the number is given again; and one more
        if name:
            await feed.publish((session(name),), START)
        async with aclosing(feed.follow(position)) as batches:
            assert (await anext(batches)).after != position


@pytest.mark.parametrize("field", ["body", "tag"])
async def test_p6_a_damaged_entry_is_not_passed_over(feed: RedisFeed, valkey: Any, prefix: str, field: str) -> None:
    """A follower that cannot read one must not believe that it has heard everything."""
    await feed.publish((session("a"),), START)
    key = f"{prefix}:{{feed}}s"
    [(_, fields)] = valkey.ask("XRANGE", key, "-", "+")
    body = bytearray(fields[b"body"])
    body[10] ^= field == "body"
    valkey.ask("XADD", key, "2-5", "due", fields[b"due"], "body", bytes(body))
    with pytest.raises(StoreUnavailable, match="damaged"):
        await feed.snapshot(START)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await heard(feed, 0, 2)


async def test_p6_another_thing_under_its_key_is_store_unavailable(feed: RedisFeed, valkey: Any, prefix: str) -> None:
    valkey.ask("SET", f"{prefix}:{{feed}}s", "something")
    for work in (feed.snapshot(START), feed.publish((session("a"),), START), heard(feed, 0, 1)):
        with pytest.raises(StoreUnavailable):
            await work


def test_p1_servers_that_forget_are_refused(tmp_path: Path, own_valkey: Any) -> None:
    """A revocation that is lost with its server would have been acknowledged for nothing."""

    async def open_it() -> None:
        feed = RedisFeed.from_url(own_valkey.url)
        try:
            await feed.open()
        finally:
            await feed.close()

    own_valkey.ask("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(ConfigurationError, match="appendonly"):
        asyncio.run(open_it())


# -- the servers


async def test_p1_a_slot_that_is_moving_is_followed(on_cluster: RedisFeed, cluster: list[Any], prefix: str) -> None:
    """By those who publish, and by who follows: while it is on its way (ASK), and afterwards (MOVED)."""
    key = f"{prefix}:{{feed}}s"
    slot = key_slot(key.encode())
    await on_cluster.publish((session("before"),), START)
    old = next(server for server in cluster[:3] if holds(server, slot))
    new = next(server for server in cluster[:3] if server is not old)
    async with Hearing(on_cluster) as hearing:
        await hearing.of("before")
        new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", name_of(old))
        old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", name_of(new))
        await on_cluster.publish((session("announced"),), START)
        old.ask("MIGRATE", "127.0.0.1", new.port, key, 0, 1000)
        await on_cluster.publish((session("half-way"),), START)
        await hearing.of("announced", "half-way")
        for server in (new, old, *cluster[2:3]):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", name_of(new))
        await on_cluster.publish((session("after"),), START)
        await hearing.of("after")
    assert await heard(on_cluster, 0, 4) == ["before", "announced", "half-way", "after"]


async def test_p1_a_replica_that_takes_over_is_followed(on_cluster: RedisFeed, cluster: list[Any], prefix: str) -> None:
    """And back again."""
    slot = key_slot(f"{prefix}:{{feed}}s".encode())
    primary = next(server for server in cluster if is_primary(server) and holds(server, slot))
    replica = next(server for server in cluster if server.ask("ROLE")[2] == primary.port)
    async with Hearing(on_cluster) as hearing:
        await publish(on_cluster, "before")
        await hearing.of("before")
        for number, taker in enumerate((replica, primary)):
            await until(partial(is_linked, taker))
            taker.ask("CLUSTER", "FAILOVER")
            await until(partial(is_primary, taker))
            await publish(on_cluster, f"after {number}")
            await hearing.of(f"after {number}")


async def test_p1_a_server_that_is_killed_and_started_again_is_followed(own_valkey: Any) -> None:
    """Nothing is missed of what was acknowledged before, nor of what comes after."""
    feed = RedisFeed.from_url(own_valkey.url)
    await feed.open()
    async with Hearing(feed) as hearing:
        await publish(feed, "before")
        own_valkey.kill()
        with pytest.raises(StoreUnavailable):
            await feed.publish((session("meanwhile"),), START)
        own_valkey.start()
        await publish(feed, "after")
        await hearing.of("before", "after")
    assert [each.session_id for each in (await feed.snapshot(START)).revoked] == ["before", "after"]
    await feed.close()


async def test_p6_a_server_that_became_a_replica_counts_for_nothing(own_valkey: Any) -> None:
    """It may be cut off from its primary and not know; what it says is no sign of life."""
    feed = RedisFeed.from_url(own_valkey.url)
    await feed.publish((session("a"),), START)
    async with aclosing(feed.follow(0)) as batches:
        assert len((await anext(batches)).revoked) == 1
        own_valkey.ask("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):
            await wait_for_ever(batches)
    with pytest.raises(StoreUnavailable):
        await heard(feed, 0, 1)
    await feed.close()
    own_valkey.ask("REPLICAOF", "NO", "ONE")


async def test_p1_publishing_works_on_a_full_server(own_valkey: Any) -> None:
    """Sign-outs are published before they are done: one that cannot be published is none."""
    feed = RedisFeed.from_url(own_valkey.url)
    await feed.open()
    own_valkey.ask("CONFIG", "SET", "maxmemory", "1")
    await feed.publish((session("first"),), START)
    await feed.publish((session("second"),), START)
    assert set((await feed.snapshot(START)).revoked) == {session("first"), session("second")}
    await feed.close()


async def test_p1_what_no_replica_has_is_pending(own_valkey: Any) -> None:
    """`wait_replicas` holds for revocations as it does for records."""
    feed = RedisFeed.from_url(own_valkey.url, wait_replicas=1, timeout=timedelta(seconds=0.5))
    with pytest.raises(StoreUnavailable, match="pending"):
        await feed.publish((session("a"),), START)
    assert await heard(feed, 0, 1) == ["a"]
    await feed.close()


async def test_p6_a_server_that_is_paused_is_silent_and_is_followed_again_afterwards(own_valkey: Any) -> None:
    """No heartbeat is made up: the follower hears nothing, and knows it."""
    feed = RedisFeed.from_url(own_valkey.url, timeout=timedelta(seconds=0.3))
    await feed.open()
    async with Hearing(feed) as hearing:
        await publish(feed, "before")
        own_valkey.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await heard(feed, 0, 2)
        own_valkey.signal(signal.SIGCONT)
        await publish(feed, "after")
        await hearing.of("before", "after")
    await feed.close()


async def test_nothing_is_left_of_a_follower(feed: RedisFeed, valkey: Any) -> None:
    """Neither of one that was ended by `close`, nor of one that was cancelled, nor of one that was just dropped."""
    before = connections(valkey)

    async def follow() -> None:
        async for _ in feed.follow(0):
            started.set()

    started = asyncio.Event()
    cancelled = asyncio.create_task(follow())
    await started.wait()
    cancelled.cancel()
    dropped = feed.follow(0)
    await anext(dropped)
    del dropped
    ended = asyncio.create_task(follow())
    started.clear()
    await started.wait()
    await feed.close()
    await asyncio.wait([ended, cancelled])
    await until(lambda: connections(valkey) < before + 1)


async def test_p6_a_follower_whose_server_has_died_looks_up_where_its_stream_is_now() -> None:
    """It may be the only one of its process who talks to that server: nobody else would notice."""

    class Wire:
        async def exchange(self, commands: Any) -> list[Any]:
            if dead:
                raise ConnectionError
            return [b"said", [b"master", 0, []]]

        async def drop(self) -> None: ...

    class Link:
        forgotten = 0

        async def wire_to(self, key: bytes, said: Any) -> Wire:
            return Wire()

        def forget(self) -> None:
            self.forgotten += 1

    link, dead = Link(), True
    line = Line(link, b"key", 10)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await line.ask(("XRANGE",))
    dead = False
    assert await line.ask(("XRANGE",)) == b"said"
    assert link.forgotten == 1


def connections(server: Any) -> int:
    return len(server.ask("CLIENT", "LIST").splitlines())


def holds(server: Any, slot: int) -> bool:
    return any(entry[2][1] == server.port and entry[0] <= slot <= entry[1] for entry in server.ask("CLUSTER", "SLOTS"))


def name_of(server: Any) -> str:
    return bytes(server.ask("CLUSTER", "MYID")).decode()


async def wait_for_ever(batches: AsyncIterator[Batch]) -> None:
    async with asyncio.timeout(PATIENCE):
        async for _ in batches:
            pass


def is_linked(server: Any) -> bool:
    return is_primary(server) or bool(server.ask("ROLE")[3] == b"connected")


def is_primary(server: Any) -> bool:
    return bool(server.ask("ROLE")[0] == b"master")
