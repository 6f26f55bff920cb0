"""Proving: nothing under way outlives the end of an account or of its password (P1), whatever the clock says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coatcheck.core.record import Device
from coatcheck.errors import Conflict, InvalidValue, Revoked, SessionGone, StoreUnavailable
from coatcheck.exchange import Exchange
from coatcheck.request_head import RequestHead
from coatcheck.server import proof as module
from coatcheck.server.attempts import PER_ACCOUNT, TooMany
from coatcheck.server.passwords import Busy, Passwords
from coatcheck.server.proof import Proof, WrongPassword
from coatcheck.server.server import Server
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

NAME, PASSWORD, ANOTHER = "ann", "a lantern under the stairs", "a bucket behind the barn"
ADDRESS = "192.0.2.1"

Act = Callable[[], Awaitable[object]]


@pytest.fixture
async def server(make_server: Any) -> Server:
    """A server whose clock stands still: no order of events can be told by it (P7)."""
    server: Server = await make_server(clock=SettableClock())
    await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    return server


async def _exchange(server: Server, cookie: str | None = None) -> Exchange:
    headers = [(b"user-agent", b"Test/1")]
    if cookie is not None:
        headers.append((b"cookie", b"__Host-session=" + cookie.encode()))
    head = RequestHead("POST", "http", headers, ADDRESS)
    return await Exchange.begin(head, server.coat.sessions, server.coat.verifier)


async def _live(server: Server) -> list[str | None]:
    account = await server.accounts.find(NAME)
    assert account is not None
    return [session.id for session in await server.coat.sessions.list(account.id)]


def _interrupt(monkeypatch: pytest.MonkeyPatch, holder: object, name: str, when: str, act: Act) -> None:
    """Let `act` happen in full, once, before or after the first call of a method."""
    original, pending = getattr(holder, name), [act]

    async def interrupted(*args: Any, **kwargs: Any) -> Any:
        mine = pending.pop() if pending else None
        if mine is not None and when == "before":
            await mine()
        result = await original(*args, **kwargs)
        if mine is not None and when == "after":
            await mine()
        return result

    monkeypatch.setattr(holder, name, interrupted)


async def _prove_and_enter(server: Server, exchange: Exchange, deliver: str) -> None:
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    if deliver == "cookie":
        await server.proof.sign_in(exchange, proof)
    else:
        await server.proof.grant(exchange, proof)


# Every point of a sign-in at which it waits: whose method, and whether just before or just after it.
POINTS = [
    ("attempts", "begin", "before"),
    ("accounts", "find", "before"),
    ("accounts", "find", "after"),
    ("passwords", "verify", "after"),
    ("attempts", "succeeded", "after"),
    ("store", "create", "before"),
    ("store", "create", "after"),
    ("accounts", "get", "before"),
]


def _holder(server: Server, name: str) -> object:
    return server.coat.store if name == "store" else getattr(server, name)


@pytest.mark.parametrize("deliver", ["cookie", "tokens"])
@pytest.mark.parametrize("end", ["disable", "password"])
@pytest.mark.parametrize(("holder", "name", "when"), POINTS)
async def test_p1_a_sign_in_under_way_does_not_outlive_the_account_or_its_password(
    server: Server, monkeypatch: pytest.MonkeyPatch, holder: str, name: str, when: str, end: str, deliver: str
) -> None:
    account = await server.accounts.find(NAME)
    assert account is not None

    async def act() -> None:
        if end == "disable":
            await module.disable(NAME, server.accounts, server.coat.sessions)
        else:
            hashed = await Passwords(memory=8, passes=1).hash(ANOTHER)
            await server.accounts.set_password(account, hashed)
            await server.coat.sessions.revoke_all(account.id)

    exchange = await _exchange(server)
    _interrupt(monkeypatch, _holder(server, holder), name, when, act)
    with pytest.raises(WrongPassword):
        await _prove_and_enter(server, exchange, deliver)
    assert await _live(server) == []
    assert all(b"Max-Age=0" in value for name, value in exchange.dress([]) if name == b"set-cookie")


@pytest.mark.parametrize("again", [False, True])
async def test_p1_a_session_whose_proof_may_not_stand_is_not_handed_out_even_if_it_cannot_be_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The account cannot be looked up, and neither can its session be removed: nobody is given the cookie."""
    exchange = await _signed_in(server) if again else await _exchange(server)
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(server.accounts, "get", away)
    monkeypatch.setattr(server.coat.store, "delete", away)
    with pytest.raises(StoreUnavailable):
        await server.proof.sign_in(exchange, proof)
    assert [value for name, value in exchange.dress([]) if name == b"set-cookie"] == []
    assert exchange.session.id is None


async def test_p1_what_happens_after_a_sign_in_ends_it(server: Server) -> None:
    exchange = await _exchange(server)
    await server.proof.sign_in(exchange, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert len(await _live(server)) == 1
    done = await module.disable(NAME, server.accounts, server.coat.sessions)
    assert done is not None
    assert done[1] == 1
    assert await _live(server) == []


async def test_s11_disabling_ends_three_devices_and_two_refresh_families(server: Server) -> None:
    cookies, tokens = [], []
    for _ in range(3):
        exchange = await _exchange(server)
        await server.proof.sign_in(exchange, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
        assert exchange.session.cookie is not None
        cookies.append(exchange.session.cookie)
    for _ in range(2):
        proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
        tokens.append(await server.proof.grant(await _exchange(server), proof))
    await module.disable(NAME, server.accounts, server.coat.sessions)
    for cookie in cookies:
        with pytest.raises(Revoked):
            await server.coat.sessions.load(cookie)
    for grant in tokens:
        with pytest.raises(Revoked):
            server.coat.verifier.verify(grant.access_token)
        with pytest.raises(Revoked):
            await server.coat.sessions.refresh(grant.refresh_token)


async def test_disabling_a_name_that_nobody_has_does_nothing(server: Server) -> None:
    assert await module.disable("bob", server.accounts, server.coat.sessions) is None


@pytest.mark.parametrize(("name", "password"), [(NAME, "a guess"), ("bob", PASSWORD), (PASSWORD, NAME)])
async def test_wrong_name_wrong_password_and_disabled_are_refused_in_the_same_words(
    server: Server, name: str, password: str
) -> None:
    with pytest.raises(WrongPassword) as caught:
        await server.proof.prove(name, password, address=ADDRESS)
    await server.accounts.disable(NAME)
    with pytest.raises(WrongPassword) as other:
        await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    assert str(caught.value) == str(other.value) == "name or password is wrong"


async def test_right_wrong_unknown_and_disabled_each_cost_one_hash(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    verify = server.passwords.verify

    async def spy(password: str, stored: str | None) -> bool:
        seen.append(stored)
        return await verify(password, stored)

    monkeypatch.setattr(server.passwords, "verify", spy)
    await server.accounts.add("bob", await server.passwords.hash(PASSWORD))
    await server.accounts.disable("bob")
    await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    for name in (NAME, "nobody", "bob"):
        with pytest.raises(WrongPassword):
            await server.proof.prove(name, "a guess", address=ADDRESS)
    assert len(seen) == 4


async def test_after_ten_failures_the_right_password_is_refused_too(server: Server) -> None:
    for _ in range(PER_ACCOUNT):
        with pytest.raises(WrongPassword):
            await server.proof.prove(NAME, "a guess", address=ADDRESS)
    with pytest.raises(TooMany):
        await server.proof.prove(NAME, PASSWORD, address=ADDRESS)


async def test_being_too_busy_to_check_is_no_attempt(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> bool:
        raise Busy

    with monkeypatch.context() as patch:
        patch.setattr(server.passwords, "verify", busy)
        for _ in range(2 * PER_ACCOUNT):
            with pytest.raises(Busy):
                await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    await server.proof.prove(NAME, PASSWORD, address=ADDRESS)


async def test_a_hash_with_old_parameters_is_made_anew_at_sign_in_and_the_proof_stands(server: Server) -> None:
    old = Passwords(memory=16, passes=2)
    await server.accounts.add("bob", await old.hash(PASSWORD))
    old.close()
    proof = await server.proof.prove("bob", PASSWORD, address=ADDRESS)
    now = await server.accounts.find("bob")
    assert now is not None
    assert server.passwords.needs_rehash(proof.account.password_hash)
    assert not server.passwords.needs_rehash(now.password_hash)
    await server.proof.sign_in(await _exchange(server), proof)


async def test_a_rehash_that_fails_does_not_keep_anybody_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Passwords(memory=16, passes=2)
    await server.accounts.add("bob", await old.hash(PASSWORD))
    old.close()

    async def busy(_: str) -> str:
        raise Busy

    monkeypatch.setattr(server.passwords, "hash", busy)
    await server.proof.prove("bob", PASSWORD, address=ADDRESS)


async def test_a_browser_whose_session_ends_just_now_can_still_sign_in(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await _exchange(server)
    await server.proof.sign_in(first, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert first.session.cookie is not None
    again = await _exchange(server, first.session.cookie.value)
    old = again.session.id
    assert old is not None
    _interrupt(monkeypatch, server.coat.sessions, "rotate", "before", lambda: server.coat.sessions.revoke(old))
    await server.proof.sign_in(again, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert await _live(server) == [again.session.id]
    assert again.session.id != old


async def test_s4_signing_in_again_gives_a_new_id_and_ends_the_old_one(server: Server) -> None:
    first = await _exchange(server)
    await server.proof.sign_in(first, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert first.session.cookie is not None
    again = await _exchange(server, first.session.cookie.value)
    await server.proof.sign_in(again, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert await _live(server) == [again.session.id]
    with pytest.raises(Revoked):
        await server.coat.sessions.load(first.session.cookie)


# -- changing the password -------------------------------------------------------------------------------------------


async def _signed_in(server: Server) -> Exchange:
    first = await _exchange(server)
    await server.proof.sign_in(first, await server.proof.prove(NAME, PASSWORD, address=ADDRESS))
    assert first.session.cookie is not None
    return await _exchange(server, first.session.cookie.value)


async def test_s12_a_new_password_ends_the_other_sessions_and_gives_this_one_a_new_id(server: Server) -> None:
    others = [await _signed_in(server) for _ in range(2)]
    mine = await _signed_in(server)
    before = mine.session.id
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    assert await server.proof.change_password(mine, proof, ANOTHER) == len(others)
    assert await _live(server) == [mine.session.id]
    assert mine.session.id != before
    with pytest.raises(WrongPassword):
        await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    await server.proof.prove(NAME, ANOTHER, address=ADDRESS)


async def test_s12_a_password_change_that_was_killed_half_way_is_finished_by_the_next_process(
    server: Server, make_server: Any
) -> None:
    account = await server.accounts.find(NAME)
    assert account is not None
    await server.coat.sessions.create(account.id)
    changed = await server.accounts.set_password(account, "another hash")
    assert await server.accounts.unfinished(0) == []
    await make_server(clock=lambda: server.coat.clock() + 10_000)
    assert await server.coat.sessions.list(account.id) == []
    assert await server.accounts.unfinished(changed.created_at + 2**40) == []


async def test_s4_a_new_password_ends_what_was_copied_also_behind_an_access_cookie(server: Server) -> None:
    """The session cookie may have been evicted (C14); the session's id changed only where it was there."""
    account = await server.accounts.find(NAME)
    assert account is not None
    session = await server.coat.sessions.create(account.id)
    grant = await server.coat.sessions.issue(session)
    cookies = f"__Host-access={grant.access_token}; __Host-refresh={grant.refresh_token}".encode()
    head = RequestHead("POST", "http", [(b"cookie", cookies)], ADDRESS)
    exchange = await Exchange.begin(head, server.coat.sessions, server.coat.verifier)
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    await server.proof.change_password(exchange, proof, ANOTHER)
    with pytest.raises(Revoked):
        server.coat.verifier.verify(grant.access_token)
    with pytest.raises(Revoked):
        await server.coat.sessions.refresh(grant.refresh_token)
    sent = {line.partition(b"=")[0] for name, line in exchange.dress([]) if name == b"set-cookie"}
    assert sent == {b"__Host-session", b"__Host-access", b"__Host-refresh"}


async def test_p5_of_two_changes_of_one_password_one_wins(server: Server) -> None:
    one, other = await _signed_in(server), await _signed_in(server)
    proofs = [await server.proof.prove(NAME, PASSWORD, address=ADDRESS) for _ in range(2)]
    await server.proof.change_password(one, proofs[0], ANOTHER)
    with pytest.raises(Conflict):
        await server.proof.change_password(other, proofs[1], "a third one for the road")
    await server.proof.prove(NAME, ANOTHER, address=ADDRESS)


async def test_a_weak_new_password_changes_nothing(server: Server) -> None:
    mine, other = await _signed_in(server), await _signed_in(server)
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    with pytest.raises(InvalidValue):
        await server.proof.change_password(mine, proof, "short")
    assert set(await _live(server)) == {mine.session.id, other.session.id}


async def test_a_proof_of_somebody_else_changes_no_password(server: Server) -> None:
    mine = await _signed_in(server)
    await server.accounts.add("bob", await server.passwords.hash(ANOTHER))
    proof = await server.proof.prove("bob", ANOTHER, address=ADDRESS)
    with pytest.raises(WrongPassword):
        await server.proof.change_password(mine, proof, "a third one for the road")
    await server.proof.prove("bob", ANOTHER, address=ADDRESS)


async def test_p1_a_session_that_was_ended_meanwhile_is_not_revived_by_its_password_change(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await _signed_in(server)
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    act: Act = lambda: module.disable(NAME, server.accounts, server.coat.sessions)  # noqa: E731
    _interrupt(monkeypatch, server.coat.sessions, "revoke_all", "after", act)
    with pytest.raises((WrongPassword, SessionGone)):
        await server.proof.change_password(mine, proof, ANOTHER)
    assert await _live(server) == []


async def test_a_refresh_of_a_disabled_account_is_refused_and_ends_the_session(server: Server) -> None:
    """Its sessions are ended anyway; this is for the moment in between."""
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    grant = await server.proof.grant(await _exchange(server), proof)
    await server.accounts.disable(NAME)
    refreshed = await server.coat.sessions.refresh(grant.refresh_token)
    with pytest.raises(Revoked):
        await server.proof.may_refresh(refreshed)
    assert await _live(server) == []


async def test_a_proof_for_an_account_that_is_gone_is_refused(server: Server) -> None:
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    await server.accounts._documents.commit({}, {f"account/{proof.account.id}": None})
    with pytest.raises(WrongPassword):
        await server.proof.sign_in(await _exchange(server), proof)


async def test_a_session_remembers_where_it_was_signed_in(server: Server) -> None:
    proof = await server.proof.prove(NAME, PASSWORD, address=ADDRESS)
    await server.proof.grant(await _exchange(server), Proof(proof.account, proof.began_at))
    [session] = await server.coat.sessions.list(proof.account.id)
    assert session.device == Device("Test/1", ADDRESS)
