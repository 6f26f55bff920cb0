"""Every interleaving of racing requests keeps the promises (P1, P3, P5)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from coatcheck import Coatcheck, MemoryStore, Policy
from coatcheck.core.record import Record
from coatcheck.core.revocation import Revoked as Revocation
from coatcheck.core.session import Session
from coatcheck.errors import Reused, Revoked, SessionGone
from coatcheck.events import Event
from coatcheck.feeds.local import LocalFeed
from coatcheck.run import run
from coatcheck.testing import SettableClock
from coatcheck.testing.races import Outcome, Race, Stepping, explore, step


class SteppingFeed(LocalFeed):
    """A feed that lets the scheduler decide who goes next before it takes what is published."""

    async def publish(self, revoked: tuple[Revocation, ...], now: int) -> None:
        await step()
        await super().publish(revoked, now)


class World:
    """A fresh store, a fresh desk, and one signed-in session of ann's."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock = SettableClock()
        self.plain = store or MemoryStore()
        self.coat = Coatcheck(self.plain, policy=Policy(), clock=self.clock, on_event=_ignore)
        self.sessions = self.coat.sessions
        self.session = run(self.sessions.create("ann", amr=("pwd",)))
        self.beside = Coatcheck(
            Stepping(self.plain), self.coat.keyring, feed=SteppingFeed(), clock=self.clock, on_event=_ignore
        )
        self.racing = self.beside.sessions

    def alive(self) -> list[Session]:
        return run(self.sessions.list("ann"))

    def stored(self) -> list[Record]:
        return run(self.plain.list("ann"))


def _ignore(_: Event) -> None: ...


def holds(scene: Callable[[World], tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]]) -> int:
    """Explore a scene; each schedule starts in a world of its own."""

    def set_up() -> Race:
        racers, check = scene(World())
        return Race(racers, check)

    return explore(set_up)


def snapshot(world: World) -> Session:
    """The session as a request in flight holds it: loaded before the race began."""
    return Session(world.session.record)


async def write_in_flight(world: World, key: str) -> None:
    session = snapshot(world)
    session[key] = key
    await world.racing.save(session)


@pytest.mark.parametrize("tabs", [2, 3])
def test_p5_racing_refreshes_all_get_the_identical_successor(tabs: int) -> None:
    """However two or three tabs interleave, all get the same refresh token and nobody is signed out."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        token = run(world.sessions.issue(world.session)).refresh_token

        def check(outcomes: list[Outcome]) -> None:
            assert len({outcome.refresh_token for outcome in outcomes}) == 1
            assert outcomes[0].refresh_token != token
            assert [record.generation for record in world.stored()] == [1]

        return [world.racing.refresh(token) for _ in range(tabs)], check

    assert holds(scene) >= 6


def test_p3_three_writers_of_different_keys_all_win() -> None:
    """Nothing is lost, in whatever order three requests load and save."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        def check(outcomes: list[Outcome]) -> None:
            assert outcomes == [None] * 3
            assert dict(world.alive()[0]) == {"a": "a", "b": "b", "c": "c"}

        return [write_in_flight(world, key) for key in "abc"], check

    assert holds(scene) > 50


@pytest.mark.parametrize("edit", ["write", "write and delete", "clear and write"])
def test_p3_tasks_that_share_a_session_take_nothing_back_from_each_other(edit: str) -> None:
    """Two tasks of one WebSocket save the edits of both; whoever is done last does not take the other's for deleted."""

    async def task(world: World, session: Session, key: str) -> None:
        if edit == "clear and write":
            session.clear()
        session[key] = key
        if edit == "write and delete":
            session.pop("old", None)
        await world.racing.save(session)

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        world.session["old"] = "old"
        run(world.sessions.save(world.session))
        session = snapshot(world)

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes == [None] * 2
            here, stored = dict(session), dict(world.alive()[0])
            run(world.sessions.save(session))
            assert here == stored == dict(world.alive()[0])
            assert stored.keys() & {"a", "b"} == {"a", "b"} or edit == "clear and write"  # then the later save wins

        return [task(world, session, key) for key in "ab"], check

    assert holds(scene) >= 2


def test_p3_of_two_tasks_that_share_a_session_the_later_word_counts() -> None:
    """Both save what was said last: whoever has to try again does not say once more what it said before."""

    async def task(world: World, session: Session, value: int, said: list[int]) -> None:
        await step()
        session["count"] = value
        said.append(value)
        await world.racing.save(session)

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        session, said = snapshot(world), list[int]()

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes == [None] * 3
            run(world.sessions.save(session))
            assert session["count"] == world.alive()[0]["count"] == said[-1]
            assert world.alive()[0]["other"] == "other"

        return [task(world, session, 1, said), task(world, session, 2, said), write_in_flight(world, "other")], check

    assert holds(scene) >= 6


@pytest.mark.parametrize("verb", ["save", "touch"])
def test_p1_a_task_that_comes_back_late_does_not_sign_its_handler_in_again(verb: str) -> None:
    """Two tasks of one handler: one signs out, or in anew, while the other saves; what it holds then is what counts."""
    from coatcheck.exchange import Exchange
    from coatcheck.request_head import RequestHead

    async def late(world: World, exchange: Exchange) -> None:
        exchange.session["late"] = 1
        await (exchange.finish() if verb == "save" else world.racing.touch(exchange.session))

    def scene(world: World, subject: str | None) -> tuple[list[Coroutine[Any, Any, Any]], Callable[..., None]]:
        world.clock.advance(timedelta(minutes=2))  # so that a touch is due
        exchange = Exchange(RequestHead("POST", "http", []), world.racing, world.coat.verifier)
        exchange.session = snapshot(world)

        def check(outcomes: list[Outcome]) -> None:
            assert not isinstance(outcomes[1], Exception)
            principal = exchange.principal
            assert (principal.subject if principal else None) == subject
            assert dict(exchange.session).keys() <= {"late"}

        turn = exchange.sign_out() if subject is None else exchange.sign_in(subject)
        return [late(world, exchange), turn], check

    for subject in (None, "bob"):
        assert holds(partial(scene, subject=subject)) >= 2


def test_p3_counters_are_exact() -> None:
    """`update` adds up, in whatever order three requests read and write."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        def add(data: dict[str, Any]) -> None:
            data["n"] = data.get("n", 0) + 1

        def check(_: list[Outcome]) -> None:
            assert world.alive()[0]["n"] == 3

        assert world.session.id is not None
        return [world.racing.update(world.session.id, add) for _ in range(3)], check

    assert holds(scene) > 50


def test_p1_writers_never_undo_a_sign_out() -> None:
    """Two requests in flight and a sign-out: afterwards nothing is stored, whoever came last."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        assert world.session.id is not None

        def check(outcomes: list[Outcome]) -> None:
            assert all(outcome is None or isinstance(outcome, SessionGone) for outcome in outcomes[:2])
            assert outcomes[2] is True
            assert world.stored() == []

        racers = [write_in_flight(world, "a"), write_in_flight(world, "b"), world.racing.revoke(world.session.id)]
        return racers, check

    assert holds(scene) > 50


def test_p1_a_refresh_never_undoes_a_sign_out() -> None:
    """A refresh in flight may win its answer, but afterwards every credential of the session is dead."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        token = run(world.sessions.issue(world.session)).refresh_token
        assert world.session.id is not None

        def check(outcomes: list[Outcome]) -> None:
            assert world.stored() == []
            with pytest.raises(Revoked):
                run(world.sessions.refresh(token))
            if not isinstance(outcomes[0], Exception):
                with pytest.raises(Revoked):
                    world.beside.verifier.verify(outcomes[0].access_token)

        return [world.racing.refresh(token), world.racing.revoke(world.session.id)], check

    assert holds(scene) > 2


def test_s4_sign_in_and_a_writer_of_the_anonymous_session() -> None:
    """The old id is dead after the sign-in, and what the anonymous request writes late is not taken along."""
    from coatcheck.exchange import Exchange
    from coatcheck.request_head import RequestHead

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        run(world.sessions.revoke(world.session.id or ""))
        visit = run(world.sessions.create(data={}))
        assert visit.id is not None and visit.cookie is not None
        held = Session(visit.record)
        held["late"] = 1
        exchange = Exchange(RequestHead("POST", "http", []), world.racing, world.coat.verifier)
        exchange.session = Session(visit.record)

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes[1] is None or isinstance(outcomes[1], SessionGone)
            [signed_in] = world.alive()
            assert signed_in.id != visit.id
            assert "late" not in signed_in
            stump = run(world.plain.load(visit.id or ""))
            assert stump is not None
            assert (stump.successor, stump.data) == ("", {})

        return [exchange.sign_in("ann"), world.racing.save(held)], check

    assert holds(scene) > 2


def test_s19_rotation_and_a_writer_of_the_same_subject() -> None:
    """A request in flight has its edits applied to the successor, and exactly one id is alive."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        old_id = world.session.id
        rotating = snapshot(world)

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes == [None, None]
            [alive] = world.alive()
            assert alive.id == rotating.id != old_id
            assert alive["a"] == "a"

        return [world.racing.rotate(rotating), write_in_flight(world, "a")], check

    assert holds(scene) > 5


def test_s4_two_rotations_leave_one_session() -> None:
    """However two rotations interleave, the list shows one session, and it is one of theirs."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        first, second = snapshot(world), snapshot(world)

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes == [None, None]
            [alive] = world.alive()
            assert alive.id in (first.id, second.id)

        return [world.racing.rotate(first), world.racing.rotate(second)], check

    assert holds(scene) > 5


def test_p1_sign_out_and_rotation() -> None:
    """A sign-out by the old id also ends what the session became in the meantime."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        assert world.session.id is not None

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes[0] is None or isinstance(outcomes[0], SessionGone)
            assert world.alive() == []
            assert all(record.successor is not None for record in world.stored())

        return [world.racing.rotate(snapshot(world)), world.racing.revoke(world.session.id)], check

    assert holds(scene) > 5


def test_p1_sign_out_everywhere_and_rotation() -> None:
    """A rotation under way never carries a session over a sign-out everywhere."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        def check(outcomes: list[Outcome]) -> None:
            assert outcomes[0] is None or isinstance(outcomes[0], SessionGone)
            assert world.alive() == []

        return [world.racing.rotate(snapshot(world)), world.racing.revoke_all("ann")], check

    assert holds(scene) > 2


def test_p1_sign_out_everywhere_and_a_sign_in_that_began_before() -> None:
    """A sign-in whose proof is older than the sign-out everywhere does not outrun it."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        began = world.clock()
        world.clock.advance(timedelta(milliseconds=25))

        def check(outcomes: list[Outcome]) -> None:
            assert isinstance(outcomes[0], Session | Revoked)
            assert world.stored() == []

        return [world.racing.create("ann", began_at=began), world.racing.revoke_all("ann")], check

    assert holds(scene) >= 2


def test_p5_reuse_ends_that_session_and_no_other() -> None:
    """A thief with a spent token and its owner with the fresh one: the session ends, the other device stays."""

    def scene(world: World) -> tuple[list[Coroutine[Any, Any, Any]], Callable[[list[Outcome]], None]]:
        other = run(world.sessions.create("ann"))
        spent = run(world.sessions.issue(world.session)).refresh_token
        fresh = run(world.sessions.refresh(spent)).refresh_token
        world.clock.advance(timedelta(seconds=31))

        def check(outcomes: list[Outcome]) -> None:
            assert isinstance(outcomes[0], Reused | Revoked)
            assert [session.id for session in world.alive()] == [other.id]

        return [world.racing.refresh(spent), world.racing.refresh(fresh)], check

    assert holds(scene) > 2


class Upserting(MemoryStore):
    """A store like most: what it is told to save, it saves."""

    async def replace(self, record: Record) -> bool:
        await self.delete(record.id)
        return await self.create(record)


def test_the_explorer_finds_what_an_upserting_store_breaks() -> None:
    """The tests above can fail: with `save` as an upsert, a sign-out is undone and a write is lost."""

    def undone() -> Race:
        world = World(Upserting())
        assert world.session.id is not None

        def check(_: list[Outcome]) -> None:
            assert world.stored() == []

        return Race([write_in_flight(world, "a"), world.racing.revoke(world.session.id)], check)

    def lost() -> Race:
        world = World(Upserting())

        def check(_: list[Outcome]) -> None:
            assert set(world.alive()[0]) == {"a", "b"}

        return Race([write_in_flight(world, "a"), write_in_flight(world, "b")], check)

    for broken in (undone, lost):
        with pytest.raises(AssertionError):
            explore(broken)
