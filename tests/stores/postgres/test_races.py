"""P1, P2 and P3 on PostgreSQL: the locks, several processes at once, and kill -9 amid a write load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from coatcheck.core import base64url
from coatcheck.core.record import Record, pack
from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_tables import STORE
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import following

Make = Callable[..., PostgresStore]
Spawn = Callable[[Callable[[], object]], int]
Together = Callable[..., list[int]]

LOCK = "pg_advisory_xact_lock{}(hashtextextended('alice', 7073871523))"


def wait_until_blocked(server: Any) -> None:
    """Return when a session of the store's waits for a lock."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'coatcheck' AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while not server.ask(query):
        assert time.monotonic() < deadline, "nobody waits"


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_p1_a_sign_in_that_waits_for_a_sign_out_everywhere_sees_its_cut_off(make: Make, server: Any) -> None:
    """The statement that looks the cut-off up must begin after the lock was got, or it would not see it."""
    store = make()
    run(store.open())
    late, next_one = make_record("alice"), make_record("alice", created_at=START + 1)
    with server.connect() as revoking:
        revoking.execute(f"SELECT {LOCK.format('')}")
        revoking.execute("INSERT INTO coatcheck_cutoff (subject, before) VALUES ('alice', %s)", (START + 1,))
        thread, results = in_thread(lambda: run(store.create(late)))
        wait_until_blocked(server)
        assert results == []
        revoking.commit()
        thread.join()
    assert results == [False]
    assert run(store.load(late.id)) is None
    assert run(store.create(next_one))
    run(store.close())


def test_p1_a_sign_out_everywhere_that_waits_for_a_sign_in_removes_it(make: Make, server: Any) -> None:
    store = make()
    run(store.open())
    id = base64url.decode(make_record().id)
    with server.connect() as signing_in:
        signing_in.execute("SELECT coatcheck_create(%s, 'alice', 1, 1, 2, false, '', %s)", (id, START))
        thread, results = in_thread(lambda: run(store.revoke_subject("alice", START)))
        wait_until_blocked(server)
        assert results == []
        signing_in.commit()
        thread.join()
    assert results == [[base64url.encode(id)]]
    assert run(store.list("alice")) == []
    run(store.close())


def test_p1_sign_ins_do_not_wait_for_each_other_nor_for_another_subjects_sign_out(make: Make, server: Any) -> None:
    store = make()
    run(store.open())
    with server.connect() as signing_in:
        signing_in.execute(f"SELECT {LOCK.format('_shared')}")
        assert run(store.create(make_record("alice")))
    with server.connect() as revoking:
        revoking.execute(f"SELECT {LOCK.format('')}")
        assert run(store.create(make_record("bob")))
        assert len(run(store.revoke_subject("bob", START))) == 1
        assert run(store.create(make_record(None)))
    run(store.close())


def test_ten_processes_make_the_schema_at_once(make: Make, server: Any, together: Together) -> None:
    records = [make_record("alice") for _ in range(10)]

    def start(record: Record) -> None:
        store = make()
        run(store.open())
        assert run(store.create(record))
        run(store.close())

    assert together(*(lambda record=record: start(record) for record in records)) == [0] * 10
    assert server.ask("SELECT version FROM coatcheck_schema WHERE component = 'store'") == [(len(STORE),)]
    store = make()
    assert {record.id for record in run(store.list("alice"))} == {record.id for record in records}
    run(store.close())


async def write(store: Store, id: str, key: str) -> None:
    while (record := await store.load(id)) is not None:
        if await store.replace(following(record, data={**record.data, key: pack(1)})):
            return


def test_p3_200_of_200_across_two_processes(make: Make, together: Together) -> None:
    store, record = make(), make_record()
    assert run(store.create(record))
    run(store.close())

    def process(name: str) -> None:
        async def work() -> None:
            store = make()
            await asyncio.gather(*(write(store, record.id, f"{name}{n}") for n in range(100)))
            await store.close()

        asyncio.run(work())

    assert together(lambda: process("a"), lambda: process("b")) == [0, 0]
    stored = run(store.load(record.id))
    run(store.close())
    assert stored is not None
    assert set(stored.data) == {f"{name}{n}" for name in "ab" for n in range(100)}
    assert stored.version == 201


def test_p1_sign_ins_and_sign_outs_everywhere_of_two_processes_are_exact(make: Make, together: Together) -> None:
    """Two processes sign one subject in and out everywhere at once: what was made before an acked cut-off is dead.

    Every cut-off is later than those before it, and each sign-in is dated in between. Whatever a process made and
    nobody named as removed must be alive at the end, and the other way round.
    """
    reading, writing = os.pipe()

    def process(seed: int) -> None:
        order = random.Random(seed)  # noqa: S311 (a seed is to be repeatable)

        async def step(store: Store, now: int) -> None:
            if order.random() < 0.15:
                for id in await store.revoke_subject("alice", START + now):
                    os.write(writing, f"gone {id} 0\n".encode())
                os.write(writing, f"cut - {START + now}\n".encode())
                return
            record = make_record("alice", created_at=START + now - order.randrange(3))
            if await store.create(record):
                os.write(writing, f"made {record.id} {record.created_at}\n".encode())

        async def work() -> None:
            store = make()
            for now in range(0, 200, 10):
                await asyncio.gather(*(step(store, now + n) for n in range(10)))
            await store.close()

        asyncio.run(work())

    store = make()
    run(store.open())
    assert together(lambda: process(1), lambda: process(2)) == [0, 0]
    os.close(writing)
    with os.fdopen(reading) as log:
        lines = [line.split() for line in log]
    made = {id: int(at) for word, id, at in lines if word == "made"}
    gone = {id for word, id, _ in lines if word == "gone"}
    cut = max(int(at) for word, _, at in lines if word == "cut")
    alive = {record.id for record in run(store.list("alice"))}
    assert len(made) > 100
    assert gone
    assert alive == set(made) - gone
    assert all(made[id] >= START for id in alive)
    late = make_record("alice", created_at=cut - 1)
    assert run(store.create(late)) is False
    run(store.close())


# -- kill -9


def write_until_killed(store: Store, acked: int) -> None:
    """Acknowledge: k - made, and to be kept; g - what was made is gone again."""

    def say(word: str, id: str) -> None:
        os.write(acked, f"{word} {id}\n".encode())

    def work(number: int) -> None:
        while True:
            kept, gone, listed = make_record(f"kept{number}"), make_record(None), make_record(f"gone{number}")
            for record in (kept, gone, listed):
                assert run(store.create(record))
            say("k", kept.id)
            run(store.touch(gone.id, START + 5, START + 5_000_000))
            assert run(store.delete(gone.id)) is not None
            say("g", gone.id)
            for id in run(store.revoke_subject(f"gone{number}", START)):
                say("g", id)

    for number in range(4):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    threading.Event().wait()


def log_of(child: int, reading: int, stop: Callable[[], object], least: int) -> list[list[str]]:
    heard = b""
    while heard.count(b"\n") < least:
        heard += os.read(reading, 65536)
    stop()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 65536):
        heard += more
    os.close(reading)
    return [line.split() for line in heard.decode().split("\n")[:-1]]


def acked(spawn: Spawn, make: Make, stop: Callable[[], object], least: int) -> list[list[str]]:
    reading, writing = os.pipe()
    child = spawn(lambda: write_until_killed(make(), writing))
    os.close(writing)
    return log_of(child, reading, stop, least)


def wrong(store: Store, log: list[list[str]]) -> list[list[str]]:
    """Return the acknowledged operations that are not so."""
    return [[word, id] for word, id in log if (run(store.load(id)) is not None) != (word == "k")]


def test_p1_p2_nothing_acknowledged_is_undone_by_kill_9_of_a_process(make: Make, spawn: Spawn) -> None:
    whole: list[list[str]] = []
    for _ in range(5):
        whole += acked(spawn, make, lambda: None, 100)
    store = make()
    assert wrong(store, whole) == []
    run(store.close())
    assert sum(word == "g" for word, _ in whole) > 100


def test_p1_p2_nothing_acknowledged_is_undone_by_kill_9_of_the_server(
    make: Make, own_server: Any, spawn: Spawn
) -> None:
    """One killed backend takes the whole server down, which then recovers from its log."""

    def kill() -> None:
        with own_server.connect(autocommit=True) as witness:
            query = b"SELECT pid FROM pg_stat_activity WHERE application_name = 'coatcheck'"
            os.kill(witness.execute(query).fetchall()[0][0], signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                witness.execute("SELECT pg_sleep(60)")

    whole: list[list[str]] = []
    for _ in range(2):
        whole += acked(spawn, make, kill, 100)
        own_server.wait_until_ready()
        store = make()
        assert wrong(store, whole) == []
        run(store.close())
    assert sum(word == "g" for word, _ in whole) > 50
