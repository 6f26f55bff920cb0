"""Ending sessions while the feed or the store cannot do its part: pending, never done, and the next try finishes it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore

from coatcheck import Coatcheck, MemoryStore, Revoked, StoreUnavailable
from coatcheck.core.record import Record
from coatcheck.core.revocation import Revoked as Revocation
from coatcheck.core.session import Session
from coatcheck.feeds.local import LocalFeed
from coatcheck.run import run
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

Act = Callable[[Coatcheck, Session], Coroutine[Any, Any, Any]]
ACTS: dict[str, Act] = {
    "one": lambda coat, session: coat.sessions.revoke(session.id or ""),
    "every": lambda coat, session: coat.sessions.revoke_all("ann"),
    "every other": lambda coat, session: coat.sessions.revoke_all("ann", keep="A" * 22),
    "replaced": lambda coat, session: coat.sessions.supersede(session),
}
by_act = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)


class Feed(LocalFeed):
    """Can be down; notes what it was given in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.calls: list[set[str | None]] = []

    async def publish(self, revoked: tuple[Revocation, ...], now: int) -> None:
        if self.down:
            raise StoreUnavailable("down")
        self.calls.append({each.session_id for each in revoked})
        await asyncio.sleep(0)
        await super().publish(revoked, now)


class Store(CountingStore):
    """Counts these, too."""

    async def list(self, subject: str) -> builtins.list[Record]:
        self._count("list")
        return await super().list(subject)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        self._count("revoke_subject")
        return await super().revoke_subject(subject, before, keep)


class World:
    def __init__(self, store: Store | None = None) -> None:
        self.store, self.feed, self.clock = store or Store(), Feed(), SettableClock()
        self.coat = Coatcheck(self.store, feed=self.feed, clock=self.clock, on_event=lambda _: None)

    async def sign_in(self) -> Session:
        return await self.coat.sessions.create("ann", amr=("pwd",))


@by_act
async def test_p1_with_the_feed_down_nothing_is_removed_and_the_next_try_finishes_it(act: Act) -> None:
    """Removed without a word to anybody, no second try would find it. This process refuses meanwhile."""
    world = World()
    session = await world.sign_in()
    token = (await world.coat.sessions.issue(session)).access_token
    world.feed.down = True
    with pytest.raises(StoreUnavailable):
        await act(world.coat, session)
    assert (record := await world.store.load(session.id or "")) is not None
    assert record.successor is None
    with pytest.raises(Revoked):
        world.coat.verifier.verify(token)
    world.feed.down = False
    await act(world.coat, session)
    assert await world.coat.sessions.list("ann") == []
    assert session.id in set().union(*world.feed.calls)


@by_act
async def test_p6_a_store_that_does_not_answer_is_not_asked_again(act: Act) -> None:
    """Two waits in a row would be longer than anybody may be kept."""
    world = World()
    session = await world.sign_in()
    world.store.broken = True
    world.store.calls.clear()
    with pytest.raises(StoreUnavailable):
        await act(world.coat, session)
    assert world.store.calls.total() == 1


class Stuck(Store):
    """Can be read, and not changed."""

    stuck = True

    def _count(self, call: str) -> None:
        super()._count(call)
        if self.stuck and call in ("delete", "revoke_subject", "replace"):
            raise StoreUnavailable("pending: down")


@by_act
async def test_p1_what_could_not_be_removed_is_pending_and_the_next_try_finishes_it(act: Act) -> None:
    """It is refused here at once; who asked is never told that it is done, or that there was nothing to end."""
    store = Stuck()
    world = World(store)
    session = await world.sign_in()
    token = (await world.coat.sessions.issue(session)).access_token
    with pytest.raises(StoreUnavailable, match="pending"):
        await act(world.coat, session)
    with pytest.raises(Revoked):
        world.coat.verifier.verify(token)
    store.stuck = False
    await act(world.coat, session)
    assert await world.coat.sessions.list("ann") == []


class Damaged(Store):
    """Holds a record that cannot be read."""

    async def load(self, id: str) -> Record | None:
        raise StoreUnavailable("store damaged: a record cannot be read")

    async def list(self, subject: str) -> builtins.list[Record]:
        raise StoreUnavailable("store damaged: a record cannot be read")


@pytest.mark.parametrize("name", ["one", "every", "every other"])
async def test_p1_a_damaged_record_is_ended_all_the_same(name: str) -> None:
    """And everybody is told."""
    world = World(Damaged())
    session = await world.sign_in()
    await ACTS[name](world.coat, session)
    assert await CountingStore.load(world.store, session.id or "") is None
    assert session.id in set().union(*world.feed.calls)


async def test_p1_what_only_the_removal_found_is_told_by_the_next_try_if_the_feed_fails_then() -> None:
    """A sign-in that came between the list and the removal: its id is known to nobody but the one who removed it."""
    world = World()
    await world.sign_in()
    list_before, late = world.store.list, list[Session]()

    async def sign_in_just_after(subject: str) -> builtins.list[Record]:
        found = await list_before(subject)
        late.append(await world.sign_in())
        return found

    async def go_down_just_after(subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        ended = await Store.revoke_subject(world.store, subject, before, keep)
        world.feed.down = True
        return ended

    world.store.list = sign_in_just_after  # type: ignore[method-assign]
    world.store.revoke_subject = go_down_just_after  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await world.coat.sessions.revoke_all("ann", keep="A" * 22)
    world.feed.down = False
    world.store.list = list_before  # type: ignore[method-assign]
    assert late[0].id not in set().union(*world.feed.calls)
    await world.coat.sessions.revoke_all("ann", keep="A" * 22)
    assert late[0].id in set().union(*world.feed.calls)


async def test_p9_what_others_are_telling_at_this_moment_is_not_told_twice() -> None:
    """A hundred sign-outs at once are a hundred words to the feed, not five thousand."""
    world = World()
    sessions = [await world.sign_in() for _ in range(100)]
    await asyncio.gather(*(world.coat.sessions.revoke(session.id or "") for session in sessions))
    assert world.feed.calls == [{session.id} for session in sessions]


def test_s13_p9_what_is_owed_is_forgotten_when_it_is_of_no_use_any_more() -> None:
    """A feed that is down for a day leaves nothing behind in memory."""
    world = World()
    session = run(world.coat.sessions.create("ann"))
    world.feed.down = True
    with pytest.raises(StoreUnavailable):
        run(world.coat.sessions.revoke(session.id or ""))
    owed = world.coat.sessions._announcer._owed
    assert len(owed) == 1
    world.clock.set(next(iter(owed.values())).until)
    with pytest.raises(StoreUnavailable):
        run(world.coat.sessions.revoke("A" * 22))
    assert {entry.session_id for entry in owed.values()} == {"A" * 22}


def test_p9_a_refused_cookie_that_comes_again_and_again_is_owed_once_while_the_feed_is_down() -> None:
    class Down(LocalFeed):
        most = 0

        async def publish(self, revoked: tuple[Revocation, ...], now: int) -> None:
            self.most = max(self.most, len(revoked))
            raise StoreUnavailable("down")

    clock, feed = SettableClock(), Down()
    coat = Coatcheck(MemoryStore(), feed=feed, clock=clock, on_event=lambda _: None)
    session = run(coat.sessions.create("ann"))
    for _ in range(100):
        clock.advance(timedelta(milliseconds=2))
        with pytest.raises(StoreUnavailable):
            run(coat.sessions.revoke(session.id or ""))
    assert feed.most == 1
