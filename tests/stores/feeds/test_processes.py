"""Feeds between processes, and where the network fails them: a revocation reaches everybody (P1, P6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hearing import Hearing, publish
from places import KINDS, SHARED, Places, place
from sites import NETWORKED, Site

from coatcheck import Coatcheck, Keyring, Revoked, StoreUnavailable
from coatcheck.feed import Feed
from coatcheck.stores import store_from_url
from coatcheck.testing import FaultProxy
from coatcheck.testing.clock import START
from coatcheck.testing.feeds import PATIENCE, heard, session

__all__ = ["place"]  # pytest finds the fixture by this name

pytestmark = pytest.mark.anyio

PUBLISHERS, EACH = 4, 20


def feed_of(url: str) -> Feed:
    """The feed that a Coatcheck takes with this store."""
    return Coatcheck(store_from_url(url)).feed


async def publish_many(feed: Feed, who: int) -> None:
    async def one_of_several(number: int) -> None:
        for each in range(EACH):
            await publish(feed, f"{who}.{number}.{each}")

    await asyncio.gather(*(one_of_several(number) for number in range(PUBLISHERS)))
    await feed.close()


async def follow_all(feed: Feed, wanted: int) -> None:
    names = await heard(feed, 0, wanted)
    assert len(set(names)) == wanted
    for who in range(2):
        for number in range(PUBLISHERS):
            own = [name for name in names if name is not None and name.startswith(f"{who}.{number}.")]
            assert own == [f"{who}.{number}.{each}" for each in range(EACH)]
    await feed.close()


@pytest.mark.parametrize("kind", ["sqlite", *SHARED])
def test_p1_no_follower_misses_one_of_many_publishers_in_several_processes(
    kind: str, place: Places, together: Callable[..., list[int]]
) -> None:
    """Eight publishers in two processes, followers in two others: all hear all, in each one's order."""
    url, wanted = place(kind), 2 * PUBLISHERS * EACH
    asyncio.run(prepared(feed_of(url)))
    works = [lambda who=who: asyncio.run(publish_many(feed_of(url), who)) for who in range(2)]
    follow = lambda: asyncio.run(follow_all(feed_of(url), wanted))  # noqa: E731 (it is one of several works)
    assert together(follow, *works, follow) == [0, 0, 0, 0]


async def prepared(feed: Feed) -> None:
    await feed.open()
    await feed.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_s11_s13_a_sign_out_in_one_process_is_refused_in_the_other_without_a_look_up(
    kind: str, place: Places
) -> None:
    """With nothing but the store named: token by token the other process asks nobody, and nobody else is refused."""
    ring, url = Keyring.generate("HS256"), place(kind)
    async with Coatcheck(store_from_url(url), ring) as one, Coatcheck(store_from_url(url), ring) as two:
        assert two.policy.when_stale == "refuse"
        sessions = [await one.sessions.create(name, amr=("pwd",)) for name in ("ann", "ann", "bob")]
        ann, _, bob = [(await one.sessions.issue(each)).access_token for each in sessions]
        assert two.verifier.verify(ann).subject == "ann"
        assert await one.sessions.revoke_all("ann") == 2
        async with asyncio.timeout(PATIENCE):
            while is_good(two, ann):  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.01)
        assert is_good(two, bob)


def is_good(coat: Coatcheck, token: str) -> bool:
    try:
        coat.verifier.verify(token)
    except Revoked:
        return False
    return True


@pytest.mark.parametrize("kind", NETWORKED)
async def test_p1_p6_who_is_cut_off_hears_nothing_and_afterwards_everything(site: Site, caplog: Any) -> None:
    """What was published meanwhile, without anybody being told so, and what comes after connections were reset."""
    feed = Coatcheck(site.store(timeout=timedelta(seconds=0.4))).feed
    await feed.open()
    async with Hearing(feed) as hearing:
        await publish(feed, "before")
        await hearing.of("before")
        site.spoil(FaultProxy.hold_replies)
        with pytest.raises(StoreUnavailable):
            await feed.publish((session("meanwhile"),), START)
        async with asyncio.timeout(PATIENCE):
            while "the feed cannot be heard" not in caplog.text:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.01)
        silent_since = hearing.revocations.heard_at
        assert not hearing.revocations.covers("meanwhile", None, 0)
        await asyncio.sleep(0.1)
        assert hearing.revocations.heard_at == silent_since
        site.heal()
        await publish(feed, "healed")
        known = [each.session_id for each in (await feed.snapshot(START)).revoked]
        assert "meanwhile" in known or site.kind == "postgres"  # there it takes an answer to be carried out
        await hearing.of(*(name for name in known if name is not None))
        for _ in range(3):
            site.spoil(FaultProxy.reset)
            await publish(feed, "after")
        await hearing.of("after")
    await feed.close()
