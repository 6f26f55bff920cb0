"""Sessions: what each verb promises, on the memory store (the contract carries it to the others)."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore

from coatcheck import Coatcheck, Policy
from coatcheck.core.credentials import RefreshToken, SessionCookie
from coatcheck.core.record import Device, Record
from coatcheck.core.revocation import NEVER
from coatcheck.core.session import Session
from coatcheck.errors import (
    BadSignature,
    Conflict,
    Expired,
    InvalidValue,
    Malformed,
    Reused,
    Revoked,
    SessionGone,
    StoreUnavailable,
)
from coatcheck.events import Event
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class World:
    def __init__(self, **policy: Any) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.events: list[Event] = []
        self.coat = Coatcheck(self.store, policy=Policy(**policy), clock=self.clock, on_event=self.events.append)
        self.sessions = self.coat.sessions
        self.verify = self.coat.verifier.verify


@pytest.fixture
def world() -> World:
    return World()


def ticket(session: Session) -> SessionCookie:
    assert isinstance(session.cookie, SessionCookie)
    return session.cookie


def ident(session: Session) -> str:
    assert session.id is not None
    return session.id


class TestMakingAndFinding:
    async def test_s1_ids_and_secrets_are_long_and_random(self, world: World) -> None:
        """128 and 256 bits from the system's generator; no two alike, no bit preferred."""
        cookies = [ticket(await world.sessions.create()) for _ in range(2000)]
        assert len({cookie.id for cookie in cookies}) == len({cookie.secret for cookie in cookies}) == 2000
        ids = [base64.urlsafe_b64decode(cookie.id + "==") for cookie in cookies]
        assert {len(one) for one in ids} == {16}
        assert {len(cookie.secret) for cookie in cookies} == {32}
        ones = [sum(one[bit // 8] >> (bit % 8) & 1 for one in ids) for bit in range(128)]
        # 2000 fair coins per bit: 6 standard deviations are 134.
        assert all(abs(count - 1000) < 134 for count in ones)

    async def test_s3_an_unknown_id_is_never_adopted(self, world: World) -> None:
        """A cookie of the attacker's making names no session, and makes none."""
        with pytest.raises(Revoked):
            await world.sessions.load(SessionCookie("A" * 22, b"x" * 32))
        assert world.store.calls == Counter(load=1)

    async def test_s5_a_guessed_secret_is_refused(self, world: World) -> None:
        """Knowing the public id is not enough."""
        session = await world.sessions.create("ann")
        with pytest.raises(BadSignature):
            await world.sessions.load(SessionCookie(ident(session), b"x" * 32))

    async def test_p4_a_record_answers_only_to_its_own_id(self, world: World) -> None:
        """A store that hands out another's record is damaged, and nobody is signed in by it."""
        ann, bob = await world.sessions.create("ann"), await world.sessions.create("bob")
        found = await world.store.load(ident(bob))

        async def confused(id: str) -> Record | None:
            return found

        world.store.load = confused  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="damaged"):
            await world.sessions.load(ticket(ann))

    async def test_s6_s7_timeouts(self) -> None:
        """Idle and absolute timeouts hold on the server, whatever the cookie says."""
        world = World(idle=HOUR, absolute=3 * HOUR)
        idle, busy = await world.sessions.create("ann"), await world.sessions.create("ann")
        for _ in range(5):
            world.clock.advance(HOUR / 2)
            await world.sessions.touch(await world.sessions.load(ticket(busy)))
        with pytest.raises(Expired):
            await world.sessions.load(ticket(idle))
        world.clock.advance(HOUR / 2)
        with pytest.raises(Expired):
            await world.sessions.load(ticket(busy))
        assert await world.sessions.list("ann") == []

    async def test_a_session_is_touched_at_most_once_a_minute(self, world: World) -> None:
        """S21: reading a session a hundred times in a minute writes once, at most."""
        session = await world.sessions.create("ann")
        for _ in range(100):
            world.clock.advance(timedelta(milliseconds=650))
            await world.sessions.touch(await world.sessions.load(ticket(session)))
        assert world.store.calls["touch"] == 1
        assert world.store.calls["replace"] == 0

    async def test_list_is_of_that_subject_and_alive_last_seen_first(self, world: World) -> None:
        """ "Your devices" tells the truth."""
        first = await world.sessions.create("ann", device=Device("phone", "10.0.0.1"))
        world.clock.advance(HOUR)
        second = await world.sessions.create("ann")
        await world.sessions.create("bob")
        assert [session.id for session in await world.sessions.list("ann")] == [second.id, first.id]
        assert (await world.sessions.list("ann"))[1].device == Device("phone", "10.0.0.1")

    async def test_find_needs_no_secret_but_a_live_session(self, world: World) -> None:
        """For consoles and verifiers that ask."""
        session = await world.sessions.create("ann")
        assert (await world.sessions.find(ident(session))).subject == "ann"
        world.clock.advance(timedelta(days=31))
        with pytest.raises(Revoked):
            await world.sessions.find(ident(session))


class TestChanging:
    async def test_p3_writes_of_different_keys_merge(self, world: World) -> None:
        """Two requests that loaded the same version both win."""
        session = await world.sessions.create("ann")
        one, two = await world.sessions.load(ticket(session)), await world.sessions.load(ticket(session))
        one["a"], two["b"] = 1, 2
        await world.sessions.save(one)
        await world.sessions.save(two)
        assert dict(await world.sessions.load(ticket(session))) == {"a": 1, "b": 2}

    async def test_p3_the_same_key_last_writer_wins(self, world: World) -> None:
        """Of one key the later save counts."""
        session = await world.sessions.create("ann")
        one, two = await world.sessions.load(ticket(session)), await world.sessions.load(ticket(session))
        one["a"], two["a"] = 1, 2
        await world.sessions.save(two)
        await world.sessions.save(one)
        assert (await world.sessions.load(ticket(session)))["a"] == 1

    async def test_p3_conflict_where_the_caller_asks_for_it(self, world: World) -> None:
        """With `at_version`, whoever comes second is told and nothing of theirs is written."""
        session = await world.sessions.create("ann")
        one, two = await world.sessions.load(ticket(session)), await world.sessions.load(ticket(session))
        one["a"], two["a"] = 1, 2
        assert one.record is not None and two.record is not None
        await world.sessions.save(one, at_version=one.record.version)
        with pytest.raises(Conflict):
            await world.sessions.save(two, at_version=two.record.version)
        assert (await world.sessions.load(ticket(session)))["a"] == 1

    async def test_s20_two_hundred_writers_and_an_exact_counter(self, world: World) -> None:
        """200 of 200 keys survive, and 200 increments are 200."""
        session = await world.sessions.create("ann")

        async def write(number: int) -> None:
            mine = await world.sessions.load(ticket(session))
            await asyncio.sleep(0)
            mine[f"k{number}"] = number
            await world.sessions.save(mine)

        def add(data: dict[str, Any]) -> None:
            data["n"] = data.get("n", 0) + 1

        await asyncio.gather(
            *(write(n) for n in range(200)), *(world.sessions.update(ident(session), add) for _ in range(200))
        )
        data = dict(await world.sessions.load(ticket(session)))
        assert data.pop("n") == 200
        assert data == {f"k{n}": n for n in range(200)}

    async def test_an_unchanged_session_is_not_saved(self, world: World) -> None:
        """S21: `save` without edits writes nothing."""
        session = await world.sessions.create("ann")
        await world.sessions.save(session)
        assert world.store.calls == Counter(create=1)

    async def test_p9_the_size_of_the_data_is_bounded(self) -> None:
        """Too much is refused with the limit named, and what was there stays."""
        world = World(max_data=100)
        session = await world.sessions.create("ann")
        session["a"] = "x" * 60
        await world.sessions.save(session)
        session["b"] = "y" * 60
        with pytest.raises(InvalidValue, match="max_data"):
            await world.sessions.save(session)
        assert dict(await world.sessions.load(ticket(session))) == {"a": "x" * 60}

    async def test_s4_rotation_kills_the_old_id_at_once(self, world: World) -> None:
        """The old cookie is refused, the new one carries the data, and only one is listed."""
        session = await world.sessions.create("ann")
        session["cart"] = [1]
        old = ticket(session)
        token = (await world.sessions.issue(session)).access_token
        await world.sessions.rotate(session)
        with pytest.raises(Revoked):
            await world.sessions.load(old)
        with pytest.raises(Revoked):
            world.verify(token)
        assert dict(await world.sessions.load(ticket(session))) == {"cart": [1]}
        assert [listed.id for listed in await world.sessions.list("ann")] == [session.id]

    async def test_s19_requests_in_flight_across_a_rotation(self, world: World) -> None:
        """50 requests that loaded the old id all have their edits applied to the new one; one id is alive."""
        session = await world.sessions.create("ann")
        in_flight = [await world.sessions.load(ticket(session)) for _ in range(50)]
        await world.sessions.rotate(session)
        for number, request in enumerate(in_flight):
            request[str(number)] = number
            await world.sessions.save(request)
        assert len(await world.sessions.load(ticket(session))) == 50
        assert len(await world.sessions.list("ann")) == 1

    async def test_a_chain_of_rotations_is_followed(self, world: World) -> None:
        """A slow request finds its session two ids later."""
        session = await world.sessions.create("ann")
        slow = await world.sessions.load(ticket(session))
        await world.sessions.rotate(session)
        await world.sessions.rotate(session)
        slow["late"] = True
        await world.sessions.save(slow)
        assert (await world.sessions.load(ticket(session)))["late"] is True

    async def test_rotation_does_not_extend_the_absolute_timeout(self) -> None:
        """S7: only proving who you are again does."""
        world = World(idle=None, absolute=2 * HOUR)
        session = await world.sessions.create("ann")
        world.clock.advance(HOUR)
        await world.sessions.rotate(session)
        world.clock.advance(HOUR)
        with pytest.raises(Expired):
            await world.sessions.load(ticket(session))

    async def test_a_failed_rotation_leaves_the_session_as_it_was(self, world: World) -> None:
        """If the old id cannot be ended, the new one is taken back: never two that could be used."""
        session = await world.sessions.create("ann")

        async def fail(record: Record) -> bool:
            raise StoreUnavailable("down")

        world.store.replace = fail  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await world.sessions.rotate(session)
        assert [listed.id for listed in await world.sessions.list("ann")] == [session.id]


class TestTokens:
    async def test_j20_an_access_token_speaks_for_the_session(self, world: World) -> None:
        """Subject, session, scopes, time and manner of the sign-in are the session's."""
        session = await world.sessions.create("ann", amr=("pwd", "otp"), scopes=("read", "write"))
        grant = await world.sessions.issue(session)
        principal = world.verify(grant.access_token)
        assert (principal.subject, principal.session_id) == ("ann", session.id)
        assert set(principal.scopes) == {"read", "write"}
        assert principal.amr == ("pwd", "otp")
        assert principal.auth_time == world.clock() // 1000
        assert (grant.token_type, grant.expires_in, grant.scope) == ("Bearer", 900, "read write")

    async def test_an_anonymous_session_has_no_tokens(self, world: World) -> None:
        """There is nobody to speak for."""
        with pytest.raises(InvalidValue):
            await world.sessions.issue(await world.sessions.create())

    async def test_a_token_never_outlives_its_session(self) -> None:
        """Near the absolute timeout the access token is cut short."""
        world = World(idle=None, absolute=2 * HOUR)
        session = await world.sessions.create("ann")
        world.clock.advance(2 * HOUR - timedelta(seconds=100))
        grant = await world.sessions.issue(session)
        assert grant.expires_in == 100
        world.clock.advance(timedelta(seconds=111))
        with pytest.raises(Expired):
            world.verify(grant.access_token)

    async def test_p5_refresh_rotates_and_a_retry_gets_the_identical_successor(self, world: World) -> None:
        """Lost answers and racing tabs get the same refresh token again, within grace."""
        first = await world.sessions.issue(await world.sessions.create("ann"))
        second = await world.sessions.refresh(first.refresh_token)
        world.clock.advance(timedelta(seconds=30))
        again = await world.sessions.refresh(first.refresh_token)
        assert second.refresh_token == again.refresh_token != first.refresh_token
        assert (await world.sessions.refresh(again.refresh_token)).refresh_token != again.refresh_token

    async def test_p5_reuse_after_grace_ends_that_session_and_only_that(self, world: World) -> None:
        """The thief's token, its owner's, and the access token die; the other device lives."""
        other = await world.sessions.create("ann")
        session = await world.sessions.create("ann")
        spent = await world.sessions.issue(session)
        fresh = await world.sessions.refresh(spent.refresh_token)
        world.clock.advance(timedelta(seconds=31))
        with pytest.raises(Reused):
            await world.sessions.refresh(spent.refresh_token)
        for dead in (fresh.refresh_token, spent.refresh_token):
            with pytest.raises(Revoked):
                await world.sessions.refresh(dead)
        for token in (fresh.access_token, spent.access_token):
            with pytest.raises(Revoked):
                world.verify(token)
        with pytest.raises(Revoked):
            await world.sessions.load(ticket(session))
        assert [listed.id for listed in await world.sessions.list("ann")] == [other.id]
        assert [event.kind for event in world.events][-2:] == ["revoked", "reused"]

    async def test_racing_refreshes_many_rounds(self, world: World) -> None:
        """50 tabs with one token, 40 rounds: nobody is signed out, one successor a round."""
        token = (await world.sessions.issue(await world.sessions.create("ann"))).refresh_token
        for _ in range(40):
            grants = await asyncio.gather(*(world.sessions.refresh(token) for _ in range(50)))
            assert len({grant.refresh_token for grant in grants}) == 1
            token = grants[0].refresh_token
            world.clock.advance(timedelta(minutes=14))

    async def test_a_forged_or_foreign_refresh_token_touches_nothing(self, world: World) -> None:
        """Guessing costs no look-up and ends no session."""
        session = await world.sessions.create("ann")
        loads = world.store.calls["load"]
        with pytest.raises(BadSignature):
            await world.sessions.refresh(RefreshToken(ident(session), 0).seal(b"k" * 32))
        for text in ("", "x", "é" * 76, "A" * 76, "A" * 75):
            with pytest.raises((Malformed, BadSignature)):
                await world.sessions.refresh(text)
        assert world.store.calls["load"] == loads
        assert len(await world.sessions.list("ann")) == 1

    async def test_a_refresh_counts_as_use(self) -> None:
        """The idle timeout starts anew with a refresh."""
        world = World(idle=HOUR)
        token = (await world.sessions.issue(await world.sessions.create("ann"))).refresh_token
        for _ in range(5):
            world.clock.advance(HOUR / 2)
            token = (await world.sessions.refresh(token)).refresh_token


class TestEnding:
    async def test_s10_p1_sign_out_kills_all_three_credentials(self, world: World) -> None:
        """Cookie, access token and refresh token die together, at once."""
        session = await world.sessions.create("ann")
        grant = await world.sessions.issue(session)
        assert await world.sessions.revoke(ident(session)) is True
        with pytest.raises(Revoked):
            await world.sessions.load(ticket(session))
        with pytest.raises(Revoked):
            world.verify(grant.access_token)
        with pytest.raises(Revoked):
            await world.sessions.refresh(grant.refresh_token)
        assert await world.sessions.revoke(ident(session)) is False

    async def test_p1_a_request_in_flight_never_revives_a_session(self, world: World) -> None:
        """Save, touch, rotate and refresh of a session that ended: nothing comes back, 1000 times."""
        for _ in range(250):
            session = await world.sessions.create("ann")
            refresh = (await world.sessions.issue(session)).refresh_token
            in_flight = [await world.sessions.load(ticket(session)) for _ in range(3)]
            await world.sessions.revoke(ident(session))
            in_flight[0]["late"] = 1
            with pytest.raises(SessionGone):
                await world.sessions.save(in_flight[0])
            world.clock.advance(timedelta(minutes=2))
            await world.sessions.touch(in_flight[1])
            with pytest.raises(SessionGone):
                await world.sessions.rotate(in_flight[2])
            with pytest.raises(Revoked):
                await world.sessions.refresh(refresh)
            assert await world.store.list("ann") == []

    async def test_s11_sign_out_everywhere(self, world: World) -> None:
        """Three devices and their tokens: all dead; another subject is not touched."""
        devices = [await world.sessions.create("ann") for _ in range(3)]
        grants = [await world.sessions.issue(device) for device in devices]
        bob = await world.sessions.create("bob")
        assert await world.sessions.revoke_all("ann") == 3
        for device, grant in zip(devices, grants, strict=True):
            with pytest.raises(Revoked):
                await world.sessions.load(ticket(device))
            with pytest.raises(Revoked):
                world.verify(grant.access_token)
        await world.sessions.load(ticket(bob))

    async def test_s12_sign_out_the_others(self, world: World) -> None:
        """The one that is kept lives on, with its tokens and through a rotation."""
        kept, other = await world.sessions.create("ann"), await world.sessions.create("ann")
        grant = await world.sessions.issue(kept)
        world.clock.advance(HOUR)
        assert await world.sessions.revoke_all("ann", keep=kept.id) == 1
        with pytest.raises(Revoked):
            await world.sessions.load(ticket(other))
        world.clock.set(world.clock() - 3_600_000 + 60_000)
        world.verify(grant.access_token)
        world.clock.advance(HOUR)
        await world.sessions.rotate(kept)
        assert [listed.id for listed in await world.sessions.list("ann")] == [kept.id]

    async def test_a_sign_in_right_after_signing_out_everywhere_works(self, world: World) -> None:
        """Not even in the same millisecond is the new session, or its token, refused by mistake."""
        await world.sessions.create("ann")
        await world.sessions.revoke_all("ann")
        session = await world.sessions.create("ann")
        world.verify((await world.sessions.issue(session)).access_token)
        await world.sessions.load(ticket(session))

    async def test_a_sign_in_that_began_before_is_refused(self, world: World) -> None:
        """A password that was checked before it was changed opens nothing afterwards."""
        began_at = world.clock()
        world.clock.advance(timedelta(milliseconds=25))
        await world.sessions.revoke_all("ann")
        with pytest.raises(Revoked):
            await world.sessions.create("ann", began_at=began_at)

    async def test_p1_this_process_refuses_even_if_the_store_is_down(self, world: World) -> None:
        """A sign-out that could not be stored is not acked, and is refused here nevertheless."""
        session = await world.sessions.create("ann")
        grant = await world.sessions.issue(session)
        world.store.broken = True
        with pytest.raises(StoreUnavailable):
            await world.sessions.revoke(ident(session))
        world.store.broken = False
        with pytest.raises(Revoked):
            await world.sessions.load(ticket(session))
        with pytest.raises(Revoked):
            world.verify(grant.access_token)

    async def test_p1_a_revocation_that_could_not_be_stored_is_finished_by_the_next_try(self, world: World) -> None:
        """Signing out again after a 503 leaves nothing stored that a restart could bring back."""
        for by_token in (False, True):
            session = await world.sessions.create("ann")
            refresh = (await world.sessions.issue(session)).refresh_token
            world.store.broken = True
            with pytest.raises(StoreUnavailable):
                await world.sessions.revoke(ident(session))
            world.store.broken = False
            with pytest.raises(Revoked):
                await (world.sessions.refresh(refresh) if by_token else world.sessions.load(ticket(session)))
            assert await world.store.list("ann") == []

    async def test_p6_a_store_that_is_down_is_not_signed_out(self, world: World) -> None:
        """The error says that nothing can be said."""
        session = await world.sessions.create("ann")
        world.store.broken = True
        with pytest.raises(StoreUnavailable):
            await world.sessions.load(ticket(session))

    async def test_sweep_removes_the_expired(self, world: World) -> None:
        """Expired records go; living ones stay."""
        await world.sessions.create("ann")
        world.clock.advance(timedelta(days=8))
        await world.sessions.create("ann")
        assert await world.sessions.sweep() == 1
        assert len(await world.store.list("ann")) == 1


async def test_s22_every_step_of_a_session_is_told(world: World) -> None:
    """Create, rotate, refresh, revoke: with who, where from and why; never with a secret."""
    session = await world.sessions.create("ann", device=Device("a browser", "192.0.2.7"))
    secret = ticket(session).value
    grant = await world.sessions.issue(session)
    await world.sessions.refresh(grant.refresh_token)
    await world.sessions.rotate(session)
    await world.sessions.revoke(ident(session), reason="by an administrator")
    assert [event.kind for event in world.events] == ["signed_in", "refreshed", "rotated", "revoked"]
    assert {event.subject for event in world.events} == {"ann"}
    assert {event.address for event in world.events} == {"192.0.2.7"}
    assert world.events[-1].reason == "by an administrator"
    told = repr(world.events)
    assert secret not in told and grant.refresh_token not in told and grant.access_token not in told


def test_the_desks_run_without_an_event_loop() -> None:
    """One body of code serves WSGI too: `run` drives it to the end."""
    world = World()
    session = run(world.sessions.create("ann"))
    assert run(world.sessions.load(ticket(session))).subject == "ann"


def test_run_says_so_when_something_needs_a_loop() -> None:
    """A coroutine that truly suspends fails loudly instead of hanging."""
    with pytest.raises(RuntimeError, match="event loop"):
        run(asyncio.sleep(0))


def test_a_sign_in_as_somebody_else_ends_the_tokens_of_the_session_it_replaces() -> None:
    coat = Coatcheck()
    old = run(coat.sessions.create("ann"))
    token = run(coat.sessions.issue(old)).access_token
    run(coat.sessions.supersede(old))
    with pytest.raises(Revoked):
        coat.verifier.verify(token)
    assert [entry.session_id for entry in run(coat.feed.snapshot(0)).revoked] == [old.id]  # other processes hear of it


def test_a_user_agent_is_kept_without_what_cannot_be_printed() -> None:
    head = RequestHead("GET", "https", [(b"user-agent", b"curl\x1b[31m/8\x00\x85")])
    assert head.device.user_agent == "curl[31m/8"


def test_a_list_that_is_still_held_does_not_come_back_after_everything_was_cleared() -> None:
    coat = Coatcheck()
    session = run(coat.sessions.create("ann"))
    held = session.setdefault("cart", [])
    session.clear()
    held.append("umbrella")
    run(coat.sessions.save(session))
    assert session.cookie is not None
    assert dict(run(coat.sessions.load(session.cookie))) == {}


def test_whoever_is_to_be_asked_is_not_asked_by_the_verifier_alone() -> None:
    """`ask` looks the session up, which a Verifier cannot: by itself it refuses."""
    coat = Coatcheck(policy=Policy(when_stale="ask"))
    token = run(coat.sessions.issue(run(coat.sessions.create("ann")))).access_token
    coat.revocations.heard_at = NEVER
    with pytest.raises(StoreUnavailable):
        coat.verifier.verify(token)
