"""PostgresFeed: in the order of commits, woken by notices and without them, and back by itself (P1, P6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from hearing import Hearing, publish, until

from coatcheck.errors import StoreUnavailable
from coatcheck.feeds import entries, postgres
from coatcheck.feeds.postgres import PostgresFeed
from coatcheck.testing.clock import START
from coatcheck.testing.feeds import LATER, PATIENCE, heard, session

pytestmark = pytest.mark.anyio

Make = Callable[..., PostgresFeed]


@pytest.fixture
def make_feed(server: Any, schema: str) -> Make:
    """Make a feed in the test's schema, or in another one; the test closes it."""
    return lambda **options: PostgresFeed(server.url, **{"schema": schema, **options})


@pytest.fixture
async def feed(make_feed: Make) -> AsyncIterator[PostgresFeed]:
    feed = make_feed()
    await feed.open()
    yield feed
    await feed.close()


async def test_p1_an_entry_is_numbered_when_the_one_before_is_committed_and_not_sooner(
    feed: PostgresFeed, make_feed: Make, server: Any
) -> None:
    """A transaction that is slow to commit holds the next one up, or followers would pass by what it has written."""
    patient = make_feed(timeout=timedelta(seconds=PATIENCE))
    [slow] = entries.write((session("slow"),), START)
    with server.connect() as connection:
        connection.execute("SELECT coatcheck_publish(%s, %s, %s)", ([slow.life], [slow.tag], [slow.body]))
        publishing = asyncio.create_task(patient.publish((session("quick"),), START))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: server.ask(waiting) == [(1,)])
        assert (await feed.snapshot(START)).revoked == ()
        connection.commit()
    await publishing
    assert await heard(feed, 0, 2) == ["slow", "quick"]
    await patient.close()


async def test_p6_whoever_cannot_publish_in_time_is_told_so_and_nobody_waits_for_two_turns(
    make_feed: Make, server: Any
) -> None:
    """Somebody holds the lock: those who are under way give up, and so do those who are gathered behind them."""
    feed = make_feed(timeout=timedelta(seconds=0.3))
    await feed.publish((session("first"),), START)
    lock = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 5120873346))"
    with server.connect() as connection:
        connection.execute(lock)
        behind = [asyncio.create_task(feed.publish((session(str(n)),), START)) for n in range(3)]
        await until(lambda: server.ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)])
        behind += [asyncio.create_task(feed.publish((session(str(n)),), START)) for n in range(3, 6)]
        failures = await asyncio.gather(*behind, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StoreUnavailable] * 6
        assert [str(failure) for failure in failures[3:]] == ["PostgreSQL did not answer in time"] * 3
        connection.rollback()
    await publish(feed, "last")
    assert "last" in [each.session_id for each in (await feed.snapshot(START)).revoked]
    await feed.close()


async def test_a_notice_wakes_and_without_one_they_look_all_the_same(
    feed: PostgresFeed, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.publish((session("a"),), START)
    position = (await feed.snapshot(START)).position
    with monkeypatch.context() as patched:
        patched.setattr(postgres, "_HEARTBEAT", 10 * PATIENCE)
        async with aclosing(feed.follow(position)) as batches:
            await anext(batches)
            woken = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            await feed.publish((session("b"),), START)
            async with asyncio.timeout(PATIENCE):
                assert [each.session_id for each in (await woken).revoked] == ["b"]
            position = (await feed.snapshot(START)).position
    following = asyncio.create_task(heard(feed, position, 1))
    [silent] = entries.write((session("silent"),), START)
    insert = "INSERT INTO coatcheck_revocation SELECT max(number) + 1, %s, %s, %s FROM coatcheck_revocation"
    server.ask(insert, LATER, silent.tag, silent.body)
    assert await following == ["silent"]


async def test_schemas_of_one_database_are_feeds_of_their_own(feed: PostgresFeed, make_feed: Make, server: Any) -> None:
    """What is published in one is not heard in the other; neither waits for the other's transactions."""
    name = f"{server.schema}_and_a_name_of_sixty_three_letters_as_long_as_it_may_be"[:63]
    other = make_feed(schema=name)
    try:
        with server.connect() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 5120873346))", (name,))
            await feed.publish((session("here"),), START)
        await other.publish((session("there"),), START)
        assert await heard(feed, 0, 1) == ["here"]
        assert await heard(other, 0, 1) == ["there"]
    finally:
        await other.close()
        server.ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


async def test_200_at_once_are_a_few_transactions(feed: PostgresFeed) -> None:
    """They exclude each other, until each is on the disk: so what comes meanwhile goes together."""
    pool: Any = feed._loops[asyncio.get_running_loop()].pool
    answer, sent = pool.answer, list[str]()

    async def counted(query: str, *rest: Any, **named: Any) -> Any:
        sent.append(query)
        return await answer(query, *rest, **named)

    pool.answer = counted
    await asyncio.gather(*(feed.publish((session(str(number)),), START) for number in range(200)))
    assert len(sent) <= 5
    assert len(await heard(feed, 0, 200)) == 200


async def test_r12_p9_what_is_of_no_use_any_more_is_dropped_and_the_newest_stays(
    feed: PostgresFeed, server: Any
) -> None:
    """Its number is needed: who has heard the last one, and nothing since, has missed nothing."""
    for number in range(20):
        await feed.publish((session(str(number), START),), START)
    assert server.ask("SELECT count(*), max(number) FROM coatcheck_revocation") == [(2, 20)]
    position = (await feed.snapshot(START)).position
    async with aclosing(feed.follow(position)) as batches:
        assert (await anext(batches)).after == position
    await feed.publish((session("last"),), START)
    assert await heard(feed, position, 1) == ["last"]


async def test_p7_what_is_of_use_is_kept_for_as_long_whatever_the_publishers_clock_says(feed: PostgresFeed) -> None:
    """One that is years behind, or ahead, drops nothing of the others'."""
    await feed.publish((session("a"),), START)
    for now in (0, 2 * START):
        await feed.publish((session(str(now), now + 1000),), now)
    assert await heard(feed, 0, 3) == ["a", "0", str(2 * START)]


async def test_p1_a_newest_entry_that_was_lost_and_numbered_again_is_a_gap(feed: PostgresFeed, server: Any) -> None:
    """As after a failover to a standby that had not got it, or with a restored backup."""
    for name in "abc":
        await feed.publish((session(name),), START)
    position = (await feed.snapshot(START)).position
    server.ask("DELETE FROM coatcheck_revocation WHERE number = 3")
    for name in ("", "x", "y"):  # nothing has come since; the number is given again; and one more
        if name:
            await feed.publish((session(name),), START)
        async with aclosing(feed.follow(position)) as batches:
            assert (await anext(batches)).after != position


async def test_p6_a_damaged_entry_is_not_passed_over(feed: PostgresFeed, server: Any) -> None:
    await feed.publish((session("a"),), START)
    server.ask("UPDATE coatcheck_revocation SET body = set_byte(body, 10, get_byte(body, 10) # 1)")
    for work in (feed.snapshot(START), heard(feed, 0, 1)):
        with pytest.raises(StoreUnavailable, match="damaged"):
            await work


async def test_p1_a_follower_whose_session_was_ended_is_back_by_itself(feed: PostgresFeed, server: Any) -> None:
    """As an administrator would, or a failover; nothing that was published meanwhile is missed."""
    async with Hearing(feed) as hearing:
        await publish(feed, "before")
        await hearing.of("before")
        for name in "ab":
            await asyncio.to_thread(server.terminate_all)
            await publish(feed, name)
        await hearing.of("a", "b")


async def test_p1_a_server_that_is_started_again_is_followed(feed: PostgresFeed, own_server: Any, server: Any) -> None:
    async with Hearing(feed) as hearing:
        await publish(feed, "before")
        await asyncio.to_thread(own_server.stop)
        with pytest.raises(StoreUnavailable):
            await feed.publish((session("meanwhile"),), START)
        await asyncio.to_thread(own_server.start)
        await publish(feed, "after")
        await hearing.of("before", "after")
    known = [each.session_id for each in (await feed.snapshot(START)).revoked]
    assert (known[0], known[-1]) == ("before", "after")


async def test_nothing_is_left_of_a_follower(make_feed: Make, server: Any) -> None:
    """Neither of one that was ended by `close`, nor of one that was cancelled."""

    async def follow(feed: PostgresFeed) -> None:
        async for _ in feed.follow(0):
            started.set()

    started, feed = asyncio.Event(), make_feed()
    tasks = [asyncio.create_task(follow(feed)) for _ in range(2)]
    await started.wait()
    tasks[0].cancel()
    await feed.close()
    await asyncio.wait(tasks)
    await until(lambda: server.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'coatcheck'") == [])
