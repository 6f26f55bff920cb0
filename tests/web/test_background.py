"""The thread in which a process without an event loop keeps its Coatcheck open."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from places import KINDS, Places, place
from postgres_server import server
from serving import until
from valkey_server import single_url

from coatcheck import Coatcheck, FileStore, Policy, Revoked, SQLiteStore, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.run import offload, run
from coatcheck.stores import store_from_url
from coatcheck.web.background import Background

__all__ = ["place", "server", "single_url"]

WAIT = 20  # seconds; the deadline that fails, never what is measured


@pytest.fixture
def kept_open() -> Iterator[Callable[[Coatcheck], Background]]:
    """Open coatchecks in threads, and close them after the test."""
    opened: list[Background] = []

    def open_it(coat: Coatcheck) -> Background:
        opened.append(Background(coat))
        opened[-1].open(WAIT)
        return opened[-1]

    yield open_it
    for background in opened:
        background.close()


def token_of(coat: Coatcheck, subject: str = "ann") -> tuple[str, str]:
    """Sign somebody in, in this thread; return the session's id and an access token."""
    session = run(coat.sessions.create(subject))
    assert session.id is not None
    return session.id, run(coat.sessions.issue(session)).access_token


def is_refused(coat: Coatcheck, token: str) -> bool:
    try:
        coat.verifier.verify(token)
    except Revoked:
        return True
    return False


def in_a_child(work: Callable[[], None]) -> None:
    """Do something in the child of a fork; it must succeed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  the child must not go on as a second test run
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("kind", [*KINDS, "memory"])
def test_opened_in_the_loop_of_one_thread_and_used_in_others(
    kind: str, place: Places, kept_open: Callable[[Coatcheck], Background]
) -> None:
    """Decision 11, P5: eight threads sign in, write, verify and sign out at once, on every store and its feed."""
    coat = Coatcheck(None if kind == "memory" else store_from_url(place(kind)))
    background = kept_open(coat)
    trouble: list[BaseException] = []

    def use(number: int) -> None:
        try:
            session_id, token = token_of(coat, f"ann{number}")
            run(coat.sessions.update(session_id, lambda data: data.update(n=number)))
            assert coat.verifier.verify(token).subject == f"ann{number}"
            assert run(coat.sessions.revoke(session_id))
            assert is_refused(coat, token)
        except BaseException as error:  # noqa: BLE001  it is raised below
            trouble.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert trouble == []
    assert background.is_open


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_what_another_process_revokes_is_heard(
    kind: str, place: Places, kept_open: Callable[[Coatcheck], Background]
) -> None:
    """P5: the thread follows the feed. Another Coatcheck over the same place is another process."""
    url = place(kind)
    here, there = Coatcheck(store_from_url(url)), Coatcheck(store_from_url(url))
    there.keyring = here.keyring
    kept_open(here)
    kept_open(there)
    session_id, token = token_of(here)
    assert not is_refused(here, token)
    run(there.sessions.revoke(session_id))
    until(lambda: is_refused(here, token))


def test_expired_sessions_are_swept(tmp_path: Path, kept_open: Callable[[Coatcheck], Background]) -> None:
    """The sweeper is one of the tasks: `is_open` says that it runs, in a loop that is not ours."""
    coat = Coatcheck(SQLiteStore(tmp_path / "s.sqlite"))
    assert kept_open(coat).is_open
    names = {task.get_coro().__qualname__ for task in coat._tasks}  # type: ignore[union-attr]
    assert names == {"Coatcheck._sweep", "Follower.follow"}
    assert {task.get_loop().is_running() for task in coat._tasks} == {True}


@pytest.mark.parametrize("kind", ["file", "sqlite", "redis", "postgres"])
def test_the_child_of_a_fork_begins_anew(
    kind: str, place: Places, kept_open: Callable[[Coatcheck], Background]
) -> None:
    """A pre-forking server: nothing heard in the parent counts in the child; each hears the other from then on."""
    coat = Coatcheck(store_from_url(place(kind)))
    background = kept_open(coat)
    (gone, dead), (session_id, token) = token_of(coat), token_of(coat)
    run(coat.sessions.revoke(gone))

    def child() -> None:
        assert background.is_open is False
        with pytest.raises(StoreUnavailable):
            coat.verifier.verify(token)
        background.open(WAIT)
        coat.verifier.verify(token)
        assert is_refused(coat, dead)
        run(coat.sessions.revoke(session_id))
        background.close()

    in_a_child(child)
    assert background.is_open
    until(lambda: is_refused(coat, token))


def test_a_fork_copies_no_lock_that_the_thread_holds(
    tmp_path: Path, kept_open: Callable[[Coatcheck], Background]
) -> None:
    """The thread is held still between two steps: what it had locked, nobody would unlock in the child."""
    feed = Busy(tmp_path / "s.sqlite")
    coat = Coatcheck(SQLiteStore(tmp_path / "s.sqlite"), feed=feed)
    kept_open(coat)
    feed.began.wait(WAIT)

    def child() -> None:
        assert feed.lock.acquire(timeout=0)

    for _ in range(3):
        in_a_child(child)


def test_a_store_that_is_not_there_is_unavailable_and_opened_when_it_is(tmp_path: Path) -> None:
    """P6: each `open` tries anew; so does one after `close`."""
    coat = Coatcheck(SQLiteStore(tmp_path / "later" / "s.sqlite"))
    background = Background(coat)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            background.open(WAIT)
        assert not background.is_open
    (tmp_path / "later").mkdir()
    for _ in range(2):
        background.open(WAIT)
        assert background.is_open
        token_of(coat)
        background.close()
        assert not background.is_open


def test_opening_takes_no_longer_than_one_waits_and_goes_on(tmp_path: Path) -> None:
    """P6: the request is answered 503 in time, and those that come later find it open."""
    store = Slow(tmp_path / "s.sqlite")
    coat = Coatcheck(store, feed=LocalFeed())
    background = Background(coat)
    with pytest.raises(StoreUnavailable):
        background.open(0.01)
    store.may_open.set()
    background.open(WAIT)
    assert (background.is_open, store.opened) == (True, 1)
    background.close()


def test_closing_ends_the_thread() -> None:
    """Nothing is left behind, and closing what was never opened does nothing."""
    before = set(threading.enumerate())
    background = Background(Coatcheck())
    background.close()
    background.open(WAIT)
    assert len(set(threading.enumerate()) - before) == 1
    background.close()
    assert set(threading.enumerate()) == before


def test_a_coatcheck_that_somebody_else_keeps_open_is_left_to_them(
    kept_open: Callable[[Coatcheck], Background],
) -> None:
    """One sweeper and one follower a process."""
    coat = Coatcheck()
    kept_open(coat)
    before = set(threading.enumerate())
    second = Background(coat)
    second.open(WAIT)
    assert second.is_open
    assert set(threading.enumerate()) == before


def test_in_a_child_no_token_is_trusted_though_the_policy_accepts_silence(
    tmp_path: Path, kept_open: Callable[[Coatcheck], Background]
) -> None:
    """P5: `accept` is about a feed that has gone silent; the child never heard it."""
    policy = Policy(when_stale="accept", stale_after=timedelta(seconds=1))
    coat = Coatcheck(FileStore(tmp_path / "f"), policy=policy, feed=SQLiteFeed(tmp_path / "feed.sqlite"))
    kept_open(coat)
    _, token = token_of(coat)

    def child() -> None:
        with pytest.raises(StoreUnavailable):
            coat.verifier.verify(token)

    in_a_child(child)


class Slow(SQLiteStore):
    """A store that takes its time to open."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.may_open = threading.Event()
        self.opened = 0

    async def open(self) -> None:
        await offload(lambda: self.may_open.wait(WAIT))
        self.opened += 1
        await super().open()


class Busy(SQLiteFeed):
    """A feed that holds a lock nearly all of the time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lock, self.began = threading.Lock(), threading.Event()

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        while True:
            with self.lock:
                self.began.set()
                threading.Event().wait(0.02)
            yield Batch(after=position, position=position, revoked=())
            await asyncio.sleep(0)
