"""S9: at most so many sessions of one subject, exactly, in every order in which sign-ins can meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import (
    Coatcheck,
    ConfigurationError,
    MemoryStore,
    Policy,
    Revoked,
    Session,
    StoreUnavailable,
    TooManySessions,
)
from coatcheck.core.policy import WhenFull
from coatcheck.events import Event
from coatcheck.run import run
from coatcheck.testing import SettableClock
from coatcheck.testing.races import Outcome, Race, Stepping, explore


class World:
    """A process whose calls of the store are places to change over, and one that looks at what came of it."""

    def __init__(self, most: int | None, when_full: WhenFull = "end_oldest") -> None:
        self.clock, self.store, self.events = SettableClock(), MemoryStore(), list[Event]()
        policy = Policy(max_sessions=most, when_full=when_full)
        self.coat = Coatcheck(self.store, policy=policy, clock=self.clock, on_event=self.events.append)
        self.racing = Coatcheck(
            Stepping(self.store), self.coat.keyring, policy, self.coat.feed, clock=self.clock, on_event=lambda _: None
        )

    def sign_in(self) -> Session:
        self.clock.advance(timedelta(minutes=2))
        return run(self.coat.sessions.create("ann", amr=("pwd",)))

    def alive(self) -> list[str | None]:
        """Ids of the living sessions, the newest first."""
        return [session.id for session in run(self.coat.sessions.list("ann"))]

    def stored(self) -> set[str]:
        """Ids of what is stored of anybody."""
        return {record.id for record in self.store._records.values() if record.subject is not None}


def explored(new_world: Callable[[], World], scene: Callable[[World], tuple[list[Any], Any]]) -> int:
    def set_up() -> Race:
        racers, check = scene(new_world())
        return Race(racers, check)

    return explore(set_up)


def test_s9_one_more_ends_the_one_whose_sign_in_is_the_longest_ago() -> None:
    world = World(2)
    first, second, third = world.sign_in(), world.sign_in(), world.sign_in()
    assert world.alive() == [third.id, second.id]
    assert first.cookie is not None
    with pytest.raises(Revoked):
        run(world.coat.sessions.load(first.cookie))
    assert [(event.kind, event.reason) for event in world.events if event.session_id == first.id] == [
        ("signed_in", ""),
        ("revoked", "too many sessions"),
    ]


def test_s9_or_it_is_refused_and_leaves_nothing() -> None:
    world = World(2, "refuse")
    first, second = world.sign_in(), world.sign_in()
    with pytest.raises(TooManySessions, match="2 sessions"):
        world.sign_in()
    assert world.alive() == [second.id, first.id]
    run(world.coat.sessions.revoke(first.id or ""))
    assert world.sign_in().id in world.alive()


def test_s9_others_and_visits_do_not_count() -> None:
    world = World(1, "refuse")
    session = world.sign_in()
    for subject in ("bob", None, None):
        run(world.coat.sessions.create(subject))
    assert world.alive() == [session.id]


def test_s9_a_session_that_was_rotated_still_counts() -> None:
    world = World(1, "refuse")
    session = world.sign_in()
    run(world.coat.sessions.rotate(session))
    with pytest.raises(TooManySessions):
        world.sign_in()


def test_s9_sessions_from_before_there_was_a_limit_count() -> None:
    world = World(2)
    unlimited = Coatcheck(world.store, world.coat.keyring, clock=world.clock, on_event=lambda _: None)
    old = [run(unlimited.sessions.create("ann")).id for _ in range(4)]
    new = world.sign_in()
    assert len(world.alive()) == 2 and new.id in world.alive()
    assert set(world.alive()) - {new.id} < set(old)


def test_s9_an_expired_session_takes_no_place() -> None:
    world = World(1, "refuse")
    world.sign_in()
    world.clock.advance(timedelta(days=8))
    assert world.alive() == []
    world.sign_in()


def test_s9_clocks_do_not_decide_who_is_signed_out() -> None:
    """P7: who signs in where the clock is slow is in nevertheless."""
    world = World(1)
    world.sign_in()
    world.clock.advance(timedelta(minutes=-30))
    late = world.sign_in()
    assert world.alive() == [late.id]


def test_the_roll_is_nobody_s_session() -> None:
    world = World(1)
    world.sign_in()
    [roll] = [record for record in world.store._records.values() if record.subject is None]
    assert run(world.store.list("ann")) != [roll]
    assert roll.digest == bytes(32) and roll.expires_at > world.clock()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_s9_however_sign_ins_meet_exactly_so_many_are_left(before: int) -> None:
    """Every interleaving: all are answered; who is out was ended by a later one."""

    def new_world() -> World:
        world = World(2)
        for _ in range(before):
            world.sign_in()
        world.clock.advance(timedelta(minutes=2))
        return world

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Session]], Callable[[list[Outcome]], None]]:
        def check(outcomes: list[Outcome]) -> None:
            assert all(isinstance(outcome, Session | Revoked) for outcome in outcomes), outcomes
            assert len(world.alive()) == 2
            if before == 2:
                assert set(world.alive()) == {outcome.id for outcome in outcomes}

        return [world.racing.sessions.create("ann") for _ in range(2)], check

    assert explored(new_world, scene) > 10


@pytest.mark.parametrize("before", [0, 1])
def test_s9_however_sign_ins_meet_the_places_are_given_to_as_many_as_there_are(before: int) -> None:
    """Every interleaving: of two who race for the last place, one gets it and one is refused."""

    def new_world() -> World:
        world = World(1 + before, "refuse")
        for _ in range(before):
            world.sign_in()
        world.clock.advance(timedelta(minutes=2))
        return world

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Session]], Callable[[list[Outcome]], None]]:
        def check(outcomes: list[Outcome]) -> None:
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Session", "TooManySessions"]
            assert len(world.alive()) == 1 + before

        return [world.racing.sessions.create("ann") for _ in range(2)], check

    assert explored(new_world, scene) > 10


def test_p1_a_sign_in_that_meets_a_sign_out_everywhere_is_out() -> None:
    def scene(world: World) -> tuple[list[Any], Callable[[list[Outcome]], None]]:
        def check(outcomes: list[Outcome]) -> None:
            assert isinstance(outcomes[0], Session | Revoked)
            if isinstance(outcomes[0], Revoked):
                assert world.alive() == []

        return [world.racing.sessions.create("ann"), world.racing.sessions.revoke_all("ann")], check

    assert explored(lambda: World(1), scene) > 10


@pytest.mark.parametrize("wrong", [0, -1, 1001])
def test_a_limit_is_one_to_a_thousand(wrong: int) -> None:
    with pytest.raises(ConfigurationError, match="max_sessions"):
        Policy(max_sessions=wrong)


def test_without_a_limit_a_sign_in_is_one_call_of_the_store() -> None:
    calls: list[str] = []

    class Counting(MemoryStore):
        async def load(self, id: str) -> Any:
            calls.append("load")
            return await super().load(id)

        async def list(self, subject: str) -> Any:
            calls.append("list")
            return await super().list(subject)

    run(Coatcheck(Counting()).sessions.create("ann"))
    assert calls == []


def test_p6_a_store_that_fails_in_between_admits_nobody() -> None:
    world = World(1, "refuse")

    class Failing(MemoryStore):
        async def list(self, subject: str) -> Any:
            raise StoreUnavailable("away")

    coat = Coatcheck(Failing(), policy=world.coat.policy)
    with pytest.raises(StoreUnavailable):
        run(coat.sessions.create("ann"))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", ["load", "list", "publish", "replace", "create"])
def test_s9_a_sign_in_that_is_broken_off_takes_no_place(at: str, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the store or the feed, whether or not it has done what it was asked for: nobody has its cookie."""
    world = World(1)
    if at != "create":  # of the roll
        world.sign_in()
    before = world.stored()
    holder = world.coat.feed if at == "publish" else world.store
    original = getattr(holder, at)

    async def broken(*arguments: Any) -> Any:
        is_sign_in = at == "create" and arguments[0].subject is not None
        answer = await original(*arguments) if done or is_sign_in else None
        if is_sign_in:
            return answer
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(holder, at, broken)
        with pytest.raises(StoreUnavailable):
            world.sign_in()
    assert world.stored() <= before
    session = world.sign_in()
    assert world.alive() == [session.id]


@pytest.mark.parametrize("at", ["create", "load", "list", "replace"])
@pytest.mark.anyio
async def test_s9_a_sign_in_that_is_cancelled_takes_no_place(at: str) -> None:
    """Wherever it was: nobody has its cookie."""
    world, reached = World(1, "refuse"), asyncio.Event()
    kept = await world.coat.sessions.create("ann")
    await world.coat.sessions.revoke(kept)
    original = getattr(world.store, at)

    async def hanging(*args: Any) -> Any:
        if at == "create":
            await original(*args)  # a write goes on, whoever waits for it
        reached.set()
        await asyncio.Event().wait()

    setattr(world.store, at, hanging)
    signing_in = asyncio.ensure_future(world.coat.sessions.create("ann"))
    await asyncio.wait_for(reached.wait(), 30)
    signing_in.cancel()
    await asyncio.wait([signing_in])
    assert signing_in.cancelled()
    setattr(world.store, at, original)
    assert await world.coat.sessions.list("ann") == []
    world.clock.advance(timedelta(minutes=2))
    new = await world.coat.sessions.create("ann")
    assert [session.id for session in await world.coat.sessions.list("ann")] == [new.id]
