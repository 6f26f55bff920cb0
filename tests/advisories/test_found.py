"""What our own attacks found. Each test was seen to fail before the defect that its docstring tells was mended."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import copy
import inspect
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from coatcheck import (
    CredentialError,
    Exchange,
    InvalidValue,
    KeyFile,
    MemoryStore,
    Policy,
    Revoked,
    SessionGone,
    StoreUnavailable,
)
from coatcheck.clock import monotonic_clock
from coatcheck.core.record import Record
from coatcheck.errors import ConfigurationError
from coatcheck.events import Event
from coatcheck.feeds.local import LocalFeed
from coatcheck.request_head import RequestHead
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def settled(grant: Any) -> Any:
    """Whether a grant is made at once or after a look-up is not the point here."""
    return await grant if inspect.isawaitable(grant) else grant


class Failing(MemoryStore):
    """Cannot end sessions for as long as it is told so."""

    down = False

    async def delete(self, id: str) -> Record | None:
        self._check()
        return await super().delete(id)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        self._check()
        return await super().revoke_subject(subject, before, keep)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")


class Slow(MemoryStore):
    """Answers when it is told to, after it has done its work."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.done, self.answer = asyncio.Event(), asyncio.Event()

    async def replace(self, record: Record) -> bool:
        return await self._late(await super().replace(record))

    async def create(self, record: Record) -> bool:
        return await self._late(await super().create(record))

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        return await self._late(await super().revoke_subject(subject, before, keep))

    async def _late(self, result: T) -> T:
        self.done.set()
        if self.slow:
            await self.answer.wait()
        return result


class FailingFeed(LocalFeed):
    down = False

    async def publish(self, revoked: Any, now: int) -> None:
        if self.down:
            raise StoreUnavailable("down")
        await super().publish(revoked, now)

    async def told(self) -> set[str | None]:
        return {entry.session_id for entry in (await self.snapshot(0)).revoked}


class TestDeadIsFinal:
    async def test_p1_no_token_is_made_for_a_session_that_has_ended(self, world: Any) -> None:
        """A request that was in flight when its session ended (a WebSocket, a long poll) issued an access token that
        outlived the memory of the revocation: good for 15 minutes, in every process."""
        for wait in (timedelta(0), timedelta(minutes=15), timedelta(hours=3)):
            held = await world.sessions.create("ann")
            await world.sessions.revoke(held.id)
            world.clock.advance(wait)
            await self._forget(world)
            with pytest.raises((CredentialError, SessionGone)):
                await self._use(world, held)

    async def _use(self, world: Any, held: Any) -> None:
        grant = await settled(world.sessions.issue(held))
        world.clock.advance(timedelta(minutes=2))
        await self._forget(world)
        world.coat.verifier.verify(grant.access_token)

    async def _forget(self, world: Any) -> None:
        for _ in range(1024):  # as many arrivals as make the small set be pruned
            world.coat.revocations.apply(world.sessions._announcer.refuse_session("A" * 22))
        await world.sessions.sweep()

    async def test_p1_a_rotation_does_not_escape_a_revocation_that_is_pending(self, make_world: Any) -> None:
        """The store could not end the session, this process refused it, and a request in flight rotated it to an id
        that nobody refused."""
        store = Failing()
        world = make_world(store)
        for everywhere in (False, True):
            held = await world.sessions.create("ann")
            world.clock.advance(timedelta(seconds=1))
            store.down = True
            with pytest.raises(StoreUnavailable):
                await (world.sessions.revoke_all("ann") if everywhere else world.sessions.revoke(held.id))
            store.down = False
            with pytest.raises(SessionGone):
                await world.sessions.rotate(held)
            assert await world.sessions.list("ann") == []

    async def test_p1_a_retry_tells_the_others_what_the_first_try_could_not(self, make_world: Any) -> None:
        """Signing out the other devices ended the records and could not tell the feed; the retry found none, told
        nothing and reported success: their access tokens were good in the other processes until they expired."""
        feed = FailingFeed()
        world = make_world(feed=feed)
        kept, other = [await world.sessions.create("ann") for _ in range(2)]
        feed.down = True
        with pytest.raises(StoreUnavailable):
            await world.sessions.revoke_all("ann", keep=kept.id)
        feed.down = False
        await world.sessions.revoke_all("ann", keep=kept.id)
        assert await feed.told() == {other.id}

    async def test_p1_a_cancelled_request_does_not_leave_a_revocation_half_done(self, make_world: Any) -> None:
        """The browser went away between the store's answer and the feed: the records were gone, nobody was told, not
        even this process, and no retry could."""
        store = Slow()
        world = make_world(store)
        kept, other = [await world.sessions.create("ann") for _ in range(2)]
        token = await settled(world.sessions.issue(other))
        store.slow = True
        store.done.clear()
        request = asyncio.create_task(world.sessions.revoke_all("ann", keep=kept.id))
        await store.done.wait()
        request.cancel()
        await asyncio.wait([request])
        store.answer.set()
        for _ in range(5):
            await asyncio.sleep(0)
        with pytest.raises(Revoked):
            world.coat.verifier.verify(token.access_token)

    async def test_p1_an_old_id_still_leads_to_the_session_after_a_failure(self, make_world: Any) -> None:
        """Revoking a rotated id removed its stump, the feed failed, and the retry found nothing and said so, while
        the session lived on under its new id."""
        feed = FailingFeed()
        world = make_world(feed=feed)
        session = await world.sessions.create("ann")
        old = session.id
        await world.sessions.rotate(session)
        feed.down = True
        with pytest.raises(StoreUnavailable):
            await world.sessions.revoke(old)
        feed.down = False
        await world.sessions.revoke(old)
        with pytest.raises(Revoked):
            await world.sessions.load(session.cookie)
        assert session.id in await feed.told()

    async def test_s6_what_has_expired_is_not_revived_by_a_request_in_flight(self, make_world: Any) -> None:
        """The end of a long request touched, or rotated, the session whose idle timeout had passed meanwhile."""
        world = make_world(policy=Policy(idle=timedelta(hours=1)))
        for revive in (world.sessions.touch, world.sessions.rotate):
            session = await world.sessions.create("ann")
            cookie = session.cookie
            held = await world.sessions.load(cookie)
            world.clock.advance(timedelta(hours=1))
            with contextlib.suppress(SessionGone):
                await revive(held)
            with pytest.raises(CredentialError):
                await world.sessions.load(cookie)
            assert await world.sessions.list("ann") == []

    async def test_a_sign_in_ends_the_session_of_a_token_in_the_same_browser(self, world: Any) -> None:
        """Bob signed in where only the tokens of Ann were left: her session lived, her refresh cookie stayed, and the
        next refresh gave Bob's browser a token of Ann's."""

        async def tokens(exchange: Exchange) -> str:
            await exchange.sign_in("ann")
            exchange.hand_out_tokens(await settled(exchange.issue()))
            return ""

        async def bob(exchange: Exchange) -> str:
            await exchange.sign_in("bob")
            return ""

        world.handlers |= {"/tokens": tokens, "/bob": bob}
        browser = world.browser()
        await browser("/tokens")
        del browser.jar["__Host-session"]
        await browser("/bob")
        assert set(browser.jar) == {"__Host-session"}
        assert await world.sessions.list("ann") == []

    async def test_a_sign_in_ends_the_other_subjects_session_also_where_it_was_rotated(self, world: Any) -> None:
        """Ann's session got a new id in another tab while Bob signed in: it lived on."""
        session = await world.sessions.create("ann")
        head = RequestHead("POST", "https", [(b"cookie", f"__Host-session={session.cookie.value}".encode())])
        exchange = await Exchange.begin(head, world.sessions, world.coat.verifier)
        await world.sessions.rotate(session)
        await exchange.sign_in("bob")
        assert await world.sessions.list("ann") == []

    async def test_signing_out_with_an_expired_access_token_ends_the_session(self, world: Any) -> None:
        """With token cookies only, a sign-out after 15 minutes took the cookies back and left the session, and
        whoever had copied the refresh token, alone."""

        async def tokens(exchange: Exchange) -> str:
            await exchange.sign_in("ann")
            exchange.hand_out_tokens(await settled(exchange.issue()))
            return ""

        world.handlers["/tokens"] = tokens
        browser = world.browser()
        await browser("/tokens")
        del browser.jar["__Host-session"]
        world.clock.advance(timedelta(minutes=20))
        assert (await browser("/sign-out")).body == "True"
        assert await world.sessions.list("ann") == []
        forged = {"__Host-refresh": "A" * 76}
        browser.jar = forged
        assert (await browser("/sign-out")).body == "False"

    async def test_p9_what_is_no_id_fills_no_list(self, world: Any) -> None:
        """Every id in a DELETE request, of any size and shape, was remembered and published for 16 minutes."""
        for session_id in ("", "x" * 100_000, "A" * 21 + "B", "../../etc/passwd"):
            assert await world.sessions.revoke(session_id) is False
        assert len(world.coat.revocations) == 0


class TestNobodySeesAnothersData:
    async def test_p4_a_value_read_before_another_signs_in_is_gone(self, world: Any) -> None:
        """A list of Ann's that the handler had read stayed in the session object: Bob's request saw it, and once it
        was changed in place it was stored as Bob's."""

        async def ann(exchange: Exchange) -> str:
            await exchange.sign_in("ann")
            exchange.session["cart"] = ["of ann"]
            return ""

        async def bob(exchange: Exchange) -> str:
            cart = exchange.session["cart"]
            await exchange.sign_in("bob")
            seen = exchange.session.get("cart")
            cart.append("of bob")
            return str(seen)

        world.handlers |= {"/ann": ann, "/bob": bob}
        browser = world.browser()
        await browser("/ann")
        assert (await browser("/bob")).body == "None"
        assert dict((await world.sessions.list("bob"))[0]) == {}

    @pytest.mark.parametrize("name", ["subject", "id", "device", "signed_in_at", "seen_at", "principal"])
    async def test_c18_whose_session_it_is_is_told_to_caches(self, world: Any, name: str) -> None:
        """`session.subject` and its like did not count as access: a page with "Hello, Ann" had no `Vary: Cookie`
        (the class of CVE-2026-27205)."""

        async def hello(exchange: Exchange) -> str:
            return str(getattr(exchange.session, name))

        world.handlers["/hello"] = hello
        browser = world.browser()
        await browser("/sign-in")
        assert (await browser("/hello", method="GET")).varies()


class TestNothingIsLost:
    @pytest.mark.parametrize("verb", ["save", "rotate"])
    async def test_p3_an_edit_made_while_another_is_saved(self, make_world: Any, verb: str) -> None:
        """Two tasks of one request share its session: what one wrote while the other's edits were being saved was
        thrown away with them."""
        store = Slow()
        world = make_world(store)
        session = await world.sessions.create("ann")
        session.update(first=1, both=1, gone=1)
        store.slow = True
        store.done.clear()
        saving = asyncio.create_task(getattr(world.sessions, verb)(session))
        await store.done.wait()
        session.update(second=2, both=2)
        del session["gone"]
        store.answer.set()
        await saving
        await world.sessions.save(session)
        expected = {"first": 1, "second": 2, "both": 2}
        assert dict(session) == dict((await world.sessions.list("ann"))[0]) == expected

    async def test_p3_clearing_while_edits_are_saved(self, make_world: Any) -> None:
        """As above: what is cleared meanwhile stays cleared."""
        store = Slow()
        world = make_world(store)
        session = await world.sessions.create("ann")
        session["first"] = 1
        store.slow = True
        store.done.clear()
        saving = asyncio.create_task(world.sessions.save(session))
        await store.done.wait()
        session.clear()
        session["second"] = 2
        store.answer.set()
        await saving
        await world.sessions.save(session)
        assert dict((await world.sessions.list("ann"))[0]) == {"second": 2}

    async def test_s21_a_late_edit_without_a_session_makes_no_record(self, world: Any) -> None:
        """A streamed body that wrote to a visitor's session made a record whose cookie could not be sent any more:
        one more row for each request, and the data lost all the same."""

        async def late(exchange: Exchange) -> str:
            exchange.dress(())  # the response has left
            exchange.session["late"] = True
            return ""

        world.handlers["/late"] = late
        browser = world.browser()
        await browser("/late")
        assert world.events == []

    async def test_an_audit_sink_that_fails_undoes_nothing(self, make_world: Any) -> None:
        """An exception in `on_event` made a sign-in fail that was already stored, cut the report of a sign-out
        everywhere short, and left the cookie in the browser."""
        seen: list[str] = []

        def sink(event: Event) -> None:
            seen.append(event.kind)
            raise OSError("the audit log is full")

        world = make_world(on_event=sink)
        browser = world.browser()
        await browser("/sign-in")
        assert (await browser("/me")).body == "ann"
        await world.sessions.create("ann")
        assert await world.sessions.revoke_all("ann") == 2
        assert seen == ["signed_in", "signed_in", "revoked", "revoked"]

    async def test_data_that_cannot_be_stored_is_refused_before_it_is(self, stored: Any) -> None:
        """Keys with half a surrogate pair (JSON has them) ended in a UnicodeEncodeError from some stores and were
        stored by others; amr or scopes that were no words made a record that nobody could read again."""
        session = await stored.sessions.create("ann")
        with pytest.raises(InvalidValue):
            session["\ud800"] = 1
        keys: list[Any] = ["\ud800", 1, b"x", None]
        for key in keys:
            with pytest.raises(InvalidValue):
                await stored.sessions.update(session.id, lambda data, key=key: data.update({key: 1}))
        words: list[Any] = [(1,), ("\ud800",), ("a b",), ("",), ('"',), "word"]
        for bad in words:
            for name in ("amr", "scopes"):
                with pytest.raises(InvalidValue):
                    await stored.sessions.create("ann", **{name: bad})
        assert dict(await stored.sessions.load(session.cookie)) == {}
        session["Zoë"] = 1
        await stored.sessions.save(session)


class TestFailingClosed:
    async def test_a_string_is_not_a_collection_of_words(self, world: Any) -> None:
        """A string is a `Collection[str]` of its letters: `sign_in(amr="pwd")` passed `require(amr="otp")` by the
        letter p, and `csrf_exempt="/webhook"` exempted "/"."""
        outcomes: list[str] = []

        async def step_up(exchange: Exchange) -> str:
            await exchange.sign_in("ann", amr=("pwd",))
            for demand in ({"amr": "otp"}, {"amr": "pwd"}, {"scopes": "read"}):
                with pytest.raises(InvalidValue):
                    exchange.require(**demand)  # type: ignore[arg-type]
            for sloppy in ({"amr": "pwd"}, {"scopes": "read"}):
                with pytest.raises(InvalidValue):
                    await exchange.sign_in("ann", **sloppy)  # type: ignore[arg-type]
                with pytest.raises(InvalidValue):
                    await exchange.sign_in("bob", **sloppy)  # type: ignore[arg-type]
            outcomes.append("refused")
            return ""

        world.handlers["/step-up"] = step_up
        await world.browser()("/step-up")
        assert outcomes == ["refused"]
        with pytest.raises(ConfigurationError):
            CoatcheckMiddleware(world.app.app, coatcheck=world.coat, csrf_exempt="/webhook")

    async def test_p7_a_clock_that_was_set_back_does_not_make_a_silent_feed_fresh(self, make_world: Any) -> None:
        """Silence was counted by the clock that can be set: none for an hour, if it was set back by an hour."""
        world = make_world(feed=LocalFeed())
        session = await world.sessions.create("ann")
        token = await settled(world.sessions.issue(session))
        world.coat.revocations.heard_at = monotonic_clock()
        world.coat.verifier.verify(token.access_token)
        world.coat.revocations.heard_at -= 6000
        for seconds in (-3600, 0, 60):
            world.clock.advance(timedelta(seconds=seconds))
            with pytest.raises(StoreUnavailable):
                world.coat.verifier.verify(token.access_token)

    def test_a_timeout_below_the_resolution_is_not_no_timeout(self) -> None:
        """`idle` of less than a millisecond became 0 ms, which means no idle limit."""
        for wrong in (timedelta(microseconds=1), timedelta(milliseconds=999)):
            with pytest.raises(ConfigurationError):
                Policy(idle=wrong, touch_every=timedelta(0))
            with pytest.raises(ConfigurationError):
                Policy(idle=None, absolute=wrong)
        Policy(idle=timedelta(seconds=1), touch_every=timedelta(0))

    async def test_p6_a_store_that_is_down_at_start_up_does_not_stop_the_application(self, make_world: Any) -> None:
        """`open` failed inside the application's own `receive`: servers took that for an application without a
        lifespan, and went on without ever running its start-up."""

        class Down(MemoryStore):
            async def open(self) -> None:
                raise StoreUnavailable("down")

        world = make_world(Down())
        received: list[str] = []

        async def application(_: Any, receive: Any, send: Any) -> None:
            received.append((await receive())["type"])
            await send({"type": "lifespan.startup.complete"})

        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup"}

        sent: list[str] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await CoatcheckMiddleware(application, coatcheck=world.coat)({"type": "lifespan"}, receive, send)
        assert (received, sent) == (["lifespan.startup"], ["lifespan.startup.complete"])
        # Nothing was presented, so nothing is asked of the store.
        assert (await world.browser()("/me")).status == 401


class TestSecretsStayInside:
    async def test_no_repr_shows_a_credential(self, world: Any, tmp_path: Path) -> None:
        """The repr of a request's head showed its Cookie header, that of a stored key the private JWK, and what
        `rich` prints of a grant its tokens: each ends in logs and error reports by itself."""
        head = RequestHead("GET", "https", [(b"cookie", b"SECRET"), (b"authorization", b"Bearer SECRET")])
        grant = await settled(world.sessions.issue(await world.sessions.create("ann")))
        file = KeyFile(tmp_path / "keys", algorithm="Ed25519")
        file.open()
        keys = file.keys()
        for thing in (head, grant, *keys):
            shown = repr(thing) + repr(list(thing.__rich_repr__()))
            for secret in ("SECRET", grant.access_token, grant.refresh_token, *(key.jwk["d"] for key in keys)):
                assert secret not in shown

    async def test_a_session_is_not_pickled_or_copied(self, world: Any) -> None:
        """A pickled session took its cookie's secret along to a queue or a cache; a shallow copy shared its edits."""
        session = await world.sessions.create("ann")
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                take(session)
