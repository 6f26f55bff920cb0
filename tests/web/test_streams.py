"""F11 where a server asks for one part after the other: a stream is cut before more of it leaves."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore
from wsgi_browser import environ

from coatcheck import Coatcheck, Policy, Sealed, Session, standing
from coatcheck.clock import monotonic_clock
from coatcheck.run import run
from coatcheck.testing import SettableClock
from coatcheck.web.wsgi import CoatcheckWSGI, Environ, StartResponse, exchange

PLAIN = [("Content-Type", "text/plain")]
CREDENTIALS = ["cookie", "token"]


class World:
    """A download that never ends, and whoever reads it."""

    def __init__(self, store: Any = None, **policy: Any) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.coat = Coatcheck(store or self.store, policy=Policy(**policy), clock=self.clock)
        self.app = CoatcheckWSGI(self.download, coatcheck=self.coat)
        self.status = "200 OK"
        self.ended = 0

    def download(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        start(self.status, PLAIN)
        try:
            while True:
                yield b"."
        finally:
            self.ended += 1

    def sign_in(self) -> Session:
        return run(self.coat.sessions.create("ann", amr=("pwd",)))

    def presented(self, session: Session, credential: str = "cookie") -> list[tuple[str, str]]:
        if credential == "token":
            return [("authorization", f"Bearer {run(self.coat.sessions.issue(session)).access_token}")]
        assert session.cookie is not None
        kinds = self.coat.policy.session_cookies
        pairs = zip(kinds, session.cookie.values, strict=False)
        return [("cookie", "; ".join(f"{kind.name}={value}" for kind, value in pairs))]

    def open(self, headers: list[tuple[str, str]]) -> Iterator[bytes]:
        """Return a response, after its first part."""
        body = iter(self.app(environ("GET", "/", headers), lambda *_: lambda _: None))
        assert next(body) == b"."
        return body

    def close(self) -> None:
        self.app.background.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def goes_on(body: Iterator[bytes]) -> None:
    assert (next(body), next(body)) == (b".", b".")


def is_cut(body: Any, code: str = "revoked") -> None:
    """Cut for good; then the server closes it, and with it the application's part."""
    for _ in range(2):
        with pytest.raises(BrokenPipeError, match=code) as cut:
            next(body)
        assert cut.value.errno == errno.EPIPE
    body.close()


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("everywhere", [False, True])
def test_f11_it_is_cut_before_the_next_part_after_a_sign_out(world: World, credential: str, everywhere: bool) -> None:
    session = world.sign_in()
    body, other = world.open(world.presented(session, credential)), world.open([])
    goes_on(body)
    run(world.coat.sessions.revoke_all("ann") if everywhere else world.coat.sessions.revoke(session))
    is_cut(body)
    goes_on(other)
    assert world.ended == 1


def test_f11_a_sign_out_between_the_request_and_the_second_part_counts(world: World) -> None:
    session = world.sign_in()
    body = world.open(world.presented(session))
    run(world.coat.sessions.revoke(session))
    is_cut(body)


@pytest.mark.parametrize(("credential", "lives"), [("cookie", timedelta(minutes=30)), ("token", timedelta(minutes=16))])
def test_f11_it_is_cut_when_what_it_came_with_expires(credential: str, lives: timedelta) -> None:
    """Whether it does so before the second part, or after."""
    world = World(idle=timedelta(minutes=30))
    headers = world.presented(world.sign_in(), credential)
    begun, early = world.open(headers), world.open(headers)
    goes_on(begun)
    world.clock.advance(lives)
    for body in (begun, early):
        is_cut(body, "expired")
    world.close()


def test_f11_a_sealed_session_is_cut_as_well() -> None:
    world = World(Sealed())
    session = world.sign_in()
    body = world.open(world.presented(session))
    goes_on(body)
    run(world.coat.sessions.revoke_all("ann"))
    is_cut(body)
    world.close()


def test_s19_a_rotation_does_not_cut_and_a_new_proof_does(world: World) -> None:
    session = world.sign_in()
    body = world.open(world.presented(session))
    run(world.coat.sessions.rotate(session))
    goes_on(body)
    world.clock.advance(timedelta(seconds=1))
    run(world.coat.sessions.rotate(session, began_at=world.clock()))
    is_cut(body)


def test_use_elsewhere_keeps_it_open() -> None:
    """S6: a session that is used goes on. The store is asked once about that."""
    world = World(idle=timedelta(minutes=30))
    session = world.sign_in()
    body = world.open(world.presented(session))
    goes_on(body)
    world.clock.advance(timedelta(minutes=29))
    run(world.coat.sessions.touch(session))
    world.clock.advance(timedelta(minutes=2))
    world.store.calls.clear()
    goes_on(body)
    assert world.store.calls == Counter(load=1)
    world.close()


def test_the_store_is_not_asked_but_for_a_reason(world: World) -> None:
    """Others' sign-outs are none."""
    body = world.open(world.presented(world.sign_in()))
    world.store.calls.clear()
    for number in range(100):
        run(world.coat.sessions.revoke(f"1{number:022}"))
        world.store.calls.clear()
        goes_on(body)
        assert world.store.calls == Counter()


def test_p6_where_nobody_can_tell_it_is_cut(world: World) -> None:
    session = world.sign_in()
    body = world.open(world.presented(session))
    run(world.coat.sessions.rotate(session))
    world.store.broken = True
    with pytest.raises(BrokenPipeError, match="unavailable"):
        next(body)
    world.store.broken = False
    is_cut(body, "unavailable")  # a stream never goes on after a gap


@pytest.mark.parametrize(
    ("when_stale", "broken", "credential", "code"),
    [
        ("refuse", False, "token", "unavailable"),
        ("refuse", False, "cookie", None),
        ("refuse", True, "cookie", "unavailable"),
        ("ask", False, "token", None),
        ("ask", True, "token", "unavailable"),
        ("accept", True, "token", None),
        ("accept", True, "cookie", None),
    ],
)
def test_p6_a_silent_feed_is_borne_as_the_policy_says(
    when_stale: Any, broken: bool, credential: str, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision 14; the store is asked once a second and not at each part."""
    ticking = SettableClock()
    monkeypatch.setattr(standing, "monotonic_clock", ticking)
    world = World(when_stale=when_stale)
    body = world.open(world.presented(world.sign_in(), credential))
    goes_on(body)
    world.coat.revocations.heard_at = monotonic_clock() - 60_000
    world.store.broken = broken
    world.store.calls.clear()
    if code is None:
        for seconds in (1, 2):
            goes_on(body)
            assert world.store.calls == (Counter() if when_stale == "accept" else Counter(load=seconds))
            ticking.advance(timedelta(seconds=1))
    else:
        is_cut(body, code)
    world.close()


def test_p6_where_judging_fails_for_a_reason_of_its_own_it_is_cut_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As WebSockets are: a store that is not ours may raise anything."""

    async def damaged(_: str) -> None:
        raise RuntimeError("of the store's own")

    session = world.sign_in()
    body = world.open(world.presented(session))
    run(world.coat.sessions.revoke(session))
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "load", damaged)
        with pytest.raises(BrokenPipeError, match="unavailable"):
            next(body)
    is_cut(body, "unavailable")


def test_signing_out_in_its_own_handler_does_not_cut_it(world: World) -> None:
    """It may have something to say still."""

    def handle(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        yield b"."
        run(exchange(environ).sign_out_everywhere())
        yield b"."
        yield b"."

    world.app.app = handle
    goes_on(world.open(world.presented(world.sign_in())))


def test_an_answer_that_says_that_it_failed_is_let_be(world: World) -> None:
    world.status = "500 Internal Server Error"
    session = world.sign_in()
    body = world.open(world.presented(session))
    run(world.coat.sessions.revoke(session))
    goes_on(body)


def test_what_was_not_saved_before_a_cut_is_not_saved(world: World) -> None:
    """And there is no end, by which a part could be taken for the whole."""

    def handle(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        run(exchange(environ).load_session())
        exchange(environ).session["early"] = 1
        yield b"."
        exchange(environ).session["late"] = 1
        yield b"."

    world.app.app = handle
    session = world.sign_in()
    body = world.open(world.presented(session, "token"))
    world.clock.advance(timedelta(minutes=16))
    is_cut(body, "expired")
    assert dict(run(world.coat.sessions.find(session.id or ""))) == {"early": 1}


def test_f11_what_is_sent_by_write_is_cut_whatever_the_application_does(world: World) -> None:
    """PEP 3333, "the write() callable"; the application hears that nobody is there any more."""
    session, left = world.sign_in(), list[bytes]()

    def handle(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        write = start("200 OK", PLAIN)
        write(b"one")
        write(b"two")
        run(world.coat.sessions.revoke(session))
        for _ in range(2):
            with pytest.raises(BrokenPipeError, match="revoked"):
                write(b"a secret")
        return [b"a secret"]

    world.app.app = handle
    body: Any = world.app(environ("GET", "/", world.presented(session)), lambda *_: left.append)
    is_cut(iter(body))
    assert left == [b"one", b"two"]
