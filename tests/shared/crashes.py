"""Crashes: processes that write to a local store and are killed with -9 amid it, round after round (P1, P2).

A forked child writes, from several threads so that commits are shared, and names each operation on a pipe when it is
acknowledged. It is killed after so many of them, never after so much time. The store's files stay from round to
round: each round also recovers what the one before has left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from processes import Spawn

from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.testing import make_record
from coatcheck.testing.clock import START

THREADS: Final = 4


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


def crash(make: Callable[[], Store], spawn: Spawn, least: int, going: Callable[[int, int], bool]) -> tuple[int, int]:
    """Let writers crash as long as `going`, and check what they have left; return how often, and how many were ended.

    Args:
        make: makes one more store over the same files.
        spawn: see `processes`.
        least: after so many acknowledgements a round's writers are killed.
        going: is told how many rounds there were, and how many sessions were ended in them.
    """
    whole: list[tuple[str, str]] = []
    rounds = 0
    while going(rounds, ended := sum(word == "g" for word, _ in whole)):
        log = acknowledged_before_the_kill(spawn, make, least)
        store = make()
        assert wrong(store, log) == []
        run(store.close())
        whole += log
        rounds += 1
    store = make()
    assert wrong(store, whole) == []
    kept = {id for word, id in whole if word == "k"}
    listed = {record.id for number in range(THREADS) for record in run(store.list(f"kept{number}"))}
    assert kept <= listed
    assert len(listed - kept) <= rounds * THREADS  # made, and killed before the word was out
    run(store.sweep(START))
    assert wrong(store, whole) == []
    run(store.close())
    return rounds, ended
