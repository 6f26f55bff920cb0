"""Documents whose place is down, killed, full, locked, damaged or newer, and requests that are cancelled (P1 to P6)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from document_places import Where, where
from redis.crc import key_slot

from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.run import run
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_documents import PostgresDocuments
from coatcheck.stores.redis_documents import RedisDocuments
from coatcheck.stores.sqlite_documents import SQLiteDocuments
from coatcheck.testing.clock import START

__all__ = ["where"]  # a fixture
pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=300)
BOUND = 1.2  # seconds

Spawn = Callable[[Callable[[], object]], int]


def all_calls(documents: Documents) -> list[Coroutine[Any, Any, Any]]:
    return [
        documents.get("one", "two"),
        documents.page(""),
        documents.commit({}, {"three": b"3"}),
        documents.note({"one": b"1"}, {"four": b"4"}),
    ]


async def refused_in_time(calls: list[Coroutine[Any, Any, Any]]) -> None:
    began = time.monotonic()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < BOUND
    assert [type(answer) for answer in answers] == [StoreUnavailable] * len(calls)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Return when something is so, which may be unavailable before; it must be so within 10 s."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                if await check():
                    return
            await asyncio.sleep(0.01)


# -- a place that is down


async def test_p6_a_redis_server_that_is_paused_or_gone_is_unavailable_in_time(own_valkey: Any) -> None:
    documents = RedisDocuments.from_url(own_valkey.url, timeout=SHORT)
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    own_valkey.signal(signal.SIGSTOP)
    try:
        await refused_in_time(all_calls(documents))
        await asyncio.to_thread(refused_in_time_without_a_loop, all_calls(documents))
    finally:
        own_valkey.signal(signal.SIGCONT)
    await eventually(lambda: documents.commit({}, {"one": b"1"}))
    own_valkey.kill()
    await refused_in_time(all_calls(documents))
    own_valkey.start()
    await eventually(lambda: documents.commit({}, {"one": b"1"}))
    assert await documents.get("one", "two") == [b"1", b"2"]
    await documents.close()


def refused_in_time_without_a_loop(calls: list[Coroutine[Any, Any, Any]]) -> None:
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            run(call)
        assert time.monotonic() - began < BOUND


async def test_p6_a_postgres_server_that_is_paused_is_unavailable_in_time(own_server: Any, schema: str) -> None:
    documents, late = (PostgresDocuments(own_server.url, schema=schema, timeout=SHORT) for _ in range(2))
    await documents.open()
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    own_server.pause()
    try:
        await refused_in_time([*all_calls(documents), documents.sweep(START)])
        await refused_in_time([*all_calls(late), late.sweep(START)])  # not open yet: that is in time as well
        await asyncio.to_thread(refused_in_time_without_a_loop, [late.get("two")])
    finally:
        own_server.resume()
    await eventually(lambda: documents.commit({}, {"one": b"1"}))
    await eventually(lambda: _is(late, "two", b"2"))
    assert await documents.get("one", "two") == [b"1", b"2"]
    await documents.close()
    await late.close()


async def test_p6_a_database_file_that_somebody_locks_is_unavailable_in_time(tmp_path: Path) -> None:
    """Reads go on; writes wait as long as they were told to, and are not done later."""
    documents = SQLiteDocuments(tmp_path / "own.db", busy_timeout=SHORT)
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    with contextlib.closing(sqlite3.connect(tmp_path / "own.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await refused_in_time([documents.commit({}, {"one": b"3"}), documents.note({}, {"one": b"3"})])
        assert await documents.get("one", "two") == [b"1", b"2"]
        other.execute("ROLLBACK")
    assert await documents.commit({"one": b"1"}, {"one": b"4"})
    await documents.close()


@pytest.mark.parametrize("kind", ["redis", "postgres"])
async def test_connections_that_the_server_has_closed_cost_no_call(kind: str, request: pytest.FixtureRequest) -> None:
    documents = Where(kind, request).new()
    assert await documents.commit({}, {"one": b"1"})
    for _ in range(3):
        if kind == "redis":
            request.getfixturevalue("valkey").ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            request.getfixturevalue("valkey").ask("SCRIPT", "FLUSH")
        else:
            request.getfixturevalue("server").terminate_all()
        assert await documents.get("one") == [b"1"]
        assert await documents.commit({"one": b"1"}, {"one": b"1"})
    await documents.close()


# -- all or nothing


async def write_pairs(documents: Documents, name: str, told: dict[str, int]) -> None:
    """Write the same number under two keys, again and again, and tell which were acknowledged, until it fails."""
    for number in range(1_000_000):
        value = str(number).encode()
        with contextlib.suppress(StoreUnavailable):
            assert await documents.commit({}, {f"left/{name}": value, f"right/{name}": value})
            told[name] = number
            continue
        return


async def require_pairs(documents: Documents, told: dict[str, int]) -> None:
    """Both halves of each pair are there, and not older than what was acknowledged (P2)."""
    for name, acked in told.items():
        left, right = await documents.get(f"left/{name}", f"right/{name}")
        assert left is not None
        assert left == right
        assert acked <= int(left) <= acked + 1


async def test_p2_a_redis_server_killed_amid_commits_has_all_of_each_or_nothing(own_valkey: Any) -> None:
    documents, told = RedisDocuments.from_url(own_valkey.url), dict[str, int]()
    writers = [asyncio.create_task(write_pairs(documents, str(n), told)) for n in range(8)]
    await eventually(lambda: _so(len(told) == 8 and min(told.values()) > 20))
    own_valkey.kill()
    await asyncio.gather(*writers)
    own_valkey.start()
    await eventually(lambda: documents.commit({}, {}))
    await require_pairs(documents, told)
    assert len(await documents.page("")) == 16
    await documents.close()


async def test_p2_postgres_sessions_ended_amid_commits_have_all_of_each_or_nothing(server: Any, schema: str) -> None:
    documents, told = PostgresDocuments(server.url, schema=schema), dict[str, int]()
    writers = [asyncio.create_task(write_pairs(documents, str(n), told)) for n in range(8)]
    await eventually(lambda: _so(len(told) == 8 and min(told.values()) > 10))
    while not any(writer.done() for writer in writers):
        await asyncio.to_thread(server.terminate_all)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    await eventually(lambda: documents.commit({}, {}))
    await require_pairs(documents, told)
    await documents.close()


async def _so(true: bool) -> bool:
    return true


def test_p2_a_process_killed_amid_commits_to_a_file_has_all_of_each_or_nothing(spawn: Spawn, tmp_path: Path) -> None:
    """Killed with -9 after so many were acknowledged, on a pipe, three times over the same file."""
    told: dict[str, int] = {}
    for _ in range(3):
        reading, writing = os.pipe()

        def writer(writing: int = writing) -> None:
            documents = SQLiteDocuments(tmp_path / "own.db")
            for number in range(1_000_000):
                value = str(number).encode()
                assert run(documents.commit({}, {"left/a": value, "right/a": value}))
                os.write(writing, b"%d\n" % number)

        child = spawn(writer)
        os.close(writing)
        with os.fdopen(reading) as lines:
            for line in lines:
                told["a"] = int(line)
                if told["a"] == 50:
                    os.kill(child, signal.SIGKILL)
        documents = SQLiteDocuments(tmp_path / "own.db")
        run(require_pairs(documents, told))
        run(documents.close())


async def test_p4_a_cancelled_request_leaves_its_reply_to_nobody_and_its_commit_is_done(where: Where) -> None:
    """400 requests, cancelled at random awaits: whoever still gets an answer gets their own, and pairs stay pairs."""
    documents, chance = where.new(), random.Random(7)  # noqa: S311 (a seed is to be repeatable)
    await documents.open()
    for number in range(20):
        assert await documents.note({}, dict.fromkeys((f"left/{number}", f"right/{number}"), b"%d" % number))
    answered = 0

    async def request(number: int) -> None:
        nonlocal answered
        keys = (f"left/{number % 20}", f"right/{number % 20}")
        for step in range(3):
            left, right = await documents.get(*keys)
            assert left is not None
            assert left == right
            assert int(left) % 20 == number % 20
            await documents.note(dict.fromkeys(keys, left), dict.fromkeys(keys, b"%d" % (number % 20 + 20 * step)))
        answered += 1

    async def cancelled(number: int) -> None:
        task = asyncio.create_task(request(number))
        for _ in range(chance.randrange(80)):
            await asyncio.sleep(0)
        if number % 3:
            task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)

    for start in range(0, 400, 40):
        await asyncio.gather(*(cancelled(start + number) for number in range(40)))
    assert answered >= 133
    await documents.close()


async def test_p1_a_commit_that_was_begun_is_done_though_its_request_was_cancelled(where: Where) -> None:
    documents = where.new()
    await documents.open()
    task = asyncio.create_task(documents.commit({}, {"one": b"1"}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: _is(documents, "one", b"1"))
    await documents.close()


async def _is(documents: Documents, key: str, value: bytes) -> bool:
    return await documents.get(key) == [value]


# -- a place that is full


async def test_p1_a_full_redis_server_stores_nothing_and_removes(own_valkey: Any) -> None:
    """Memory is short: what would store is refused, all of it; what removes, and stores besides, is done."""
    documents = RedisDocuments.from_url(own_valkey.url)
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    own_valkey.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await documents.commit({}, {"one": b"x", "three": b"3"})
    assert await documents.commit({"one": b"1"}, {"one": None, "disabled/one": b""})
    own_valkey.ask("CONFIG", "SET", "maxmemory", "0")
    assert await documents.page("") == [("disabled/one", b""), ("two", b"2")]
    await documents.close()


async def test_p1_a_full_database_file_stores_nothing_and_removes(tmp_path: Path) -> None:
    documents = SQLiteDocuments(tmp_path / "own.db")
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    file = documents._file
    writer = file._writer
    assert writer is not None

    def connect_to_full() -> sqlite3.Connection:
        connection = file._connect()
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    connect, writer._connect = writer._connect, connect_to_full
    writer._disconnect()
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await documents.commit({}, {"one": b"x", "three": bytes(60_000)})
    assert await documents.commit({"one": b"1"}, {"one": None})
    writer._connect = connect
    writer._disconnect()
    assert await documents.page("") == [("two", b"2")]
    await documents.close()


async def test_p1_what_is_left_for_the_end_of_things_is_not_taken_to_store_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the reserve is spent, a commit that only removes is done, and no other is."""
    documents = SQLiteDocuments(tmp_path / "own.db")
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    writer = documents._file._writer
    assert writer is not None
    monkeypatch.setattr(writer._reserve, "held", lambda: False)
    for refused in (documents.commit({}, {"one": None, "three": b"3"}), documents.note({}, {"two": None})):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await refused
    assert await documents.commit({}, {"one": None})
    assert await documents.sweep(START) == 0
    assert await documents.page("") == [("two", b"2")]
    await documents.close()


# -- a place that is damaged, foreign, or newer


def test_p4_flipped_octets_of_a_database_are_never_anothers_document(tmp_path: Path) -> None:
    """40 seeds: each call returns the truth, or nothing, or StoreUnavailable; no other error."""
    truth = {f"key{number:02}": f"value of {number}".encode() * (number + 1) for number in range(60)}
    whole = SQLiteDocuments(tmp_path / "whole.db")
    for key, value in truth.items():
        run(whole.note({}, {key: value}))
    run(whole.close())
    told = 0
    for seed in range(40):
        path = tmp_path / f"{seed}.db"
        shutil.copyfile(tmp_path / "whole.db", path)
        flip_some(path, random.Random(seed))  # noqa: S311 (a seed is to be repeatable)
        documents = SQLiteDocuments(path)
        with contextlib.suppress(StoreUnavailable, ConfigurationError):
            run(documents.open())
        for key, value in truth.items():
            with contextlib.suppress(StoreUnavailable, ConfigurationError):
                found = run(documents.get(key))
                assert found in ([value], [None])
                told += found == [value]
        calls: list[Coroutine[Any, Any, Any]] = [documents.page(""), *all_calls(documents), documents.sweep(START)]
        for call in calls:
            with contextlib.suppress(StoreUnavailable, ConfigurationError):
                answer = run(call)
                if call is calls[0]:
                    assert set(answer) <= set(truth.items())
        run(documents.close())
    assert 0 < told < 40 * len(truth)


def flip_some(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 30))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


async def test_what_others_have_put_in_a_redis_documents_place_is_unavailable(valkey: Any, prefix: str) -> None:
    """Values of another type, and values that are none of ours: no error of the driver's, nothing half written."""
    documents = RedisDocuments.from_url(valkey.url, prefix=prefix)
    assert await documents.commit({}, {"sound": b"1"})
    valkey.ask("RPUSH", f"{prefix}:{{server}}d:list", "x")
    valkey.ask("SET", f"{prefix}:{{server}}d:foreign", "x")
    valkey.ask("SET", f"{prefix}:{{server}}d:empty", "")
    await refused_in_time([documents.get("foreign"), documents.get("empty")])
    await refused_in_time([documents.commit({"list": value}, {"sound": b"2"}) for value in (None, b"x")])
    assert not await documents.commit({"foreign": b"x"}, {"sound": b"2"})
    valkey.ask("DEL", f"{prefix}:{{server}}i")
    valkey.ask("RPUSH", f"{prefix}:{{server}}i", "x")
    await refused_in_time([documents.page(""), documents.commit({}, {"sound": b"2"})])
    assert await documents.get("sound") == [b"1"]
    await documents.close()


async def test_tables_that_are_gone_are_unavailable(server: Any, schema: str) -> None:
    documents = PostgresDocuments(server.url, schema=schema)
    await documents.open()
    server.ask("DROP TABLE coatcheck_document")
    await refused_in_time([*all_calls(documents), documents.sweep(START)])
    await documents.close()


async def test_documents_of_a_newer_version_are_a_configuration_error(tmp_path: Path, server: Any, schema: str) -> None:
    file, tables = SQLiteDocuments(tmp_path / "own.db"), PostgresDocuments(server.url, schema=schema)
    newer = "UPDATE coatcheck_schema SET version = version + 1 WHERE component = 'documents'"
    await file.open()
    await file.close()
    await tables.open()
    await tables.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "own.db", isolation_level=None)) as connection:
        connection.execute(newer)
    server.ask(newer)
    for documents in (SQLiteDocuments(tmp_path / "own.db"), PostgresDocuments(server.url, schema=schema)):
        with pytest.raises(ConfigurationError, match="newer"):
            await documents.open()


def test_components_that_start_at_once_in_one_schema_each_get_their_tables(server: Any, schema: str) -> None:
    places = [kind(server.url, schema=schema) for kind in (PostgresStore, PostgresDocuments) for _ in range(4)]
    errors: list[BaseException] = []

    def start(place: Any) -> None:
        try:
            run(place.open())
            run(place.close())
        except BaseException as error:  # noqa: BLE001 (it is looked at below)
            errors.append(error)

    threads = [threading.Thread(target=start, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    components = server.ask("SELECT component FROM coatcheck_schema ORDER BY component")
    assert components == [("documents",), ("store",)]


# -- what an acknowledged commit survives


async def test_a_redis_server_that_keeps_no_log_is_refused(own_valkey: Any) -> None:
    own_valkey.ask("CONFIG", "SET", "appendonly", "no")
    strict, lax = RedisDocuments.from_url(own_valkey.url), RedisDocuments.from_url(own_valkey.url, allow_volatile=True)
    calls: list[Coroutine[Any, Any, Any]] = [strict.open(), *all_calls(strict)]
    for call in calls:
        with pytest.raises(ConfigurationError, match="allow_volatile"):
            await call
    await lax.open()
    assert (strict.durability, lax.durability) == ("volatile", "volatile")
    assert await lax.get("one") == [None]
    await strict.close()
    await lax.close()


async def test_p2_a_commit_that_no_replica_has_is_pending_and_a_note_waits_for_none(own_valkey: Any) -> None:
    documents = RedisDocuments.from_url(own_valkey.url, wait_replicas=1, timeout=SHORT)
    await documents.open()
    assert documents.durability == "failover-safe"
    with pytest.raises(StoreUnavailable, match="pending"):
        await documents.commit({}, {"one": b"1"})
    assert await documents.note({"one": b"1"}, {"one": b"2"})
    assert await documents.get("one") == [b"2"]
    await documents.close()


async def test_p2_what_replicas_are_waited_for_with_is_no_document(cluster: list[Any], prefix: str) -> None:
    """The mark that WAIT stands behind lies in the documents' slot, and must not lie where a document does."""
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    documents = RedisDocuments.from_url(url, prefix=prefix, wait_replicas=1)
    keys = ["x", "xw", "xww", "w", "iw"]
    for key in [*keys, *keys]:
        assert await documents.commit({}, {key: key.encode()})
    assert await documents.get(*keys) == [key.encode() for key in keys]
    assert [key for key, _ in await documents.page("")] == sorted(keys)
    await documents.close()


async def test_a_slot_that_moves_takes_all_documents_along(cluster: list[Any], prefix: str) -> None:
    """Before, amid and after: the truth, or StoreUnavailable; afterwards the truth."""
    documents = RedisDocuments.from_url(f"redis+cluster://127.0.0.1:{cluster[0].port}", prefix=prefix)
    assert await documents.commit({}, {"one": b"1", "two": b"2"})
    slot = key_slot(b"x:{server}i")
    home = next(s for s in cluster[:3] if any(f <= slot <= t for f, t in ranges(s)))
    with moved(slot, home, next(s for s in cluster[:3] if s is not home), cluster[:3]) as move_one_more:
        for _ in range(4):
            with contextlib.suppress(StoreUnavailable):
                assert await documents.get("one", "two") == [b"1", b"2"]
                assert not await documents.commit({"one": b"x"}, {"two": b"x"})
            move_one_more()
    assert await documents.get("one", "two") == [b"1", b"2"]
    assert await documents.commit({"one": b"1", "two": b"2"}, {"one": None})
    assert await documents.page("") == [("two", b"2")]
    await documents.close()


def ranges(server: Any) -> Iterator[tuple[int, int]]:
    yield from (
        (first, last) for first, last, primary, *_ in server.ask("CLUSTER", "SLOTS") if primary[1] == server.port
    )


@contextlib.contextmanager
def moved(slot: int, old: Any, new: Any, primaries: list[Any]) -> Iterator[Callable[[], None]]:
    """Give what moves one key of the slot; at the end they all have moved, and so has the slot."""
    names = {server: bytes(server.ask("CLUSTER", "MYID")) for server in (old, new)}
    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[old])
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[new])

    def move_one_more() -> None:
        for key in old.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            old.ask("MIGRATE", "127.0.0.1", new.port, key, 0, 1000)

    yield move_one_more
    while old.ask("CLUSTER", "COUNTKEYSINSLOT", slot):
        move_one_more()
    for server in (new, old, *primaries):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[new])
