"""The writes of one tick go together: one pipeline, one wait for the replicas, and an answer to each of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot
from redis_sent import round_trips
from ticks import half_stop_waiting, made, written_before_it_closes

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_scripts import BEHIND, CREATE, DELETE, ENTER, REPLACE, TOUCH, Command, call
from coatcheck.testing import make_record
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(valkey: Any, prefix: str) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(valkey.url, prefix=prefix, timeout=timedelta(seconds=10))
    await store.open()
    yield store
    await store.close()


def scripts_of(commands: Sequence[Command]) -> list[str]:
    names = {call(source, ())[1]: name for name, source in SCRIPTS.items()} | {BEHIND: "log"}
    return [names.get(command[1], "") for command in commands]


SCRIPTS = {"enter": ENTER, "create": CREATE, "replace": REPLACE, "touch": TOUCH, "delete": DELETE}


# -- one pipeline -----------------------------------------------------------------------------------------------------


async def test_the_writes_of_one_tick_are_one_pipeline_in_their_order(store: RedisStore) -> None:
    """Behind them the server is asked once whether its log has them; what may be lost does not wait for that."""
    old, used, gone = await made(store, 3)
    new = make_record(None)
    sent = round_trips(store)
    answers: tuple[object, ...] = await asyncio.gather(
        store.touch(used.id, used.seen_at + 5, used.expires_at + 5),
        store.replace(following(old)),
        store.create(new),
        store.delete(gone.id),
        store.replace(following(following(old))),
        store.replace(following(old)),
    )
    assert list(answers) == [None, True, True, gone, True, False]
    # Where the disk is busy the log is behind, and it is asked once more.
    assert [scripts_of(commands) for commands in sent[:2]] == [
        ["touch"],
        ["replace", "create", "delete", "replace", "replace", "log"],
    ]
    assert all("log" in scripts_of(commands) for commands in sent[2:])
    assert await store.load(old.id) == following(following(old))
    assert await store.load(gone.id) is None


async def test_sign_ins_and_sign_outs_of_one_tick_share_each_of_their_steps(store: RedisStore) -> None:
    """Ten of either have two steps, and none of them is a round trip of its own."""
    gone = await made(store, 10, "alice")
    sent = round_trips(store)
    coming = [make_record("bob") for _ in range(10)]
    await asyncio.gather(*map(store.create, coming), *(store.delete(record.id) for record in gone))
    assert [scripts_of(commands) for commands in sent] == [
        ["enter"] * 10 + ["delete"] * 10 + ["log"],
        ["create"] * 10 + ["log"],
        [""] * 10,  # hints are struck out, for which nobody waits
    ]


async def test_what_fails_for_one_is_no_error_for_the_others(store: RedisStore, valkey: Any) -> None:
    """Something that is no record lies under one of the keys: the script fails there, and only there."""
    records = await made(store, 5)
    key = store._key(records[2].id)
    valkey.ask("DEL", key)
    valkey.ask("RPUSH", key, "not", "ours")
    answers = await asyncio.gather(*(store.replace(following(r)) for r in records), return_exceptions=True)
    assert [answer for n, answer in enumerate(answers) if n != 2] == [True] * 4
    assert isinstance(answers[2], StoreUnavailable)
    assert "WRONGTYPE" in str(answers[2])


async def test_p4_whoever_stops_waiting_stops_nothing_and_leaves_no_reply(store: RedisStore) -> None:
    """Half of those who wrote in one tick are cancelled once the batch was sent; all is written, each has their own."""
    records = await made(store, 40)
    await half_stop_waiting(store, records, round_trips(store))


async def test_a_store_that_is_closed_has_written_what_was_asked_for(store: RedisStore) -> None:
    """A request asks for a write, is cancelled, and the store is closed: the write is carried out (P2)."""
    await written_before_it_closes(store)


# -- replicas ---------------------------------------------------------------------------------------------------------


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_synced(primary: Any) -> bool:
    with primary.client() as client:
        client.set("something", "to wait for")
        return bool(client.execute_command("WAITAOF", 1, 1, 50) == [1, 1])


@pytest.fixture
def replica(own_valkey: Any, tmp_path: Path) -> Iterator[Any]:
    """A replica of `own_valkey` that syncs its log with every write, as the primary does."""
    (tmp_path / "replica").mkdir()
    of = ("--replicaof", "127.0.0.1", str(own_valkey.port))
    log = ("--appendonly", "yes", "--appendfsync", "always")
    server = type(own_valkey)(tmp_path / "replica", *log, *of)
    until(lambda: is_synced(own_valkey))  # the replica first writes its log anew, and syncs nothing until it has
    yield server
    server.resume()
    server.kill()


@pytest.mark.parametrize(("way", "command", "times"), [("received", "wait", 1), ("synced", "waitaof", 2)])
async def test_a_batch_waits_once_for_its_replicas(
    own_valkey: Any, replica: Any, way: str, command: str, times: int
) -> None:
    """What they have synced is asked twice: those who are asked while they are told what to write have not done it."""
    assert replica.running
    store = RedisStore.from_url(own_valkey.url, wait_replicas=1, wait_until=way, timeout=timedelta(seconds=10))
    records = await made(store, 20)
    before = own_valkey.calls(command)
    assert all(await asyncio.gather(*(store.replace(following(record)) for record in records)))
    assert own_valkey.calls(command) - before == times
    await asyncio.gather(*(store.touch(record.id, record.seen_at + 5, record.expires_at) for record in records))
    assert own_valkey.calls(command) - before == times  # a touch waits for nobody
    await store.close()


async def test_p2_what_a_replica_received_and_has_not_synced_is_pending(own_valkey: Any, replica: Any) -> None:
    """A replica that never syncs has the write in memory: that is enough for the one, and never for the other."""
    received, synced = (
        RedisStore.from_url(own_valkey.url, wait_replicas=1, wait_until=way, timeout=timedelta(seconds=1.5))
        for way in ("received", "synced")
    )
    record, other = make_record("alice"), make_record("alice")
    assert await synced.create(record)
    assert await synced.create(other)
    assert (received.durability, synced.durability) == ("volatile", "failover-safe")  # the first is not open yet
    replica.ask("CONFIG", "SET", "appendfsync", "no")
    assert await received.replace(following(record))
    assert received.durability == "failover-safe"
    for work in (synced.delete(record.id), synced.revoke_subject("alice", 1)):
        with pytest.raises(StoreUnavailable, match="pending: done here, but not yet synced on 1 replicas"):
            await work
    assert await synced.load(record.id) is None
    replica.ask("CONFIG", "SET", "appendfsync", "always")
    until(lambda: is_synced(own_valkey))
    assert await synced.delete(record.id) is None
    assert await synced.revoke_subject("alice", 1) == [other.id]
    for store in (received, synced):
        await store.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"appendonly": "no"}, "WAITAOF"),
        ({"appendfsync": "everysec"}, "appendfsync always"),
        ({"acl": "-waitaof"}, "WAITAOF"),
        ({"acl": "-config"}, "appendfsync always"),
    ],
)
async def test_a_server_that_cannot_say_what_is_synced_is_refused(
    own_valkey: Any, settings: dict[str, str], words: str
) -> None:
    """It keeps no log, or not one whose syncing it tells the truth about, or does not know the command."""
    rule = settings.get("acl", "+@all")
    own_valkey.ask("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all", rule)
    for name, value in settings.items():
        if name != "acl":
            own_valkey.ask("CONFIG", "SET", name, value)
    url = own_valkey.url.replace("//", "//ann:secret@")
    store = RedisStore.from_url(url, wait_replicas=1, wait_until="synced", allow_volatile=True)
    with pytest.raises(ConfigurationError, match=words):
        await store.open()
    await store.close()


async def test_who_is_refused_by_a_server_makes_nobody_else_pending(cluster: list[Any], prefix: str) -> None:
    """The first key of a batch has moved to another server, where the mark to wait behind would go (P2)."""
    store = RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix, wait_replicas=1)
    records = await made(store, 30)
    places: Any = store._here().link._places
    home = {record.id: places._slots[key_slot(store._key(record.id))] for record in records}
    moved = records[0]
    there = next(place for place in home.values() if place != home[moved.id])
    places._slots[key_slot(store._key(moved.id))] = there  # what the store knows is out of date
    others = [record for record in records if home[record.id] == there]
    answers = await asyncio.gather(*(store.replace(following(record)) for record in [moved, *others]))
    assert answers == [True] * (1 + len(others))
    await store.close()
