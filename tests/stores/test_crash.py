"""P1 and P2: kill -9 amid a write load. What was acknowledged is so: no sign-in lost, no sign-out undone.

A forked child writes, from several threads so that commits are shared, and names each operation on a pipe when it is
acknowledged. It is killed after so many of them, never after so much time. The store's files stay from round to
round: each round also recovers what the one before has left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores.file import FileStore
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START

THREADS = 4
Spawn = Callable[[Callable[[], object]], int]


def write_until_killed(store: Store, acked: int) -> None:
    """Acknowledge: k - made, and to be kept; t - made; g - what was made is gone again."""

    def say(word: str, id: str) -> None:
        os.write(acked, f"{word} {id}\n".encode())

    def work(number: int) -> None:
        while True:
            kept, gone, listed = make_record(f"kept{number}"), make_record(None), make_record(f"gone{number}")
            for word, record in (("k", kept), ("t", gone), ("t", listed)):
                if run(store.create(record)):
                    say(word, record.id)
            if run(store.delete(gone.id)) is not None:
                say("g", gone.id)
            for id in run(store.revoke_subject(f"gone{number}", START)):
                say("g", id)

    def work_or_end(number: int) -> None:
        try:
            work(number)
        finally:
            os._exit(1)  # a writer that fails ends the process, so that the test fails instead of waiting for it

    for number in range(THREADS):
        threading.Thread(target=work_or_end, args=(number,), daemon=True).start()
    threading.Event().wait()


def acknowledged_before_the_kill(spawn: Spawn, make: Callable[[], Store], least: int) -> list[tuple[str, str]]:
    reading, writing = os.pipe()
    child = spawn(lambda: write_until_killed(make(), writing))
    os.close(writing)
    heard = b""
    while heard.count(b"\n") < least:
        more = os.read(reading, 65536)
        assert more, "the writing process has ended by itself"
        heard += more
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 65536):
        heard += more
    os.close(reading)
    os.waitpid(child, 0)
    lines = heard.decode().split("\n")
    assert lines.pop() == ""
    return [(line[0], line[2:]) for line in lines]


def wrong(store: Store, log: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the acknowledged operations that are not so."""
    there = {"k": True, "g": False}
    return [(word, id) for word, id in log if word in there and (run(store.load(id)) is not None) != there[word]]


@pytest.mark.parametrize(
    ("make", "rounds", "least"),
    [
        pytest.param(lambda path: SQLiteStore(path / "store.db"), 100, 120, id="sqlite"),
        pytest.param(lambda path: FileStore(path / "store"), 20, 60, id="file"),
    ],
)
def test_p1_p2_nothing_acknowledged_is_undone_by_kill_9(
    make: Callable[[Path], Store], rounds: int, least: int, spawn: Spawn, tmp_path: Path
) -> None:
    whole: list[tuple[str, str]] = []
    for _ in range(rounds):
        log = acknowledged_before_the_kill(spawn, lambda: make(tmp_path), least)
        store = make(tmp_path)
        assert wrong(store, log) == []
        run(store.close())
        whole += log
    store = make(tmp_path)
    assert wrong(store, whole) == []
    kept = {id for word, id in whole if word == "k"}
    listed = {record.id for number in range(THREADS) for record in run(store.list(f"kept{number}"))}
    assert kept <= listed
    assert len(listed - kept) <= rounds * THREADS  # made, and killed before the word was out
    run(store.sweep(START))
    assert wrong(store, whole) == []
    run(store.close())
    assert sum(word == "g" for word, _ in whole) > rounds
