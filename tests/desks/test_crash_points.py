"""P1: a process is killed at any moment of ending sessions: nobody was told it is done, and a second try finishes it.

Every call of the store and of the feed is two moments: just before it takes effect, and just after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any

import pytest

from coatcheck import Coatcheck, CredentialError, MemoryStore
from coatcheck.core.session import Session
from coatcheck.exchange import Exchange
from coatcheck.feeds.local import LocalFeed
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.testing import SettableClock


class _Moment:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Killable:
    """Lets the one who drives it stop before and after each call of what it stands for."""

    def __init__(self, what: Any) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._what, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            await _Moment()
            result = await method(*arguments, **named)
            await _Moment()
            return result

        return call


class KillableStore(Killable, MemoryStore):
    """Is a store to whoever asks for its kind."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("create", "load", "replace", "touch", "delete", "list", "revoke_subject", "sweep"):
            return Killable.__getattr__(self, name)
        return object.__getattribute__(self, name)


class World:
    """Two devices of ann's, and processes that share a store and a feed."""

    def __init__(self) -> None:
        self.clock, self.store, self.feed = SettableClock(), MemoryStore(), LocalFeed()
        self.keyring = Coatcheck().keyring
        self.first = self.process(KillableStore(self.store), Killable(self.feed))
        before = self.process(self.store, self.feed)
        self.phone, self.laptop = (run(before.sessions.create("ann", amr=("pwd",))) for _ in range(2))
        self.clock.advance(timedelta(seconds=1))
        self.grants = {session.id: run(before.sessions.issue(session)) for session in (self.phone, self.laptop)}
        self.rotate, self.refresh = before.sessions.rotate, before.sessions.refresh

    def process(self, store: Any, feed: Any) -> Coatcheck:
        coat = Coatcheck(store, self.keyring, feed=feed, clock=self.clock, on_event=lambda _: None)
        coat.revocations.heard_at = None  # nothing is followed here; `another` has heard everything
        return coat

    def another(self) -> Coatcheck:
        """A process that has heard whatever was published."""
        coat = self.process(self.store, self.feed)
        for revoked in run(self.feed.snapshot(self.clock())).revoked:
            coat.revocations.apply(revoked)
        return coat

    def stored(self, session: Session) -> bool:
        record = run(self.store.load(session.id or ""))
        return record is not None and record.alive(self.clock())

    def token_is_good(self, coat: Coatcheck, session: Session) -> bool:
        return works(lambda: coat.verifier.verify(self.grants[session.id].access_token))

    def cookie_is_good(self, coat: Coatcheck, session: Session) -> bool:
        assert session.cookie is not None
        return works(lambda: run(coat.sessions.load(session.cookie)))  # type: ignore[arg-type]

    def refresh_is_good(self, coat: Coatcheck, session: Session) -> bool:
        return works(lambda: run(coat.sessions.refresh(self.grants[session.id].refresh_token)))


def works(use: Callable[[], object]) -> bool:
    try:
        use()
    except CredentialError:
        return False
    return True


Act = Callable[[World, Coatcheck], Coroutine[Any, Any, Any]]


async def sign_out(world: World, coat: Coatcheck, header: tuple[bytes, bytes]) -> None:
    exchange = await Exchange.begin(RequestHead("POST", "https", [header]), coat.sessions, coat.verifier)
    await exchange.sign_out(refresh_token=world.grants[world.phone.id].refresh_token)


def by_cookie(world: World, coat: Coatcheck) -> Coroutine[Any, Any, None]:
    assert world.phone.cookie is not None
    return sign_out(world, coat, (b"cookie", b"__Host-session=" + world.phone.cookie.value.encode()))


def by_token(world: World, coat: Coatcheck) -> Coroutine[Any, Any, None]:
    return sign_out(world, coat, (b"authorization", b"Bearer " + world.grants[world.phone.id].access_token.encode()))


async def by_reuse(world: World, coat: Coatcheck) -> None:
    """The refresh token that was spent before comes again, too late to be forgiven."""
    with pytest.raises(CredentialError):
        await coat.sessions.refresh(world.grants[world.phone.id].refresh_token)


async def by_sign_in(world: World, coat: Coatcheck) -> None:
    """Somebody else signs in with the same browser."""
    assert world.phone.cookie is not None
    head = RequestHead("POST", "https", [(b"cookie", b"__Host-session=" + world.phone.cookie.value.encode())])
    await (await Exchange.begin(head, coat.sessions, coat.verifier)).sign_in("bob")


PHONE, BOTH = ("phone",), ("phone", "laptop")
ACTS: dict[str, tuple[tuple[str, ...], Act]] = {
    "revoke": (PHONE, lambda world, coat: coat.sessions.revoke(world.phone.id or "")),
    "revoke_all": (BOTH, lambda _, coat: coat.sessions.revoke_all("ann")),
    "revoke_all but one": (PHONE, lambda world, coat: coat.sessions.revoke_all("ann", keep=world.laptop.id)),
    "sign out by cookie": (PHONE, by_cookie),
    "sign out by token": (PHONE, by_token),
    "reuse": (PHONE, by_reuse),
    "sign in as somebody else": (PHONE, by_sign_in),
}


def killed_after(moments: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Go on for so many moments; say whether the work came to its end before."""
    try:
        for _ in range(moments):
            work.send(None)
    except StopIteration:
        return True
    work.close()
    return False


@pytest.mark.parametrize("name", ACTS)
def test_p1_whenever_a_process_is_killed_dead_is_final_once_it_was_said(name: str) -> None:
    ends, act = ACTS[name]
    moments, acked = 0, False
    while not acked:
        world = World()
        ending = [getattr(world, device) for device in ends]
        if name == "reuse":
            run(world.refresh(world.grants[world.phone.id].refresh_token))
            world.clock.advance(timedelta(minutes=5))
        acked = killed_after(moments, act(world, world.first))
        second = world.another()
        for session in ending:
            # Gone, and nobody knows of its tokens: that is what no second try could make good.
            assert world.stored(session) or not world.token_is_good(second, session), f"killed after {moments} moments"
        if not acked:
            run(act(world, second))
        assert not any(map(world.stored, ending)), f"killed after {moments} moments"
        for coat in (second, world.another()):
            for session in ending:
                assert not world.token_is_good(coat, session), f"killed after {moments} moments"
                assert not world.cookie_is_good(coat, session), f"killed after {moments} moments"
                assert not world.refresh_is_good(coat, session), f"killed after {moments} moments"
        if ends == PHONE:
            assert world.cookie_is_good(second, world.laptop)
            assert world.token_is_good(second, world.laptop)
        moments += 1
    assert moments > 4


def test_p1_a_session_that_was_rotated_before_is_found_by_its_old_id_however_often_it_takes() -> None:
    """What leads from the old id to the new one is there until the session has ended."""
    moments, acked = 0, False
    while not acked:
        world = World()
        old = world.phone.id or ""
        run(world.rotate(world.phone))
        world.grants[world.phone.id] = run(world.another().sessions.issue(world.phone))
        acked = killed_after(moments, world.first.sessions.revoke(old))
        if not acked:
            run(world.another().sessions.revoke(old))
        third = world.another()
        assert not world.stored(world.phone)
        assert not world.token_is_good(third, world.phone)
        assert not world.cookie_is_good(third, world.phone)
        moments += 1
    assert moments > 8


@pytest.mark.parametrize("how", ["the others", "each"])
def test_p1_tokens_of_an_id_that_a_killed_process_gave_up_are_dead_once_the_session_was_ended(how: str) -> None:
    """Between the rotation and the word of it: nobody else was told of the old id, and the new one is what is ended."""
    moments, rotated, killed = 0, False, list[Coroutine[Any, Any, Any]]()
    while not rotated:
        world = World()
        token = world.grants[world.phone.id].access_token
        killed.append(world.first.sessions.rotate(world.phone))
        try:
            for _ in range(moments):
                killed[-1].send(None)
        except StopIteration:
            rotated = True
        second = world.another()
        if how == "the others":
            run(second.sessions.revoke_all("ann", keep=world.laptop.id))
        else:
            for session in run(second.sessions.list("ann")):
                if session.id != world.laptop.id:
                    run(second.sessions.revoke(session.id or ""))
        for coat in (second, world.another()):
            assert not works(lambda: coat.verifier.verify(token)), f"killed after {moments} moments"  # noqa: B023
            assert world.token_is_good(coat, world.laptop)
        moments += 1
    for each in killed:
        with contextlib.suppress(RuntimeError):  # what it would do in the end, a killed one does not
            each.close()
