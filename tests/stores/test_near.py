"""NearStore: a yes may come from memory; no no does, and nothing is written, refreshed or ended because of it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from counting_store import CountingStore
from places import SHARED, Places, place

from coatcheck import Coatcheck, Keyring, MemoryStore, Policy, SQLiteStore
from coatcheck.clock import monotonic_clock
from coatcheck.core.credentials import SessionCookie
from coatcheck.core.record import Record, pack
from coatcheck.core.revocation import NEVER
from coatcheck.core.revocation import Revoked as Revocation
from coatcheck.core.session import Session
from coatcheck.errors import BadSignature, ConfigurationError, Conflict, Reused, Revoked, SessionGone, StoreUnavailable
from coatcheck.events import Event
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.run import run
from coatcheck.store import Durability, Store
from coatcheck.stores import store_from_url
from coatcheck.stores.near import NearStore
from coatcheck.testing import SettableClock, StoreContract, make_record
from coatcheck.testing.races import Outcome, Race, Stepping, explore, step
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio

__all__ = ["place"]  # a fixture: pytest finds it by this name

Racers = list[Coroutine[Any, Any, Any]]
Check = Callable[[list[Outcome]], None]

LONG = timedelta(seconds=30)


def _ignore(_: Event) -> None: ...


# -- the contract of a store -----------------------------------------------------------------------------------------


class TakingTurns:
    """Two processes' handles of one store, each asked in its turn."""

    durability: Durability = "volatile"

    def __init__(self, *handles: Store) -> None:
        self._turns = cycle(handles)

    async def open(self) -> None:
        await next(self._turns).open()

    async def close(self) -> None:
        await next(self._turns).close()

    async def create(self, record: Record) -> bool:
        return await next(self._turns).create(record)

    async def load(self, id: str) -> Record | None:
        return await next(self._turns).load(id)

    async def replace(self, record: Record) -> bool:
        return await next(self._turns).replace(record)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        await next(self._turns).touch(id, seen_at, expires_at)

    async def delete(self, id: str) -> Record | None:
        return await next(self._turns).delete(id)

    async def list(self, subject: str) -> builtins.list[Record]:
        return await next(self._turns).list(subject)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        return await next(self._turns).revoke_subject(subject, before, keep)

    async def sweep(self, now: int) -> int:
        return await next(self._turns).sweep(now)


class TestNearStore(StoreContract):
    """With a memory that lasts, for one process and for two that take turns, the contract is kept to the letter."""

    @pytest.fixture(params=[1, 2])
    def store(self, request: pytest.FixtureRequest) -> Store:
        plain = MemoryStore()
        return TakingTurns(*(NearStore(plain, fresh_for=LONG) for _ in range(request.param)))


# -- what is remembered ----------------------------------------------------------------------------------------------


class Lagging(MemoryStore):
    """A store whose answers take a while to arrive: what it says was true when it was asked."""

    async def load(self, id: str) -> Record | None:
        found = await super().load(id)
        await step()
        return found

    async def replace(self, record: Record) -> bool:
        done = await super().replace(record)
        await step()
        return done

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        await super().touch(id, seen_at, expires_at)
        await step()

    async def delete(self, id: str) -> Record | None:
        removed = await super().delete(id)
        await step()
        return removed

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        removed = await super().revoke_subject(subject, before, keep)
        await step()
        return removed


async def kept(near: NearStore, record: Record) -> Record:
    """Store a record and have it remembered."""
    assert await near.create(record)
    assert near.recall(record.id) is None
    assert await near.load(record.id) == record
    assert near.recall(record.id) == record
    return record


async def test_a_record_is_remembered_for_fresh_for_from_when_it_was_asked_for() -> None:
    """Data is at most `fresh_for` old, however long the answer took."""
    clock = SettableClock()

    class Slow(MemoryStore):
        async def load(self, id: str) -> Record | None:
            found = await super().load(id)
            clock.advance(timedelta(milliseconds=400))
            return found

    near = NearStore(Slow(), fresh_for=timedelta(seconds=1), clock=clock)
    record = await kept(near, make_record())
    clock.advance(timedelta(milliseconds=599))
    assert near.recall(record.id) == record
    clock.advance(timedelta(milliseconds=1))
    assert near.recall(record.id) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda near, record: near.create(record),
        lambda near, record: near.replace(following(record)),
        lambda near, record: near.replace(record),  # whoever lost the race must not find the same again
        lambda near, record: near.touch(record.id, record.seen_at + 1, record.expires_at + 1),
        lambda near, record: near.delete(record.id),
        lambda near, record: near.revoke_subject("alice", record.created_at + 1),
        lambda near, record: near.close(),
    ],
    ids=["create", "replace", "lost-replace", "touch", "delete", "revoke_subject", "close"],
)
async def test_what_this_process_writes_it_forgets(write: Callable[[NearStore, Record], Any]) -> None:
    """A process reads its own writes."""
    near = NearStore(MemoryStore(), fresh_for=LONG)
    record = await kept(near, make_record("alice"))
    await write(near, record)
    assert near.recall(record.id) is None


@pytest.mark.parametrize("write", ["replace", "touch", "delete", "revoke_subject"])
@pytest.mark.parametrize("loads", [1, 2])
def test_no_load_under_way_brings_back_what_was_overwritten(write: str, loads: int) -> None:
    """However loads and writes of one process overlap, what is remembered afterwards is what is stored."""

    def set_up() -> Race:
        plain = Lagging()
        near = NearStore(Stepping(plain), fresh_for=LONG)
        record = make_record("alice")
        run_steps(plain.create(record))
        writes: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "replace": lambda: near.replace(following(record)),
            "touch": lambda: near.touch(record.id, record.seen_at + 1, record.expires_at + 1),
            "delete": lambda: near.delete(record.id),
            "revoke_subject": lambda: near.revoke_subject("alice", record.created_at + 1),
        }
        beside = [writes["touch"]() for _ in range(2 - loads)]  # a second writer, where there is one reader

        def check(_: list[Outcome]) -> None:
            remembered = near.recall(record.id)
            assert remembered is None or remembered == run_steps(plain.load(record.id))

        return Race([*(near.load(record.id) for _ in range(loads)), writes[write](), *beside], check)

    assert explore(set_up) > 100


def run_steps(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Finish a coroutine whose steps nobody schedules."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


async def test_p3_an_anonymous_visit_is_not_remembered() -> None:
    """A sign-in takes over what the visit had stored, all of it; and the feed would not tell of the visit's end."""
    near = NearStore(MemoryStore(), fresh_for=LONG)
    record = make_record(None)
    assert await near.create(record)
    assert await near.load(record.id) == record
    assert near.recall(record.id) is None


async def test_p4_a_record_that_answers_to_anothers_id_is_not_remembered() -> None:
    other = make_record("mallory")

    class Confused(MemoryStore):
        async def load(self, id: str) -> Record | None:
            return other

    near, asked = NearStore(Confused(), fresh_for=LONG), make_record().id
    assert await near.load(asked) == other
    assert near.recall(asked) is None
    assert near.recall(other.id) is None


async def test_p9_the_memory_is_bounded() -> None:
    """Beyond `most_octets` the oldest is forgotten; a record that is larger than that is never remembered."""
    near = NearStore(MemoryStore(), fresh_for=LONG, most_octets=100_000)
    records = [make_record(data={"k": b"x" * 10_000}) for _ in range(30)]
    for record in records:
        await kept(near, record)
    assert [near.recall(record.id) is not None for record in records] == [False] * 22 + [True] * 8
    for record in records:  # what is forgotten makes room
        await near.touch(record.id, record.seen_at, record.expires_at)
        await near.load(record.id)
    assert [near.recall(record.id) is not None for record in records] == [False] * 22 + [True] * 8
    large = make_record(data={"k": b"x" * 100_000})
    await near.create(large)
    assert await near.load(large.id) == large
    assert near.recall(large.id) is None


async def test_p6_a_load_that_fails_is_not_remembered_and_in_nobodys_way() -> None:
    plain = CountingStore()
    near, record = NearStore(plain, fresh_for=LONG), make_record()
    await near.create(record)
    plain.broken = True
    with pytest.raises(StoreUnavailable):
        await near.load(record.id)
    assert near.recall(record.id) is None
    assert not near._asking  # else each id that was asked for in vain would stay there (P9)
    plain.broken = False
    await near.load(record.id)
    assert near.recall(record.id) == record


@pytest.mark.parametrize(
    "options",
    [{"fresh_for": timedelta(0)}, {"fresh_for": timedelta(seconds=31)}, {"most_octets": 0}],
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        NearStore(MemoryStore(), **options)


# -- in a Coatcheck --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "feed"),
    [
        (lambda path: MemoryStore(), LocalFeed),
        (lambda path: SQLiteStore(path / "store.db"), SQLiteFeed),
    ],
    ids=["memory", "sqlite"],
)
def test_the_feed_is_that_of_the_store_behind(
    plain: Callable[[Path], Store], feed: type[object], tmp_path: Path
) -> None:
    store = plain(tmp_path)
    assert isinstance(Coatcheck(NearStore(store)).feed, feed)
    assert NearStore(store).durability == store.durability


async def test_a_session_that_was_just_loaded_costs_no_round_trip() -> None:
    """Zero look-ups while it is fresh; its use is noted once."""
    plain, clock = CountingStore(), SettableClock()
    coat = Coatcheck(NearStore(plain, fresh_for=LONG), clock=clock, on_event=_ignore)
    cookie = (await coat.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    for _ in range(100):
        assert (await coat.sessions.load(cookie)).subject == "ann"
    assert plain.calls["load"] == 1
    clock.advance(timedelta(minutes=5))
    for _ in range(100):
        await coat.sessions.touch(await coat.sessions.load(cookie))
    assert (plain.calls["load"], plain.calls["touch"]) == (2, 1)
    with pytest.raises(BadSignature):
        await coat.sessions.load(SessionCookie(cookie.id, b"x" * 32))


async def test_p6_a_silent_feed_ends_the_use_of_the_memory() -> None:
    """Nothing is served from memory before the feed was heard, nor past the policy's bound, whatever it says."""
    plain = CountingStore()
    coat = Coatcheck(NearStore(plain, fresh_for=LONG), policy=Policy(when_stale="accept"), on_event=_ignore)
    cookie = (await coat.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    for heard_at, loads in ((NEVER, 3), (monotonic_clock() - 5_100, 3), (monotonic_clock() + 60_000, 0)):
        coat.revocations.heard_at = heard_at
        plain.calls.clear()
        for _ in range(3):
            await coat.sessions.load(cookie)
        assert plain.calls["load"] == loads


async def test_p6_a_store_that_is_down_is_noticed_when_the_memory_ends() -> None:
    plain, monotonic = CountingStore(), SettableClock()
    coat = Coatcheck(NearStore(plain, fresh_for=timedelta(seconds=1), clock=monotonic), on_event=_ignore)
    cookie = (await coat.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    await coat.sessions.load(cookie)
    plain.broken = True
    assert (await coat.sessions.load(cookie)).subject == "ann"
    monotonic.advance(timedelta(seconds=1))
    with pytest.raises(StoreUnavailable):
        await coat.sessions.load(cookie)


async def test_a_store_of_somebody_elses_without_a_feed_is_asked_each_time() -> None:
    plain = CountingStore()
    coat = Coatcheck(NearStore(TakingTurns(plain)), on_event=_ignore)
    cookie = (await coat.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    for _ in range(3):
        await coat.sessions.load(cookie)
    assert plain.calls["load"] == 3


async def test_every_no_is_the_stores() -> None:
    """A session that was used elsewhere lives, though what is remembered of it has expired."""
    plain, clock = MemoryStore(), SettableClock()
    policy = Policy(idle=timedelta(minutes=10))
    here, there = (
        Coatcheck(NearStore(plain, fresh_for=LONG), Keyring.generate("HS256"), policy, clock=clock, on_event=_ignore)
        for _ in range(2)
    )
    cookie = (await here.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    clock.advance(timedelta(minutes=9))
    await here.sessions.load(cookie)
    await there.sessions.touch(await there.sessions.load(cookie))
    clock.advance(timedelta(minutes=9))
    assert (await here.sessions.load(cookie)).subject == "ann"


@pytest.fixture(params=["sqlite", *SHARED])
async def two(request: pytest.FixtureRequest, place: Places) -> AsyncIterator[list[Coatcheck]]:
    """Two processes on one real store, with memories that only the feed can contradict in time."""
    ring, url = Keyring.generate("HS256"), place(request.param)
    stores = [NearStore(store_from_url(url), fresh_for=LONG) for _ in range(2)]
    async with Coatcheck(stores[0], ring, on_event=_ignore) as one, Coatcheck(stores[1], ring, on_event=_ignore) as two:
        yield [one, two]


@pytest.mark.parametrize("how", ["revoke", "revoke_all", "rotate"])
async def test_p1_what_ends_elsewhere_is_refused_when_the_feed_tells(two: list[Coatcheck], how: str) -> None:
    """S10, S11, S19: the cookie is refused as soon as the token is, in a process that remembers the session."""
    here, there = two
    session = await here.sessions.create("ann")
    cookie, token = session.cookie, (await here.sessions.issue(session)).access_token
    assert isinstance(cookie, SessionCookie)
    await there.sessions.load(cookie)
    if how == "rotate":
        await here.sessions.rotate(session)
    elif how == "revoke":
        await here.sessions.revoke(cookie.id)
    else:
        await here.sessions.revoke_all("ann")
    async with asyncio.timeout(20):
        while True:
            try:
                there.verifier.verify(token)
            except Revoked:
                break
            await asyncio.sleep(0.005)
    with pytest.raises(Revoked):
        await there.sessions.load(cookie)
    if how == "rotate":
        assert session.cookie is not None
        assert (await there.sessions.load(session.cookie)).subject == "ann"


async def test_p3_each_process_reads_its_own_writes_and_loses_none_of_the_others(two: list[Coatcheck]) -> None:
    """What the other one wrote is seen late, and is there all the same when this one writes."""
    here, there = two
    cookie = (await here.sessions.create("ann")).cookie
    assert isinstance(cookie, SessionCookie)
    for process, key in ((here, "a"), (there, "b"), (here, "c"), (there, "d")):
        for each in two:
            await each.sessions.load(cookie)  # both remember it
        session = await process.sessions.load(cookie)
        session[key] = key
        await process.sessions.save(session)
        assert (await process.sessions.load(cookie))[key] == key
    written = await there.sessions.load(cookie)
    assert dict(written) == {key: key for key in "abcd"}


# -- two processes, every interleaving -------------------------------------------------------------------------------


class Wire(LocalFeed):
    """A feed between two processes. What is published arrives at each when the scheduler lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Revocation] = []

    async def publish(self, revoked: tuple[Revocation, ...], now: int) -> None:
        await step()
        self.sent += revoked


class World:
    """One store, one feed, two processes which both remember ann's session, and the session as each had loaded it."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock, self.plain, self.wire = SettableClock(), store or MemoryStore(), Wire()
        ring = Keyring.generate("HS256")
        self.near = [NearStore(Stepping(self.plain), fresh_for=LONG) for _ in range(2)]
        self.coats = [Coatcheck(near, ring, feed=self.wire, clock=self.clock, on_event=_ignore) for near in self.near]
        self.here, self.there = (coat.sessions for coat in self.coats)
        session = run_steps(self.here.create("ann", amr=("pwd",)))
        self.id, self.cookie = session.id, session.cookie
        self.token = run_steps(self.here.issue(session)).refresh_token
        self.held = [run_steps(desk.load(self.cookie)) for desk in (self.here, self.there)]
        assert all(near.recall(self.id) for near in self.near)

    async def hear(self) -> None:
        """What was published so far arrives."""
        await step()
        self.arrive()

    def arrive(self) -> None:
        for coat in self.coats:
            for revoked in self.wire.sent:
                coat.revocations.apply(revoked)

    def stored(self) -> list[Record]:
        return [record for record in run(self.plain.list("ann")) if record.successor is None]


def holds(scene: Callable[[World], tuple[Racers, Check]], store: type[MemoryStore] = MemoryStore) -> int:
    """Explore a scene; each schedule starts in a world of its own."""

    def set_up() -> Race:
        racers, check = scene(World(store()))
        return Race(racers, check)

    return explore(set_up)


def test_p5_refreshes_race_across_two_processes_that_remember() -> None:
    """Tabs that refresh at both processes all get the identical successor, and nobody is signed out."""

    def scene(world: World) -> tuple[Racers, Check]:
        def check(outcomes: list[Outcome]) -> None:
            assert len({outcome.refresh_token for outcome in outcomes[:2]}) == 1
            assert [record.generation for record in world.stored()] == [1]

        tabs: Racers = [desk.refresh(world.token) for desk in (world.here, world.there)]
        return [*tabs, world.there.load(world.cookie)], check

    assert holds(scene) > 100


def test_p5_the_successor_is_good_at_a_process_that_remembers_the_generation_before() -> None:
    """REUSE is never declared, and no spent token is ever issued, on the strength of a memory."""

    def scene(world: World) -> tuple[Racers, Check]:
        async def refresh_here_then_there() -> str:
            first = (await world.here.refresh(world.token)).refresh_token
            issued = (await world.there.issue(await world.there.load(world.cookie))).refresh_token
            assert issued == first
            return (await world.there.refresh(first)).refresh_token

        def check(outcomes: list[Outcome]) -> None:
            assert isinstance(outcomes[0], str), outcomes[0]
            assert [record.generation for record in world.stored()] == [2]
            world.clock.advance(timedelta(minutes=5))
            with pytest.raises(Reused):  # one that was spent is still found out, out of grace
                run_steps(world.there.refresh(world.token))

        return [refresh_here_then_there(), world.there.load(world.cookie), world.there.load(world.cookie)], check

    assert holds(scene) > 20


def test_p3_writers_in_two_processes_that_remember_lose_nothing() -> None:
    def scene(world: World) -> tuple[Racers, Check]:
        async def write(process: int, key: str) -> None:
            desk = (world.here, world.there)[process]
            session = await desk.load(world.cookie)
            session[key] = key
            await desk.save(session)

        def add(data: dict[str, Any]) -> None:
            data["n"] = data.get("n", 0) + 1

        def check(outcomes: list[Outcome]) -> None:
            assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            [record] = world.stored()
            assert record.data == {"a": pack("a"), "b": pack("b"), "n": pack(1)}
            for desk, own in ((world.here, {"a", "n"}), (world.there, {"b"})):  # each reads what it wrote
                assert own <= run_steps(desk.load(world.cookie)).keys()

        return [write(0, "a"), write(1, "b"), world.here.update(world.id, add)], check

    assert holds(scene) > 100


def test_p1_a_sign_out_elsewhere_is_final_for_a_process_that_remembers() -> None:
    """Once it was heard, no load succeeds; and no writer with a remembered record brings anything back."""

    def scene(world: World) -> tuple[Racers, Check]:
        async def write() -> None:
            session = await world.there.load(world.cookie)
            session["key"] = "value"
            await world.there.save(session)

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes[0] is True or outcomes[1] is None or isinstance(outcomes[1], (SessionGone, Revoked))
            world.arrive()
            with pytest.raises(Revoked):
                run_steps(world.there.load(world.cookie))
            assert world.stored() == []

        return [world.here.revoke(world.id), write(), world.hear()], check

    assert holds(scene) > 100


@pytest.mark.parametrize("store", [MemoryStore, Lagging])
@pytest.mark.parametrize("late", ["load", "find"])
def test_s4_a_rotation_elsewhere_does_not_end_the_session(store: type[MemoryStore], late: str) -> None:
    """A request that comes with the old cookie, remembered or read just before, never ends the new one."""

    def scene(world: World) -> tuple[Racers, Check]:
        session = world.held[0]

        def check(outcomes: list[Outcome]) -> None:
            assert outcomes[0] is None
            assert isinstance(outcomes[1], Session | Revoked)
            world.arrive()
            assert [record.id for record in world.stored()] == [session.id] != [world.id]
            for desk in (world.here, world.there):
                assert run_steps(desk.load(session.cookie)).id == session.id
                with pytest.raises(Revoked):
                    run_steps(desk.load(world.cookie))

        request = world.there.load(world.cookie) if late == "load" else world.there.find(world.id)
        return [world.here.rotate(session), request, world.hear()], check

    assert holds(scene, store) > 20


def test_a_conflict_is_found_and_the_next_load_is_the_truth() -> None:
    """`at_version` with a remembered record: Conflict, and a second try reads what the store has."""
    world = World()
    theirs = world.held[0]
    theirs["key"] = 1
    run_steps(world.here.save(theirs))
    stale = run_steps(world.there.load(world.cookie))
    assert "key" not in stale  # that is the documented staleness
    stale["other"] = 2
    with pytest.raises(Conflict):
        run_steps(world.there.save(stale, at_version=stale.record.version))
    assert run_steps(world.there.load(world.cookie))["key"] == 1
