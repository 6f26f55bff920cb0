"""FeedContract: the promises of `coatcheck.feed`, as tests that any feed can run.

    @pytest.mark.anyio
    class TestMyFeed(FeedContract):
        @pytest.fixture
        async def feed(self):
            feed = MyFeed(...)
            await feed.open()
            yield feed
            await feed.close()

        @pytest.fixture
        async def other(self):
            ...  # the same again: a second handle on the same feed, as another process has it

Every test is handed a feed that is open and empty, and runs on asyncio. pytest and anyio's plugin for it are needed
only by who runs them.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

from coatcheck.clock import monotonic_clock
from coatcheck.core.revocation import Revoked
from coatcheck.feed import Feed
from coatcheck.run import run
from coatcheck.testing.clock import START

LATER = START + 1000
PATIENCE = 60  # seconds, for what must come
PUBLISHERS, EACH = 8, 25


def session(name: str, until: int = LATER) -> Revoked:
    """Return the revocation of a session."""
    return Revoked(session_id=name, until=until)


async def heard(feed: Feed, position: int, count: int) -> list[str | None]:
    """Return the ids of `count` revocations after a position; every batch must continue the one before."""
    found: list[str | None] = []
    async with asyncio.timeout(PATIENCE), aclosing(feed.follow(position)) as batches:
        async for batch in batches:
            assert batch.after == position
            assert batch.position >= position
            assert bool(batch.revoked) == (batch.position > position)
            position = batch.position
            found += [revoked.session_id for revoked in batch.revoked]
            if len(found) >= count:
                break
    return found


class FeedContract:
    """A feed keeps these promises, or it is not one. Subclasses give the fixtures `feed` and `other`."""

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def test_nothing_published_is_position_0(self, feed: Feed) -> None:
        """A feed begins at position 0; publishing nothing moves nothing."""
        await feed.publish((), START)
        snapshot = await feed.snapshot(START)
        assert (snapshot.after, snapshot.position, snapshot.revoked) == (0, 0, ())

    async def test_a_snapshot_is_what_is_still_of_use(self, feed: Feed, other: Feed) -> None:
        """Every field of it, in order; what may be forgotten is not in it, and its position leads on."""
        kept = (session("a"), Revoked(subject="Zoë Müller", before=START - 7, until=LATER))
        await feed.publish((session("old", START), *kept[:1]), START - 10)
        await other.publish(kept[1:], START - 10)
        snapshot = await feed.snapshot(START)
        assert snapshot.after == 0
        assert snapshot.revoked == kept
        await other.publish((session("next"),), START)
        assert await heard(feed, snapshot.position, 1) == ["next"]

    async def test_r12_p9_what_is_of_no_use_any_more_is_dropped(self, feed: Feed) -> None:
        """And no position is given twice: who was there before knows that it has not heard what came since."""
        await feed.publish((session("first", START),), START)
        position = (await feed.snapshot(START)).position
        for number in range(20):
            await feed.publish((session(f"passing{number}", START),), START)
        await feed.publish((session("last"),), START)
        snapshot = await feed.snapshot(START)
        assert snapshot.revoked == (session("last"),)
        assert snapshot.position > position

    # -- following -----------------------------------------------------------------------------------------------

    async def test_a_follower_hears_all_after_its_position_in_order_and_once(self, feed: Feed, other: Feed) -> None:
        """Whoever publishes it, and whether it was there before or comes while it waits."""
        await other.publish((session("before"),), START)
        position = (await feed.snapshot(START)).position
        following = asyncio.create_task(heard(feed, position, 30))
        for number in range(15):
            await other.publish((session(f"{2 * number}"), session(f"{2 * number + 1}")), START)
            await asyncio.sleep(0)
        assert await following == [str(number) for number in range(30)]
        assert await heard(other, 0, 31) == ["before", *(str(number) for number in range(30))]

    async def test_more_than_fits_in_one_batch_is_heard_as_well(self, feed: Feed) -> None:
        """A burst is heard to its last; so is what one call published, and what many did."""
        await feed.publish(tuple(session(str(number)) for number in range(1200)), START)
        await asyncio.gather(*(feed.publish((session(f"single{number}"),), START) for number in range(450)))
        snapshot = await feed.snapshot(START)
        ids = await heard(feed, 0, 1650)
        assert len(set(ids)) == len(ids) == 1650
        assert [revoked.session_id for revoked in snapshot.revoked] == ids

    async def test_a_late_joiner_hears_what_came_after_its_snapshot(self, feed: Feed, other: Feed) -> None:
        """Snapshot and the rest are everything, with nothing twice, wherever the line between them is."""
        for number in range(10):
            await feed.publish((session(str(number)),), START)
            snapshot = await other.snapshot(START)
            following = asyncio.create_task(heard(other, snapshot.position, 1))
            await feed.publish((session(f"after{number}"),), START)
            known = [revoked.session_id for revoked in snapshot.revoked]
            assert await following == [f"after{number}"]
            assert known == [name for n in range(number) for name in (str(n), f"after{n}")] + [str(number)]

    async def test_every_follower_hears_the_same(self, feed: Feed, other: Feed) -> None:
        """Many publishers at once, through both handles: all hear all, in one order, which is their own as well."""
        count = PUBLISHERS * EACH
        followers = [asyncio.create_task(heard(each, 0, count)) for each in (feed, other, feed)]
        publishers = [self._publish_many(feed if number % 2 else other, number) for number in range(PUBLISHERS)]
        await asyncio.gather(*publishers)
        first, *rest = [await follower for follower in followers]
        assert rest == [first, first]
        assert len(set(first)) == len(first) == count
        for number in range(PUBLISHERS):
            own = [name for name in first if name is not None and name.startswith(f"{number}:")]
            assert own == [f"{number}:{each}" for each in range(EACH)]

    async def test_a_follower_without_news_is_given_heartbeats(self, feed: Feed) -> None:
        """They say where it is, and none claims to be newer than it is."""
        await feed.publish((session("a"),), START)
        position = (await feed.snapshot(START)).position
        async with asyncio.timeout(PATIENCE), aclosing(feed.follow(position)) as batches:
            for _ in range(2):
                batch = await anext(batches)
                assert (batch.after, batch.position, batch.revoked) == (position, position, ())
                assert batch.heard_at is None or batch.heard_at <= monotonic_clock()

    async def test_a_position_that_was_never_reached_is_a_gap(self, feed: Feed) -> None:
        """The feed was made anew, or restored: what the follower knows is not what is there. A snapshot leads on."""
        await feed.publish((session("a"),), START)
        never = (await feed.snapshot(START)).position + 10**9
        async with asyncio.timeout(PATIENCE), aclosing(feed.follow(never)) as batches:
            assert (await anext(batches)).after != never
        snapshot = await feed.snapshot(START)
        await feed.publish((session("b"),), START)
        assert await heard(feed, snapshot.position, 1) == ["b"]

    async def test_close_ends_followers(self, feed: Feed) -> None:
        """They end as if there were no more, and closing again does nothing."""
        started = asyncio.Event()

        async def follow() -> str:
            async with aclosing(feed.follow(0)) as batches:
                async for _ in batches:
                    started.set()
            return "ended"

        following = asyncio.create_task(follow())
        async with asyncio.timeout(PATIENCE):
            await started.wait()
            await feed.close()
            assert await following == "ended"
            await feed.close()

    async def test_publishing_from_threads_without_a_loop_is_heard(self, feed: Feed) -> None:
        """As WSGI servers do it."""
        following = asyncio.create_task(heard(feed, 0, 4))
        threads = [threading.Thread(target=self._publish_alone, args=(feed, str(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        assert set(await following) == {str(number) for number in range(4)}
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(lambda: run(feed.close()))

    # -- inside --------------------------------------------------------------------------------------------------

    def _publish_alone(self, feed: Feed, name: str) -> None:
        run(feed.publish((session(name),), START))

    async def _publish_many(self, feed: Feed, number: int) -> None:
        for each in range(EACH):
            await feed.publish((session(f"{number}:{each}"),), START)
