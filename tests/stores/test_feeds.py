"""Feeds: a position, a snapshot, a heartbeat."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

import coatcheck.feeds.sqlite
from coatcheck.core.revocation import Revoked
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.feed import Batch, Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.run import run
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import make_record
from coatcheck.testing.clock import START

LATER = START + 1000
PATIENCE = 60  # seconds, for what must come


class Followed(Feed, Protocol):
    def follow(self, position: int) -> AsyncGenerator[Batch, None]: ...


def session(name: str, until: int = LATER) -> Revoked:
    return Revoked(session_id=name, until=until)


def names(batch: Batch) -> list[str | None]:
    return [revoked.session_id for revoked in batch.revoked]


@pytest.fixture(params=["local", "sqlite"])
async def feed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Followed]:
    feed: Followed = LocalFeed() if request.param == "local" else SQLiteFeed(tmp_path / "feed.db")
    await feed.open()
    yield feed
    await feed.close()


async def heard(feed: Followed, position: int, count: int) -> list[Revoked]:
    """Follow until so many revocations were heard; every batch continues the one before."""
    found: list[Revoked] = []
    async with asyncio.timeout(PATIENCE), aclosing(feed.follow(position)) as batches:
        async for batch in batches:
            assert batch.after == position
            assert batch.position >= position
            position = batch.position
            found += batch.revoked
            if len(found) >= count:
                break
    return found


@pytest.mark.anyio
class TestFeeds:
    async def test_a_snapshot_is_what_is_still_of_use_and_its_position(self, feed: Followed) -> None:
        subject = Revoked(subject="alice", before=START, until=LATER)
        await feed.publish((session("old", START), session("a")), START - 10)
        await feed.publish((subject,), START - 10)
        snapshot = await feed.snapshot(START)
        assert snapshot.revoked == (session("a"), subject)
        assert snapshot.after == 0
        assert snapshot.position == 3

    async def test_nothing_published_is_position_0(self, feed: Followed) -> None:
        assert await feed.snapshot(START) == Batch(after=0, position=0)

    async def test_a_follower_hears_all_after_its_position_in_order_and_once(self, feed: Followed) -> None:
        await feed.publish((session("before"),), START)
        position = (await feed.snapshot(START)).position
        following = asyncio.create_task(heard(feed, position, 50))
        for n in range(25):
            await feed.publish((session(f"{2 * n}"), session(f"{2 * n + 1}")), START)
            await asyncio.sleep(0)
        assert [revoked.session_id for revoked in await following] == [str(n) for n in range(50)]
        assert len(await heard(feed, 0, 51)) == 51

    async def test_more_than_fits_in_one_batch_is_heard_as_well(self, feed: Followed) -> None:
        await feed.publish(tuple(session(str(n)) for n in range(2500)), START)
        assert len({revoked.session_id for revoked in await heard(feed, 0, 2500)}) == 2500

    async def test_every_follower_hears(self, feed: Followed) -> None:
        followers = [asyncio.create_task(heard(feed, 0, 3)) for _ in range(20)]
        for n in range(3):
            await feed.publish((session(str(n)),), START)
        assert [len(found) for found in await asyncio.gather(*followers)] == [3] * 20

    async def test_a_follower_without_news_is_given_heartbeats(self, feed: Followed) -> None:
        await feed.publish((session("a"),), START)
        async with asyncio.timeout(PATIENCE), aclosing(feed.follow(1)) as batches:
            for _ in range(3):
                assert await anext(batches) == Batch(after=1, position=1)

    async def test_a_position_that_was_never_reached_is_a_gap(self, feed: Followed) -> None:
        """The feed was made anew, or restored: what the follower knows is not what is there."""
        await feed.publish((session("a"),), START)
        async with asyncio.timeout(PATIENCE), aclosing(feed.follow(1000)) as batches:
            batch = await anext(batches)
        assert batch.after != 1000
        assert batch.position == 1

    async def test_what_is_of_no_use_any_more_is_dropped(self, feed: Followed) -> None:
        """R12: bounded, and no position is given twice."""
        for n in range(600):
            await feed.publish((session(str(n), START + n),), START + n)
        assert stored(feed) <= 300
        await feed.publish((session("last"),), START)
        assert (await feed.snapshot(0)).position == 601

    async def test_close_ends_followers(self, feed: Followed) -> None:
        async def follow() -> str:
            async for _ in feed.follow(0):
                started.set()
            return "ended"

        started = asyncio.Event()
        following = asyncio.create_task(follow())
        async with asyncio.timeout(PATIENCE):
            await started.wait()
            await feed.close()
            assert await following == "ended"

    async def test_publishing_nothing_moves_nothing(self, feed: Followed) -> None:
        await feed.publish((), START)
        assert (await feed.snapshot(START)).position == 0

    async def test_publishing_from_other_threads_without_a_loop_is_heard(self, feed: Followed) -> None:
        """As WSGI does it."""
        following = asyncio.create_task(heard(feed, 0, 8))
        threads = [threading.Thread(target=lambda n=n: run(feed.publish((session(str(n)),), START))) for n in range(8)]
        for thread in threads:
            thread.start()
        assert {revoked.session_id for revoked in await following} == {str(n) for n in range(8)}
        for thread in threads:
            thread.join()


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
            assert [revoked.session_id for revoked in await heard(feed, 0, 2)] == ["a", "b"]
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
    assert stored(second) == 0
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
    assert [revoked.session_id for revoked in await heard(feed, 1, 1)] == ["between"]
    await feed.close()
