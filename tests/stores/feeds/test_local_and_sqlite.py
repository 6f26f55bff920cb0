"""What is special in the feeds of one process and of one machine."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

import coatcheck.feeds.sqlite
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.feed import Batch, Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.run import run
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.feeds import LATER, heard, session


def names(batch: Batch) -> list[str | None]:
    return [revoked.session_id for revoked in batch.revoked]


@pytest.mark.parametrize("kind", ["local", "sqlite"])
def test_r12_p9_what_is_of_no_use_any_more_takes_no_room(kind: str, tmp_path: Path) -> None:
    """And no position is given twice."""
    feed = LocalFeed() if kind == "local" else SQLiteFeed(tmp_path / "feed.db")
    for n in range(600):
        run(feed.publish((session(str(n), START + n),), START + n))
    assert stored(feed) <= 300
    run(feed.publish((session("last"),), START))
    assert run(feed.snapshot(0)).position == 601
    run(feed.close())


@pytest.mark.parametrize("kind", ["local", "sqlite"])
def test_p7_a_clock_that_is_far_ahead_drops_nothing_that_others_need(kind: str, tmp_path: Path) -> None:
    """Also that of a process which has just begun; and when all agree on the time, the entry is dropped."""
    local, ahead = LocalFeed(), START + 2**40

    def another() -> Feed:
        return local if kind == "local" else SQLiteFeed(tmp_path / "feed.db")

    def publish(count: int, now: int) -> None:
        feed = another()
        for n in range(count):
            run(feed.publish((session(f"{n}", now),), now))
        run(feed.close())

    publish(200, START)
    run(another().publish((session("needed"),), START))
    for _ in range(4):
        publish(30, ahead)
    assert names(run(another().snapshot(START)))[0] == "needed"
    publish(300, LATER)
    assert "needed" not in names(run(another().snapshot(0)))


def stored(feed: Feed) -> int:
    if isinstance(feed, LocalFeed):
        return len(feed._log)
    assert isinstance(feed, SQLiteFeed)
    query = "SELECT count(*) FROM coatcheck_revocation"
    return int(feed._file.read(lambda c: c.execute(query).fetchone()[0]))


def test_a_local_follower_whose_loop_has_ended_is_in_nobodys_way() -> None:
    feed = LocalFeed()

    async def begin() -> AsyncGenerator[Batch, None]:
        batches = feed.follow(0)
        await anext(batches)
        return batches

    loop = asyncio.new_event_loop()
    abandoned = loop.run_until_complete(begin())
    loop.close()
    assert len(feed._followers) == 1
    run(feed.publish((session("a"),), START))
    assert names(run(feed.snapshot(START))) == ["a"]
    with pytest.raises(StopIteration):
        abandoned.aclose().send(None)
    assert not feed._followers


# -- SQLite: processes, durability


def test_a_revocation_reaches_another_process(
    tmp_path: Path, spawn: Callable[[Callable[[], object]], int], together: Callable[..., list[int]]
) -> None:
    path = tmp_path / "feed.db"

    def publish() -> None:
        run(SQLiteFeed(path).publish((session("a"), session("b")), START))

    def follow() -> None:
        async def listen() -> None:
            feed = SQLiteFeed(path)
            assert await heard(feed, 0, 2) == ["a", "b"]
            await feed.close()

        asyncio.run(listen())

    assert together(follow, publish, follow) == [0, 0, 0]


def test_what_was_published_is_there_when_opened_again_and_no_position_is_given_twice(tmp_path: Path) -> None:
    first = SQLiteFeed(tmp_path / "feed.db")
    run(first.publish((session("a"), session("b", START)), START - 1))
    run(first.close())
    second = SQLiteFeed(tmp_path / "feed.db")
    assert names(run(second.snapshot(START))) == ["a"]
    run(second.publish((session("c", LATER),), LATER))
    run(second.publish((session("d"),), START))
    assert run(second.snapshot(START)).position == 4
    run(second.close())


def test_the_store_and_the_feed_may_share_a_file(tmp_path: Path) -> None:
    store, feed = SQLiteStore(tmp_path / "one.db"), SQLiteFeed(tmp_path / "one.db")
    record = make_record("alice")
    assert run(store.create(record))
    run(feed.publish((session(record.id),), START))
    assert run(store.delete(record.id)) == record
    assert names(run(feed.snapshot(START))) == [record.id]
    run(store.close())
    run(feed.close())


def test_a_damaged_revocation_is_not_passed_over(tmp_path: Path) -> None:
    """P6: a follower that cannot read one entry must not believe that it has heard everything."""
    feed = SQLiteFeed(tmp_path / "feed.db")
    run(feed.publish((session("a"),), START))
    run(feed.close())
    with sqlite3.connect(tmp_path / "feed.db") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '') WHERE name = 'coatcheck_revocation'"
        )
    connection.close()
    with sqlite3.connect(tmp_path / "feed.db") as connection:
        connection.execute("UPDATE coatcheck_revocation SET session_id = x'ff'")
    connection.close()
    with pytest.raises(StoreUnavailable):
        run(feed.snapshot(START))
    run(feed.close())


@pytest.mark.parametrize("poll", [timedelta(0), timedelta(seconds=1), timedelta(seconds=-1)])
def test_a_follower_looks_often_enough_for_its_heartbeat(poll: timedelta, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteFeed(tmp_path / "feed.db", poll=poll)


@pytest.mark.anyio
async def test_p1_what_is_published_between_a_followers_two_reads_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower reads a position and rows; whatever another process commits in between is not passed over."""
    feed = SQLiteFeed(tmp_path / "feed.db")
    await feed.open()
    await feed.publish((session("first"),), START)
    read, pending = coatcheck.feeds.sqlite._position, ["between"]

    def read_while_another_publishes(connection: sqlite3.Connection) -> int:
        if pending:
            with sqlite3.connect(tmp_path / "feed.db") as other:
                values = (LATER, pending.pop(), None, 0)
                other.execute(
                    "INSERT INTO coatcheck_revocation (until, session_id, subject, before) VALUES (?, ?, ?, ?)", values
                )
            other.close()
        return read(connection)

    monkeypatch.setattr("coatcheck.feeds.sqlite._position", read_while_another_publishes)
    assert await heard(feed, 1, 1) == ["between"]
    await feed.close()
