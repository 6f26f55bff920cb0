"""Verifiers without a store: they hear of revocations over HTTP, and know it when they do not."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from auth_server import SHORT, TOKEN, AuthServer, is_refused, until

from coatcheck import (
    Coatcheck,
    CoatcheckError,
    Policy,
    Revoked,
    SQLiteStore,
    StoreUnavailable,
    Verifier,
)
from coatcheck.core.revocation import Revoked as Entry
from coatcheck.remote import events, keys
from coatcheck.run import run
from coatcheck.testing import FaultProxy
from coatcheck.verifier import RemoteVerifier

Make = Callable[..., RemoteVerifier]
Behind = tuple[AuthServer, FaultProxy]


def test_a_token_is_verified_and_its_revocation_reaches_every_verifier_without_a_look_up(
    auth: AuthServer, make: Make
) -> None:
    """R11: requests at the server are counted: none for 2000 verifications."""
    one, two = make(auth), make(auth)
    kept, ended = auth.token("ann"), auth.token("bob")
    before = auth.requests.copy()
    for _ in range(500):
        assert one.verify(kept).subject == two.verify(kept).subject == "ann"
        assert one.verify(ended).subject == two.verify(ended).subject == "bob"
    auth.revoke_all("bob")
    until(lambda: is_refused(one, ended) and is_refused(two, ended))
    assert one.verify(kept).scopes == two.verify(kept).scopes == ("read",)
    assert auth.requests == before


def test_what_was_revoked_before_a_verifier_began_is_in_its_snapshot(auth: AuthServer, make: Make) -> None:
    ended = auth.token()
    auth.revoke_all()
    late = make(auth)
    with pytest.raises(Revoked):
        late.verify(ended)


@pytest.mark.parametrize("when_stale", ["refuse", "ask", "accept"])
def test_a_verifier_verifies_nothing_before_it_has_keys_and_a_snapshot(
    behind: Behind, make: Make, when_stale: str
) -> None:
    """P6, whatever the policy says: nothing was heard yet that could be stale."""
    server, proxy = behind
    token = server.token()
    proxy.hold_replies()
    verifier = Verifier.from_issuer(
        server.url,
        feed_token=TOKEN,
        policy=Policy(stale_after=SHORT, when_stale=when_stale),  # type: ignore[arg-type]
    )
    with pytest.raises(StoreUnavailable, match="yet"):
        verifier.verify(token)
    with pytest.raises(StoreUnavailable):
        run(verifier.verify_asking(token))
    assert verifier.silence() > 10**9
    proxy.heal()
    verifier.open()
    assert verifier.verify(token).subject == "ann"
    verifier.close()


def test_what_is_heard_counts_for_nothing_while_there_are_no_keys(
    auth: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a good token would be answered 401, as if its signature were wrong."""
    monkeypatch.setattr(keys, "PATH", "/nowhere")
    verifier = Verifier.from_issuer(auth.url, feed_token=TOKEN)
    verifier.open(wait=timedelta(0))
    until(lambda: auth.requests["/nowhere"] > 1)
    with pytest.raises(StoreUnavailable):
        verifier.verify(auth.token())
    verifier.close()
    assert auth.requests["/feed/snapshot"] == 0


def test_open_returns_when_the_issuer_is_not_there_and_goes_on_trying(
    make_server: Callable[..., AuthServer], caplog: pytest.LogCaptureFixture
) -> None:
    """P6: the application starts nevertheless, and recovers without a restart."""
    server = make_server()
    token, port = server.token(), server.port
    server.stop()
    verifier = Verifier.from_issuer(server.url, feed_token=TOKEN)
    verifier.open(wait=timedelta(milliseconds=50))
    with pytest.raises(StoreUnavailable):
        verifier.verify(token)
    make_server(port=port)
    verifier.open()
    assert verifier.verify(token).subject == "ann"
    verifier.close()
    assert TOKEN not in caplog.text


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "cut": FaultProxy.cut,
    "hold": FaultProxy.hold,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_verifier_that_is_cut_off_knows_it_and_misses_nothing_afterwards(
    fault: str, behind: Behind, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11, P6: within its bound it does what its policy says; it recovers by itself, with every revocation."""
    monkeypatch.setattr(events, "SILENCE", 0.6)
    server, proxy = behind
    strict, lenient = make(server), make(server, when_stale="accept")
    kept, ended = server.token("ann"), server.token("bob")
    assert strict.verify(ended).subject == lenient.verify(ended).subject == "bob"
    FAULTS[fault](proxy)
    server.revoke_all("bob")
    assert until(lambda: strict.is_stale() and lenient.is_stale()) < 20
    with pytest.raises(StoreUnavailable):
        strict.verify(kept)
    assert lenient.verify(kept).subject == "ann"
    assert strict.silence() > SHORT // timedelta(milliseconds=1)
    proxy.heal()
    until(lambda: not strict.is_stale() and not lenient.is_stale())
    assert strict.verify(kept).subject == lenient.verify(kept).subject == "ann"
    assert is_refused(strict, ended)
    assert is_refused(lenient, ended)


def test_a_reset_connection_is_made_anew_before_anything_is_stale(behind: Behind, make: Make) -> None:
    server, proxy = behind
    verifier, token, ended = make(server), server.token(), server.token("bob")
    for _ in range(5):
        proxy.reset()
        server.revoke_all("bob")
        assert verifier.verify(token).subject == "ann"
    until(lambda: is_refused(verifier, ended))
    assert server.requests["/feed/snapshot"] == 1, "the recent past is kept: no gap, no snapshot"


def test_news_that_lay_on_the_way_for_long_do_not_count_as_new(
    behind: Behind, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats go on coming in, each as old as the one before: the silence is as long as they are old."""
    monkeypatch.setattr(events, "SILENCE", 60.0)
    server, proxy = behind
    verifier = make(server)
    verifier._stale_after = 400
    proxy.delay(0.5)
    until(verifier.is_stale)
    for _ in range(20):
        time.sleep(0.05)
        assert verifier.is_stale()


def test_a_gap_is_filled_by_a_snapshot(auth: AuthServer, make: Make) -> None:
    """What is not among the recent past any more, as after a restart of the server, or a long absence."""
    verifier, ended = make(auth), auth.token()
    auth.server.feed_hub._remembered = 0  # whoever listens falls out of the past with the next revocation
    auth.revoke_all()
    until(lambda: is_refused(verifier, ended))
    assert auth.requests["/feed/snapshot"] >= 2


def test_p1_what_is_ended_while_the_server_is_away_is_known_when_it_is_back(
    make_server: Callable[..., AuthServer], make: Make, tmp_path: Path
) -> None:
    first = make_server()
    port, ended, kept = first.port, first.token("bob"), first.token("ann")
    verifier = make(first)
    assert verifier.verify(ended).subject == "bob"
    assert first.stop() < 3, "the streams of the feed do not hold the end up"
    database = tmp_path / "data" / "coatcheck.sqlite"

    async def end() -> None:  # as `coatcheck sessions revoke` does it
        async with Coatcheck(SQLiteStore(database)) as coat:
            await coat.sessions.revoke_all("bob")

    asyncio.run(end())
    make_server(port=port)
    until(lambda: is_refused(verifier, ended))
    assert verifier.verify(kept).subject == "ann"


def test_nobody_else_is_refused_while_a_thousand_sessions_end(auth: AuthServer, make: Make) -> None:
    """Issue 4: by session, by subject, everywhere; a token that is allowed is never refused by mistake."""
    verifier = make(auth)
    kept = [auth.token(f"kept {n}") for n in range(20)]
    mistakes: list[BaseException] = []
    ending = threading.Event()

    def verify() -> None:
        while not ending.wait(0.001):  # a loop without a pause would leave the others' threads no time
            for token in kept:
                try:
                    verifier.verify(token)
                except CoatcheckError as error:
                    mistakes.append(error)

    async def end() -> list[str]:
        issued = [await auth.issue(f"ended {n % 50}") for n in range(40)]
        sessions, ended = auth.server.coat.sessions, list[str]()
        entries = tuple(Entry(session_id=f"{n:022}", until=2**45) for n in range(960))
        await auth.server.coat.feed.publish(entries, 0)
        for n, (session_id, token) in enumerate(random.sample(issued, len(issued))):
            if n % 4:
                await sessions.revoke(session_id)
            else:
                await sessions.revoke_all(f"ended {n % 50}")
                await sessions.revoke(session_id)
            ended.append(token)
        return ended

    thread = threading.Thread(target=verify)
    thread.start()
    ended = auth.do(end())
    until(lambda: all(is_refused(verifier, token) for token in ended))
    ending.set()
    thread.join()
    assert mistakes == []
    assert len(verifier.revocations) >= 1000
