"""The hub: one follower of the feed for all who listen, what it keeps for them, and when it tells of a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from hearing import LATER, entries, names

from coatcheck.feed import Batch
from coatcheck.feeds.local import LocalFeed
from coatcheck.server.feed_hub import MOST_AT_ONCE, FeedHub
from coatcheck.testing import SettableClock
from coatcheck.testing.clock import START

pytestmark = pytest.mark.anyio


@pytest.fixture
async def feed() -> LocalFeed:
    return LocalFeed()


@pytest.fixture
async def hub(feed: LocalFeed) -> AsyncIterator[FeedHub]:
    hub = FeedHub(feed, clock=SettableClock(), remembered=10)
    await hub.open()
    yield hub
    await hub.close()


async def listen(hub: FeedHub, position: int, count: int = 1) -> list[Batch]:
    """Listen until so many batches with something in them have come, or there is a gap."""
    found: list[Batch] = []
    async with asyncio.timeout(30), aclosing(hub.listen(position)) as batches:
        async for batch in batches:
            if batch.revoked or batch.after != position:
                found.append(batch)
            if len(found) >= count:
                break
            position = batch.position
    return found


async def test_p9_who_asks_of_what_is_not_known_waits_no_longer_than_a_second_however_many_ask(
    hub: FeedHub, feed: LocalFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where those who have asked before are gone again."""

    async def follow(_: int) -> AsyncGenerator[Batch, None]:
        await asyncio.sleep(60)
        yield Batch(after=0, position=0)

    monkeypatch.setattr(feed, "follow", follow)
    monkeypatch.setattr("coatcheck.server.feed_hub._PATIENCE_SECONDS", 0.05)
    known = START * 1000
    async with asyncio.timeout(5):
        heard = await asyncio.gather(*(listen(hub, known + 10**6 + number) for number in range(200)))
    assert heard == [[]] * 200
    assert not hub._asked


async def settled(hub: FeedHub, feed: LocalFeed) -> int:
    """Wait until the hub has heard everything, and return its position."""
    async with asyncio.timeout(30):
        while hub._position < hub._offset + feed._position:
            await hub._beat.wait()
    return hub._position


async def test_listeners_go_on_where_they_were_and_hear_all(hub: FeedHub, feed: LocalFeed) -> None:
    start = hub._position
    listening = [asyncio.create_task(listen(hub, start, 2)) for _ in range(20)]
    await feed.publish(entries("a"), START)
    await settled(hub, feed)
    await asyncio.sleep(0)
    await feed.publish(entries("b", "c"), START)
    for heard in await asyncio.gather(*listening):
        assert [names(batch) for batch in heard] == [["a"], ["b", "c"]]
    [late] = await listen(hub, start)
    assert names(late) == ["a", "b", "c"]
    [between] = await listen(hub, start + 2)
    assert (between.after, between.position, names(between)) == (start + 2, start + 3, ["c"])


async def test_what_never_was_is_a_gap_and_of_what_is_long_ago_the_feed_says_more(
    hub: FeedHub, feed: LocalFeed
) -> None:
    start = hub._position
    for n in range(15):
        await feed.publish(entries(str(n)), START)
        await settled(hub, feed)
    assert sum(len(batch.revoked) for batch in hub._past) == 10
    for position in (0, start - 1, start + 16, 10**18):
        [batch] = await listen(hub, position)
        assert (batch.after == position, batch.revoked) == (False, ())
    for position in (0, 4, 5, 14):
        [batch] = await listen(hub, start + position)
        assert names(batch) == [str(n) for n in range(position, 15)]
    hub._remembered = 0  # and while somebody listens, there is nobody to ask any more
    listening = asyncio.create_task(listen(hub, start + 15))
    await asyncio.sleep(0.01)
    await feed.publish(entries("15"), START)
    [batch] = await listening
    assert batch.after < 0


async def test_who_has_heard_more_than_this_process_is_waited_for(feed: LocalFeed) -> None:
    """Another server of the same store told it already: that is no gap."""
    hub = FeedHub(feed, clock=SettableClock())  # it follows as this test says
    start = hub._position
    await feed.publish(entries("a", "b"), START)
    listening = asyncio.create_task(listen(hub, start + 1, 2))
    await asyncio.sleep(0.01)
    hub._take(Batch(after=0, position=2, revoked=entries("a", "b")))
    await asyncio.sleep(0.01)
    hub._take(Batch(after=2, position=3, revoked=entries("c")))
    first, second = await listening
    assert (first.after, names(first)) == (start + 1, ["b"])
    assert (second.after, names(second)) == (start + 2, ["c"])


async def test_a_position_of_a_history_that_was_lost_is_a_gap_though_its_number_is_small_enough() -> None:
    """P1: a failover lost the newest entries, and others have their numbers; the feed itself knows which is which."""

    class Forked(LocalFeed):
        async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
            yield Batch(after=position if position % 10 == 0 else -1, position=max(position, 40))
            await asyncio.sleep(30)

    hub = FeedHub(Forked(), clock=SettableClock())
    hub._offset = hub._position = hub._oldest = 0
    for position in (10, 20, 30, 40):
        hub._take(Batch(after=position - 10, position=position, revoked=entries(str(position))))
    assert [names(batch) for batch in await listen(hub, 20)] == [["30", "40"]]
    for position in (25, 35):
        [batch] = await listen(hub, position)
        assert batch.after < 0


async def test_a_gap_in_the_feed_itself_is_passed_on(feed: LocalFeed) -> None:
    """The store was restored from a copy: what listeners know is not what is there."""
    hub = FeedHub(feed, clock=SettableClock())
    hub._take(Batch(after=0, position=5, revoked=entries(*"abcde")))
    at = hub._position
    listening = asyncio.create_task(listen(hub, at))
    await asyncio.sleep(0)
    hub._take(Batch(after=2, position=2))
    hub._take(Batch(after=2, position=9, revoked=entries("x", "y")))  # before the listener's turn comes
    [batch] = await listening
    assert (batch.after == at, batch.revoked) == (False, ())


async def test_many_at_once_come_in_parts_and_lead_on_only_when_all_are_here(feed: LocalFeed) -> None:
    """P9: an event has a bound; who loses the connection between two parts hears them again."""
    hub = FeedHub(feed, clock=SettableClock())
    await hub.open()
    start = hub._position
    await feed.publish(entries(*(str(n) for n in range(2 * MOST_AT_ONCE + 1))), START)
    heard = await listen(hub, start, 3)
    assert [len(batch.revoked) for batch in heard] == [MOST_AT_ONCE, MOST_AT_ONCE, 1]
    assert [batch.position - start for batch in heard] == [0, 0, 2 * MOST_AT_ONCE + 1]
    await hub.close()


async def test_a_feed_in_memory_is_another_one_after_a_restart(feed: LocalFeed) -> None:
    """P1: 57 entries of the process before are not the first 57 of this one."""
    before, after = (FeedHub(LocalFeed(), clock=SettableClock(START + n)) for n in range(2))
    for hub in (before, after):
        hub._take(Batch(after=0, position=57))
    [batch] = await listen(after, before._position)
    assert batch.after != before._position


async def test_snapshots_that_are_asked_for_at_once_are_made_once(hub: FeedHub, feed: LocalFeed) -> None:
    await feed.publish(entries("a"), START)
    found = await asyncio.gather(*(hub.snapshot() for _ in range(20)))
    assert len({id(snapshot.revoked) for snapshot in found}) == 1
    assert msgspec.json.decode(found[0].revoked) == [{"until": LATER, "session_id": "a"}]
    await feed.publish(entries("b"), START)
    assert (await hub.snapshot()).position == found[0].position + 1
