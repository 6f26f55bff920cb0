"""SealedSessions: what each verb promises where there is no store, and what it refuses to promise."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck import Coatcheck, Cookie, Keyring, Policy, Sealed, SealedSessions, Session, Sessions
from coatcheck.clock import Clock, monotonic_clock
from coatcheck.core.credentials import SessionBox, SessionCookie
from coatcheck.core.record import Device, pack
from coatcheck.core.revocation import NEVER
from coatcheck.core.revocation import Revoked as Revocation
from coatcheck.core.sealed_record import NOTE_KEYS, write_note
from coatcheck.errors import (
    BadSignature,
    ConfigurationError,
    Expired,
    InvalidValue,
    Malformed,
    Revoked,
    SessionGone,
    StoreUnavailable,
    Superseded,
)
from coatcheck.events import Event
from coatcheck.feed import Batch
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class OtherFeed:
    """Stands for one that remembers across restarts; it can be down or slow, and is never followed here."""

    def __init__(self) -> None:
        self.published: list[Revocation] = []
        self.down = False
        self.waiting = 0
        self.takes = asyncio.Event()
        self.takes.set()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def publish(self, revoked: tuple[Revocation, ...], now: int) -> None:
        if self.down:
            raise StoreUnavailable("the feed is down")
        self.waiting += 1
        await self.takes.wait()
        self.published += revoked

    async def snapshot(self, now: int) -> Batch:
        return Batch(after=0, position=0)

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        yield Batch(after=0, position=0)


class World:
    """A Coatcheck without a store, and what it reports."""

    def __init__(self, feed: Any = None, keyring: Keyring | None = None, clock: Clock | None = None, **policy: Any):
        self.events: list[Event] = []
        self.coat = Coatcheck(
            Sealed(),
            keyring,
            Policy(**policy),
            feed,
            clock=clock or SettableClock(),
            on_event=self.events.append,
        )
        assert isinstance(self.coat.sessions, SealedSessions)
        self.sessions = self.coat.sessions
        if isinstance(feed, OtherFeed):
            self.coat.revocations.heard_at = None

    @property
    def clock(self) -> SettableClock:
        assert isinstance(self.coat.clock, SettableClock)
        return self.coat.clock

    def hear(self, feed: OtherFeed) -> None:
        for revoked in feed.published:
            self.coat.revocations.apply(revoked)

    async def opened(self, box: SessionBox) -> str:
        """Say what becomes of a request with this box: whom it acts as, or why it is refused."""
        try:
            return str((await self.sessions.load(box)).subject)
        except (Expired, Revoked) as refusal:
            return type(refusal).__name__


@pytest.fixture
def world() -> World:
    return World()


def box_of(session: Session) -> SessionBox:
    assert isinstance(session.cookie, SessionBox)
    return session.cookie


def ident(session: Session) -> str:
    assert session.id is not None
    return session.id


def noted(session: Session) -> SessionBox:
    return SessionBox(box_of(session).text, session.note)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


class TestMakingAndOpening:
    async def test_a_session_is_in_its_box_and_nowhere_else(self, world: World) -> None:
        """Another process with the same keys opens it: there is nothing else to share but the feed."""
        made = await world.sessions.create("ann", amr=("pwd",), scopes=("notes",), data={"theme": pack("dark")})
        assert await world.coat.store.list("ann") == []
        found = await world.sessions.load(box_of(made))
        assert (found.subject, dict(found), found.cookie) == ("ann", {"theme": "dark"}, None)
        assert found.principal == made.principal
        assert found.principal is not None
        assert (found.principal.scopes, found.principal.amr) == (("notes",), ("pwd",))
        assert [event.kind for event in world.events] == ["signed_in"]

    async def test_s1_ids_are_random_and_no_two_boxes_of_a_session_are_alike(self, world: World) -> None:
        made = [await world.sessions.create("ann") for _ in range(200)]
        assert len({session.id for session in made}) == len({box_of(session).text for session in made}) == 200
        again = await world.sessions.load(box_of(made[0]))
        again["a"] = 1
        await world.sessions.save(again)
        del again["a"]
        await world.sessions.save(again)
        assert box_of(again).text != box_of(made[0]).text

    async def test_a_ticket_of_a_store_is_refused_here_and_a_box_there(self, world: World) -> None:
        """Neither is ever taken for the other."""
        with pytest.raises(Malformed):
            await world.sessions.load(SessionCookie("A" * 22, b"s" * 32))
        with pytest.raises(Malformed):
            await Coatcheck().sessions.load(box_of(await world.sessions.create("ann")))

    async def test_s5_a_box_of_somebody_else_s_keys_is_refused(self, world: World) -> None:
        with pytest.raises(BadSignature):
            await world.sessions.load(box_of(await World().sessions.create("ann")))

    async def test_s6_s7_timeouts_are_in_the_box(self) -> None:
        world = World(idle=HOUR, absolute=3 * HOUR)
        idle, busy = await world.sessions.create("ann"), await world.sessions.create("ann")
        at_hand = box_of(busy)
        for _ in range(5):
            world.clock.advance(HOUR / 2)
            session = await world.sessions.load(at_hand)
            await world.sessions.touch(session)
            at_hand = SessionBox(at_hand.text, session.note)
        assert await world.opened(box_of(idle)) == "Expired"
        assert await world.opened(at_hand) == "ann"
        world.clock.advance(HOUR / 2)
        assert await world.opened(at_hand) == "Expired"
        assert [event.kind for event in world.events[2:]] == ["expired", "expired"]

    async def test_s7_a_shorter_policy_counts_for_older_boxes_too(self) -> None:
        """Else its revocations would be forgotten before they end."""
        keyring, clock, feed = Keyring.generate("HS256"), SettableClock(), OtherFeed()
        long = World(feed, keyring, clock, absolute=30 * DAY)
        short = World(feed, keyring, clock, absolute=HOUR, idle=HOUR)
        box = box_of(await long.sessions.create("ann"))
        clock.advance(2 * HOUR)
        assert await long.opened(box) == "ann"
        assert await short.opened(box) == "Expired"

    async def test_s21_use_is_noted_once_a_minute_and_the_box_stays_as_it_is(self, world: World) -> None:
        """A note carries no data, so a response that comes late puts no older data back."""
        at_hand, notes = box_of(await world.sessions.create("ann")), 0
        for _ in range(400):
            world.clock.advance(SECOND)
            session = await world.sessions.load(at_hand)
            await world.sessions.touch(session)
            assert session.cookie is None
            if session.note:
                at_hand, notes = SessionBox(at_hand.text, session.note), notes + 1
        assert notes == 6

    async def test_a_note_that_is_not_its_own_counts_for_nothing(self, world: World) -> None:
        one, two = await world.sessions.create("ann"), await world.sessions.create("ann")
        world.clock.advance(DAY)
        session = await world.sessions.load(box_of(two))
        await world.sessions.touch(session)
        world.clock.advance(6 * DAY)
        assert await world.opened(SessionBox(box_of(one).text, session.note)) == "Expired"
        assert await world.opened(SessionBox(box_of(two).text, session.note)) == "ann"
        assert await world.opened(SessionBox(box_of(two).text, session.note + "A")) == "Expired"

    async def test_p9_what_is_remembered_of_boxes_is_bounded(self, world: World) -> None:
        """By number and size; and what was opened once is judged again each time."""
        kept = world.sessions._boxes._kept
        large = await world.sessions.create("ann", data={"x": pack("." * 3000)})
        assert await world.opened(box_of(large)) == "ann"
        assert kept == {}
        box = box_of(await world.sessions.create("ann"))
        for number in range(5000):
            await world.sessions.load(SessionBox(box.text, str(number)))
        assert 0 < len(kept) <= 4096
        await world.sessions.load(box)
        await world.sessions.revoke_all("ann")
        assert await world.opened(box) == "Revoked"

    async def test_what_was_sealed_here_is_known_again_as_other_processes_find_it(self) -> None:
        """Whichever verb sealed it: or a session would depend on who answers."""
        ring = Keyring.generate("HS256")
        here, there = (World(OtherFeed(), ring) for _ in range(2))
        session = await here.sessions.create("ann", persistent=True, device=Device("agent", "::1"), data={"a": pack(1)})
        boxes = [box_of(session)]
        session["b"] = ["umbrella"]
        await here.sessions.save(session)
        boxes.append(box_of(session))
        await here.sessions.rotate(session, began_at=here.clock(), amr=("pwd",), scopes=("read",))
        boxes.append(box_of(session))
        await here.sessions.revoke_all("ann", keep=session)
        boxes.append(box_of(session))
        assert len(set(boxes)) == 4
        for box in boxes:
            assert box in here.sessions._boxes._kept
            assert here.sessions._boxes.open(box) == there.sessions._boxes.open(box)


class TestChanging:
    async def test_a_saved_session_is_in_its_new_box(self, world: World) -> None:
        session = await world.sessions.load(box_of(await world.sessions.create("ann")))
        session["cart"] = ["umbrella"]
        await world.sessions.save(session)
        again = await world.sessions.load(box_of(session))
        again["cart"].append("hat")
        await world.sessions.save(again)
        assert (await world.sessions.load(box_of(again)))["cart"] == ["umbrella", "hat"]

    async def test_a_session_that_was_only_read_gets_no_new_box(self, world: World) -> None:
        session = await world.sessions.load(box_of(await world.sessions.create("ann")))
        _ = dict(session)
        await world.sessions.save(session)
        await world.sessions.touch(session)
        assert (session.cookie, session.note) == (None, "")

    async def test_the_limit_an_older_box_can_be_brought_back(self, world: World) -> None:
        """What the page says: nobody can tell it from the newest; a new id ends it."""
        older = box_of(await world.sessions.create("ann", data={"coupon": pack(1)}))
        session = await world.sessions.load(older)
        del session["coupon"]
        await world.sessions.save(session)
        assert "coupon" in await world.sessions.load(older)
        await world.sessions.rotate(session)
        assert await world.opened(older) == "Superseded"
        assert "coupon" not in await world.sessions.load(box_of(session))

    async def test_what_is_too_large_is_refused_and_the_session_stays(self, world: World) -> None:
        """C3, P9: by its cookies' limit or the policy's, whichever is less."""
        for each, most in ((world, "5343"), (World(max_data=100), "100")):
            session = await each.sessions.create("ann")
            before = session.cookie
            session["x"] = "." * 6000
            with pytest.raises(InvalidValue, match=most):
                await each.sessions.save(session)
            with pytest.raises(InvalidValue, match=most):
                await each.sessions.rotate(session)
            assert (session.cookie, await each.opened(box_of(session))) == (before, "ann")
            with pytest.raises(InvalidValue, match=most):
                await each.sessions.create(data={"x": pack("." * 6000)})

    async def test_s4_s19_a_rotated_session_has_a_new_id_and_the_old_one_is_dead(self, world: World) -> None:
        session = await world.sessions.create("ann", data={"a": pack(1)})
        old, old_id, ends_at = box_of(session), session.id, session.record and session.record.ends_at
        session["b"], same = 2, await world.sessions.load(old)
        await world.sessions.rotate(session)
        assert session.id != old_id
        assert await world.opened(old) == "Superseded"
        found = await world.sessions.load(box_of(session))
        assert dict(found) == {"a": 1, "b": 2}
        assert found.record is not None
        assert found.record.ends_at == ends_at
        with pytest.raises(SessionGone):
            await world.sessions.rotate(same)

    async def test_s7_a_new_proof_starts_both_timeouts_anew(self, world: World) -> None:
        session = await world.sessions.create("ann")
        world.clock.advance(6 * DAY)
        await world.sessions.rotate(session, began_at=world.clock(), amr=("otp",), scopes=("pay",), persistent=True)
        record = (await world.sessions.load(box_of(session))).record
        assert record is not None
        assert (record.amr, record.scopes, record.persistent) == (("otp",), ("pay",), True)
        assert record.signed_in_at == world.clock()
        assert record.ends_at == world.clock() + 30 * DAY // timedelta(milliseconds=1)


class TestEnding:
    async def test_p1_dead_is_final_for_a_request_in_flight(self, world: World) -> None:
        session = await world.sessions.create("ann")
        writer, reader = await world.sessions.load(box_of(session)), await world.sessions.load(box_of(session))
        assert await world.sessions.revoke(session)
        writer["late"] = True
        with pytest.raises(SessionGone):
            await world.sessions.save(writer)
        with pytest.raises(SessionGone):
            await world.sessions.rotate(writer)
        world.clock.advance(5 * MINUTE)
        await world.sessions.touch(reader)
        assert (writer.cookie, reader.note) == (None, "")
        assert await world.opened(box_of(session)) == "Revoked"

    @pytest.mark.parametrize("subject", ["ann", None])
    async def test_p1_dead_is_final_to_the_last_moment_that_a_box_could_live(
        self, tmp_path: Path, subject: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After every restart; what is remembered of it is forgotten only when time itself has ended the box.

        So is a visit that nobody is signed in to: half a sign-in that it holds would be good again.
        """
        monkeypatch.setattr("coatcheck.feeds.sqlite._WITNESSES", 1)
        keyring, clock, policy = Keyring.generate("HS256"), SettableClock(), {"idle": None, "absolute": 3 * DAY}
        # It lives as long as can be: it was made by a clock that is as much ahead as is forgiven.
        made = await World(OtherFeed(), keyring, SettableClock(clock() + 10_000), **policy).sessions.create(subject)
        assert made.record is not None
        async with World(SQLiteFeed(tmp_path / "f"), keyring, clock, **policy).coat as coat:
            await coat.sessions.revoke(await coat.sessions.load(box_of(made)))
        day = DAY // timedelta(milliseconds=1)
        moments = (clock(), clock() + day, clock() + 2 * day, made.record.ends_at - 1)
        for moment in moments:
            clock.set(moment)
            restarted = World(SQLiteFeed(tmp_path / "f"), keyring, clock, **policy)
            async with restarted.coat as coat:
                await coat.sessions.revoke("B" * 22)  # as often as something is published, what is old is removed
                coat.revocations._arrivals = 10_000  # so many that memory is tidied, too
                await coat.sessions.sweep()
                await coat.sessions.sweep()
                assert await restarted.opened(box_of(made)) in ("Superseded", "Revoked")
        clock.set(made.record.ends_at)
        restarted = World(OtherFeed(), keyring, clock, **policy)
        assert await restarted.opened(box_of(made)) == "Expired"

    async def test_a_revocation_reaches_other_processes_by_the_feed(self, tmp_path: Path) -> None:
        keyring, clock = Keyring.generate("HS256"), SettableClock()
        here, there = (World(SQLiteFeed(tmp_path / "f"), keyring, clock) for _ in range(2))
        async with here.coat, there.coat:
            one, two = [box_of(await here.sessions.create(subject)) for subject in ("ann", "bob")]
            assert await there.opened(one) == await there.opened(one) == "ann"
            await here.sessions.revoke(await here.sessions.load(one))
            await here.sessions.revoke_all("bob")
            await until(lambda: len(there.coat.revocations) == 2)
            assert await there.opened(one) == "Superseded"
            assert await there.opened(two) == "Revoked"

    async def test_sign_out_everywhere_ends_what_there_is_and_not_what_comes(self, world: World) -> None:
        """All within one millisecond: a new sign-in lives, one that began before does not, nor does it make another."""
        old, visit = await world.sessions.create("ann"), await world.sessions.create()
        other, began = await world.sessions.create("bob"), world.clock()
        world.clock.advance(SECOND)
        middle = await world.sessions.create("ann")
        assert await world.sessions.revoke_all("ann") == 0
        new = await world.sessions.create("ann")
        with pytest.raises(Revoked):
            await world.sessions.create("ann", began_at=began)
        with pytest.raises(Revoked):
            await world.sessions.rotate(new, began_at=began)
        assert [await world.opened(box_of(each)) for each in (old, middle)] == ["Revoked"] * 2
        assert [await world.opened(box_of(each)) for each in (visit, other, new)] == ["None", "bob", "ann"]
        await world.sessions.rotate(new)
        assert await world.opened(box_of(new)) == "ann"
        await world.sessions.revoke_all("ann")
        assert await world.opened(box_of(new)) == "Revoked"

    async def test_p7_a_clock_that_is_ahead_saves_no_session(self) -> None:
        """As far ahead as is forgiven: a box made before a cut-off is ended by it, whatever time it says."""
        keyring, clock = Keyring.generate("HS256"), SettableClock()
        ahead = SettableClock(clock() + 10_000)
        here, fast = World(OtherFeed(), keyring, clock), World(OtherFeed(), keyring, ahead)
        box = box_of(await fast.sessions.create("ann"))
        await here.sessions.revoke_all("ann")
        assert await here.opened(box) == "Revoked"
        assert await here.opened(box_of(await here.sessions.create("ann"))) == "ann"

    async def test_p7_a_clock_that_is_set_back_ends_no_session(self, world: World) -> None:
        await world.sessions.revoke_all("ann")
        session = await world.sessions.create("ann")
        world.clock.advance(-HOUR)
        await world.sessions.rotate(session)
        assert await world.opened(box_of(session)) == "ann"

    async def test_signing_the_others_out_gives_this_session_a_new_id(self, world: World) -> None:
        here, there = await world.sessions.create("ann", data={"a": pack(1)}), await world.sessions.create("ann")
        copy, old_id = box_of(here), here.id
        here["b"] = 2
        await world.sessions.revoke_all("ann", keep=here)
        assert here.id != old_id
        assert dict(await world.sessions.load(box_of(here))) == {"a": 1, "b": 2}
        assert [await world.opened(box) for box in (copy, box_of(there))] == ["Superseded", "Revoked"]

    async def test_p1_a_dead_session_is_not_kept_by_signing_the_others_out(self, world: World) -> None:
        here = await world.sessions.load(box_of(await world.sessions.create("ann")))
        await world.sessions.revoke(ident(here))
        await world.sessions.revoke_all("ann", keep=here)
        assert here.cookie is None

    @pytest.mark.parametrize("way", [
        lambda world, session: world.sessions.rotate(session),
        lambda world, session: world.sessions.rotate(session, began_at=world.clock(), amr=("pwd",)),
        lambda world, session: world.sessions.revoke_all("ann", keep=session),
    ])  # fmt: skip
    @pytest.mark.parametrize("processes", [1, 2])
    async def test_p1_a_sign_out_ends_what_a_rotation_under_way_makes(self, way: Any, processes: int) -> None:
        """Whoever signs out knows the old box only, and is told that it is done."""
        feed, keyring = OtherFeed(), Keyring.generate("HS256")
        worlds = [World(feed, keyring) for _ in range(processes)]
        here, there = worlds[0], worlds[-1]
        box = box_of(await here.sessions.create("ann"))
        rotating, leaving = await here.sessions.load(box), await there.sessions.load(box)
        feed.takes.clear()
        rotation = asyncio.ensure_future(way(here, rotating))
        await until(lambda: feed.waiting == 1)
        sign_out = asyncio.ensure_future(there.sessions.revoke(leaving))
        await until(lambda: feed.waiting == 2)
        feed.takes.set()
        assert await sign_out
        await asyncio.wait([rotation])
        assert rotation.exception() is None or isinstance(rotation.exception(), SessionGone)
        for each in worlds:
            each.hear(feed)
        last = rotating.cookie if isinstance(rotating.cookie, SessionBox) else box
        assert {await each.opened(last) for each in worlds} == {"Superseded"}

    async def test_p1_who_ends_the_others_does_not_outlive_a_sign_out_everywhere(self) -> None:
        """Not in a process that has not heard of it yet, however often it is tried and whoever's clock is ahead."""
        feed, keyring, clock = OtherFeed(), Keyring.generate("HS256"), SettableClock()
        here, there = World(feed, keyring, clock), World(feed, keyring, SettableClock(clock() + 9_000))
        thief = await there.sessions.create("ann")
        for each in (here, there):
            each.clock.advance(HOUR)
        await here.sessions.revoke_all("ann")
        for _ in range(5):
            there.clock.advance(SECOND)
            await there.sessions.revoke_all("ann", keep=thief)
            await there.sessions.rotate(thief)
            assert await there.opened(box_of(thief)) == "ann"
        for each in (here, there):
            each.hear(feed)
            assert await each.opened(box_of(thief)) == "Revoked"

    async def test_who_ended_the_others_goes_on_and_so_does_who_signs_in_afterwards(self) -> None:
        """And either ends with the next one who does, within the same millisecond."""
        feed, keyring, clock = OtherFeed(), Keyring.generate("HS256"), SettableClock()
        here, there = World(feed, keyring, clock), World(feed, keyring, clock)
        kept, began = await here.sessions.create("ann"), clock()
        clock.advance(SECOND)
        await here.sessions.revoke_all("ann", keep=kept)
        there.hear(feed)
        new = await there.sessions.create("ann")
        assert [await there.opened(box_of(each)) for each in (kept, new)] == ["ann", "ann"]
        with pytest.raises(Revoked):
            await there.sessions.create("ann", began_at=began)
        await there.sessions.revoke_all("ann", keep=new)
        assert [await there.opened(box_of(each)) for each in (kept, new)] == ["Revoked", "ann"]
        await there.sessions.revoke_all("ann")
        assert await there.opened(box_of(new)) == "Revoked"

    async def test_p1_a_feed_that_is_down_makes_an_end_pending_and_this_process_refuses(self) -> None:
        feed = OtherFeed()
        world = World(feed, Keyring.generate("HS256"))
        sessions = [await world.sessions.create(subject) for subject in ("ann", "bob", "eve")]
        ways = (
            world.sessions.revoke(sessions[0]),
            world.sessions.revoke_all("bob"),
            world.sessions.rotate(sessions[2]),
        )
        boxes, feed.down, told = [box_of(session) for session in sessions], True, len(world.events)
        for way in ways:
            with pytest.raises(StoreUnavailable):
                await way
        assert [await world.opened(box) for box in boxes] == ["Superseded", "Revoked", "Superseded"]
        assert len(world.events) == told
        feed.down = False
        assert await world.sessions.revoke(sessions[0])
        assert len(feed.published) == 3

    async def test_only_for_a_minute_a_request_may_be_late(self, world: World) -> None:
        session = await world.sessions.create("ann")
        box = box_of(session)
        await world.sessions.supersede(session)
        world.clock.advance(MINUTE - timedelta(milliseconds=1))
        with pytest.raises(Superseded):
            await world.sessions.load(box)
        world.clock.advance(timedelta(milliseconds=1))
        assert await world.opened(box) == "Revoked"

    async def test_s22_the_audit_trail_has_the_ends(self, world: World) -> None:
        one, two = await world.sessions.create("ann"), await world.sessions.create("ann")
        world.events.clear()
        await world.sessions.revoke(one, reason="signed out")
        await world.sessions.revoke(ident(two))
        await world.sessions.revoke_all("ann")
        told = [(event.kind, event.session_id, event.subject, event.reason) for event in world.events]
        assert told == [
            ("revoked", one.id, "ann", "signed out"),
            ("revoked", two.id, None, "signed out"),
            ("revoked", "", "ann", "signed out everywhere"),
        ]

    async def test_what_is_no_session_is_not_ended(self, world: World) -> None:
        assert not await world.sessions.revoke("no id")
        assert not await world.sessions.revoke(Session())
        assert len(world.coat.revocations) == 0
        with pytest.raises(InvalidValue):
            await world.sessions.revoke_all("")


class TestSilence:
    """P6: what this process has not heard it does not guess."""

    @pytest.mark.parametrize(("policy", "heard", "answer"), [
        ("refuse", 0, "ann"), ("refuse", -6000, "503"), ("refuse", NEVER, "503"),
        ("accept", 0, "ann"), ("accept", -6000, "ann"), ("accept", NEVER, "503"),
    ])  # fmt: skip
    async def test_a_stale_process_does_what_its_policy_says(self, policy: Any, heard: int, answer: str) -> None:
        world = World(OtherFeed(), Keyring.generate("HS256"), when_stale=policy)
        box = box_of(await world.sessions.create("ann"))
        world.coat.revocations.heard_at = NEVER if heard == NEVER else monotonic_clock() + heard
        if answer == "ann":
            assert await world.opened(box) == "ann"
            await world.sessions.create("ann")
        else:
            with pytest.raises(StoreUnavailable):
                await world.sessions.load(box)
            with pytest.raises(StoreUnavailable):
                await world.sessions.create("ann")

    async def test_nothing_is_trusted_before_it_is_open(self, tmp_path: Path) -> None:
        keyring = Keyring.generate("HS256")
        async with World(SQLiteFeed(tmp_path / "f"), keyring).coat as coat:
            box = box_of(await coat.sessions.create("ann"))
        with pytest.raises(StoreUnavailable):
            await World(SQLiteFeed(tmp_path / "f"), keyring).sessions.load(box)

    async def test_made_up_keys_are_not_shared_with_a_child_that_hears_nothing(self, world: World) -> None:
        """A server that loads the application first forks it; each child would forget what the others have ended."""
        box = box_of(await world.sessions.create("ann"))
        async with world.coat:
            assert await world.opened(box) == "ann"
        world.coat._forget_parent()
        with pytest.raises(StoreUnavailable):
            await world.sessions.load(box)
        with pytest.raises(ConfigurationError, match="LocalFeed"):
            await world.coat.open()


class TestWhatOnlyAStoreCanDo:
    REFUSED: tuple[Callable[[Any], Coroutine[Any, Any, Any]], ...] = (
        lambda world: world.sessions.find("A" * 22),
        lambda world: world.sessions.list("ann"),
        lambda world: world.sessions.update("A" * 22, print),
        lambda world: world.sessions.issue(Session()),
        lambda world: world.sessions.refresh("x"),
        lambda world: world.sessions.save(Session(), at_version=1),
        lambda world: world.sessions.revoke_all("ann", keep="A" * 22),
    )

    @pytest.mark.parametrize("call", REFUSED)
    async def test_is_refused_in_words(self, world: World, call: Callable[[World], Coroutine[Any, Any, Any]]) -> None:
        with pytest.raises(ConfigurationError, match="needs a store"):
            await call(world)

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ({"keyring": Keyring.generate("HS256")}, "SQLiteFeed, RedisFeed or PostgresFeed"),
            ({"keyring": Keyring.generate("HS256"), "feed": LocalFeed()}, "SQLiteFeed, RedisFeed or PostgresFeed"),
            ({"policy": Policy(when_stale="ask")}, "when_stale"),
            ({"policy": Policy(max_sessions=3)}, "max_sessions"),
            ({"policy": Policy(cookie=Cookie("s" * 600))}, "too long"),
            ({"keyring": Keyring(Keyring.generate().signing, secret=None), "feed": SQLiteFeed("f")}, "secret"),
        ],
    )
    def test_is_refused_at_construction(self, parts: Any, words: str) -> None:
        """P1: above all revocations that a restart forgets, where the keys do not die with them."""
        with pytest.raises(ConfigurationError, match=words):
            Coatcheck(Sealed(), **parts)

    def test_its_verbs_are_those_of_sessions(self) -> None:
        """Handlers and adapters need not know which of the two they have."""

        def verbs(desk: type[Any]) -> dict[str, inspect.Signature]:
            public = {name: each for name, each in vars(desk).items() if not name.startswith("_")}
            return {name: inspect.signature(each) for name, each in public.items()}

        assert verbs(SealedSessions) == verbs(Sessions)


class TestKeys:
    async def test_p8_a_new_secret_signs_nobody_out(self) -> None:
        """The ring that runs adopts another with the old secret among the retired; boxes and notes stay good."""
        old, new = os.urandom(32), os.urandom(32)
        key = Keyring.generate("HS256").signing
        ring = Keyring(key, secret=old)
        world = World(OtherFeed(), ring)
        session = await world.sessions.create("ann")
        world.clock.advance(HOUR)
        await world.sessions.touch(session)
        before = noted(session)
        ring.adopt(Keyring(key, secret=new, retired_secrets=[old]))
        world.clock.advance(6 * DAY + 23 * HOUR)
        found = await world.sessions.load(before)
        found["a"] = 1
        await world.sessions.save(found)
        ring.adopt(Keyring(key, secret=new))
        assert await world.opened(box_of(found)) == "ann"
        with pytest.raises(BadSignature):
            await world.sessions.load(before)
        ring.adopt(Keyring(key, secret=os.urandom(32)))
        with pytest.raises(BadSignature):  # that it was sealed here makes no difference
            await world.sessions.load(box_of(found))

    async def test_p8_a_secret_that_is_known_before_it_seals_is_understood_by_all(self) -> None:
        """The page's two steps: processes of either step open each other's boxes."""
        old, new = os.urandom(32), os.urandom(32)
        rings = (Keyring(None, secret=old, retired_secrets=[new]), Keyring(None, secret=new, retired_secrets=[old]))
        worlds = [World(OtherFeed(), ring) for ring in rings]
        for maker in worlds:
            box = box_of(await maker.sessions.create("ann"))
            assert [await world.opened(box) for world in worlds] == ["ann", "ann"]

    async def test_keys_of_boxes_and_notes_are_their_own(self, world: World) -> None:
        session = await world.sessions.create("ann")
        assert session.record is not None
        world.clock.advance(DAY)
        late = session.record.seen(world.clock())
        keys = world.coat.keyring.derive
        good, bad = (write_note(late, key=keys(use)[0], name="__Host-session") for use in (NOTE_KEYS, "sealed-session"))
        world.clock.advance(6 * DAY)
        assert await world.opened(SessionBox(box_of(session).text, good)) == "ann"
        assert await world.opened(SessionBox(box_of(session).text, bad)) == "Expired"
