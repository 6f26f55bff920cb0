"""What was published and measured about other session libraries, tried on ours, on every built-in store.

"Measured" is: in the versions and by the method that the comparison in our benchmarks names.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coatcheck import Exchange, Keyring, Reused, Revoked, SessionGone
from coatcheck.run import run

pytestmark = pytest.mark.anyio

NAME = "__Host-session"


class Gate:
    """Two handlers that stop half-way: a reader and a writer in flight while something else happens."""

    def __init__(self, world: Any) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()
        world.handlers |= {"/read-slowly": self.read, "/write-slowly": self.write}

    async def read(self, exchange: Exchange) -> str:
        found = dict(exchange.session)
        await self._wait()
        return str(found)

    async def write(self, exchange: Exchange) -> str:
        await self._wait()
        exchange.session["late"] = True
        return "written"

    async def _wait(self) -> None:
        self.entered.set()
        await self.opened.wait()

    async def during(self, request: Any, meanwhile: Any) -> Any:
        """Start `request`, let `meanwhile` finish while it is in its handler, and return the late answer."""
        slow = asyncio.create_task(request)
        await self.entered.wait()
        await meanwhile
        self.opened.set()
        return await slow


async def test_an_id_of_the_attackers_choice_is_never_adopted(stored: Any) -> None:
    """Fixation, first half (measured: starsessions, Litestar, Beaker): the cookie's value becomes the id of the new
    session, and whoever chose it is signed in too."""
    chosen = "1" + "A" * 22 + "." + "A" * 43
    victim = stored.browser()
    victim.jar[NAME] = chosen
    await victim("/write")
    await victim("/sign-in")
    assert "A" * 22 not in victim.jar[NAME]
    assert await stored.store.load("A" * 22) is None
    assert (await stored.browser()("/me", cookie=f"{NAME}={chosen}")).status == 401


async def test_a_session_that_the_attacker_began_is_not_signed_in(stored: Any) -> None:
    """Fixation, second half, CVE-2022-25896 (passport): the visitor's session, whose cookie the attacker copied
    before, becomes the signed-in one under the same id."""
    attacker = stored.browser()
    await attacker("/write")
    victim = stored.browser()
    victim.jar = dict(attacker.jar)
    await victim("/sign-in")
    assert (await victim("/me")).body == "ann"
    assert (await attacker("/me")).status == 401
    assert not dict((await stored.sessions.list("ann"))[0]).keys() - {"written"}
    planted = await stored.store.load(attacker.jar[NAME][1:23])
    assert planted is None or (planted.subject, planted.data, planted.alive(stored.clock())) == (None, {}, False)


@pytest.mark.parametrize("slow", ["/read-slowly", "/write-slowly"])
async def test_a_sign_out_is_not_undone_by_a_request_in_flight(stored: Any, slow: str) -> None:
    """CVE-2025-46336 (rack-session; measured: starsessions, Litestar, Flask-Session, Beaker, aiohttp-session): a
    slow request writes back the session that was deleted while it ran."""
    gate, browser = Gate(stored), stored.browser()
    await browser("/sign-in")
    copied = browser.cookie()
    token = (await stored.sessions.issue((await stored.sessions.list("ann"))[0])).access_token
    late = await gate.during(browser.ask(slow), browser("/sign-out"))
    browser.keep(late)
    assert (late.status, late.all("set-cookie")) == (200, [])
    assert (await stored.browser()("/me", cookie=copied)).status == 401
    assert (await stored.browser()("/me", headers=[("authorization", f"Bearer {token}")])).status == 401
    assert await stored.store.list("ann") == []


async def test_a_reader_loses_nobodys_write(stored: Any) -> None:
    """A lost update (measured: starsessions, Litestar, Flask-Session, Beaker): a request that only reads writes its
    old copy of everything back."""
    gate, browser = Gate(stored), stored.browser()
    await browser("/sign-in")
    await gate.during(browser.ask("/read-slowly"), browser("/write"))
    assert dict((await stored.sessions.list("ann"))[0]) == {"written": True}


async def test_two_writers_of_different_keys_both_win(stored: Any) -> None:
    """A lost update (measured: all seven server-side session libraries that were tried): the last of two writers
    takes the other's key away."""
    gate, browser = Gate(stored), stored.browser()
    await browser("/sign-in")
    await gate.during(browser.ask("/write-slowly"), browser("/write"))
    assert dict((await stored.sessions.list("ann"))[0]) == {"written": True, "late": True}


@pytest.mark.parametrize("slow", ["/read-slowly", "/write-slowly"])
async def test_a_late_answer_does_not_undo_a_sign_in(stored: Any, slow: str) -> None:
    """Measured: Starlette, starsessions, Litestar, Flask, Flask-Session, fastapi-redis-sdk. The slow answer to the
    anonymous request comes last, its Set-Cookie brings the old id back, and the visitor is not signed in."""
    gate, browser = Gate(stored), stored.browser()
    await browser("/write")
    late = await gate.during(browser.ask(slow), browser("/sign-in"))
    browser.keep(late)
    assert (late.status, late.all("set-cookie")) == (200, [])
    assert (await browser("/me")).body == "ann"


async def test_the_id_before_a_sign_in_is_dead(stored: Any) -> None:
    """Measured: with Starlette's and Flask's cookies, starsessions, aiohttp-session and Beaker the old cookie stays
    good after a sign-in; here it is refused, and its record is gone."""
    browser = stored.browser()
    await browser("/sign-in")
    old = browser.cookie()
    await browser("/sign-in")
    assert (await stored.browser()("/me", cookie=old)).status == 401
    assert len(await stored.sessions.list("ann")) == 1


async def test_the_list_of_devices_tells_the_truth_after_concurrent_sign_ins(stored: Any) -> None:
    """better-auth #11022 (measured: 9 live sessions, 5 to 8 listed, and 1 to 4 of 7 others alive after "revoke
    other sessions"): the list was read, changed and written back by each sign-in."""
    sessions = await asyncio.gather(*(stored.sessions.create("ann") for _ in range(8)))
    grants = [await stored.sessions.issue(session) for session in sessions]
    assert {session.id for session in await stored.sessions.list("ann")} == {session.id for session in sessions}
    kept = sessions[3]
    assert await stored.sessions.revoke_all("ann", keep=kept.id) == 7
    assert [session.id for session in await stored.sessions.list("ann")] == [kept.id]
    for session, grant in zip(sessions, grants, strict=True):
        if session is kept:
            await stored.sessions.load(session.cookie)
            stored.coat.verifier.verify(grant.access_token)
            await stored.sessions.refresh(grant.refresh_token)
            continue
        with pytest.raises(Revoked):
            await stored.sessions.load(session.cookie)
        with pytest.raises(Revoked):
            stored.coat.verifier.verify(grant.access_token)
        with pytest.raises(Revoked):
            await stored.sessions.refresh(grant.refresh_token)


def test_what_is_dead_or_spent_stays_so_after_a_restart(make_world: Any, lasting: Any) -> None:
    """CVE-2026-9802 (Keycloak): the knowledge of what was spent was in memory, and after a restart a used refresh
    token was good again."""
    ring = Keyring.generate()

    async def before(world: Any) -> tuple[list[Any], str, str]:
        out, everywhere, alive, thief = [await world.sessions.create(name) for name in ("ann", "bob", "cat", "dan")]
        grants = [(await world.sessions.issue(session)).refresh_token for session in (out, everywhere)]
        spent = (await world.sessions.issue(alive)).refresh_token
        robbed = (await world.sessions.issue(thief)).refresh_token
        for token in (spent, robbed):
            await world.sessions.refresh(token)
        await world.sessions.revoke(out.id)
        await world.sessions.revoke_all("bob")
        return [out.cookie, everywhere.cookie, *grants], spent, robbed

    async def after(world: Any, dead: list[Any], spent: str, robbed: str) -> None:
        for cookie in dead[:2]:
            with pytest.raises(Revoked):
                await world.sessions.load(cookie)
        for token in dead[2:]:
            with pytest.raises(Revoked):
                await world.sessions.refresh(token)
        again = await world.sessions.refresh(spent)  # within grace: the very same successor, no second branch
        assert again.refresh_token == (await world.sessions.refresh(spent)).refresh_token
        world.clock.set(world.clock() + 31_000)
        with pytest.raises(Reused):
            await world.sessions.refresh(robbed)
        with pytest.raises(Revoked):  # a sign-in whose proof is older than the sign-out everywhere
            await world.sessions.create("bob", began_at=world.clock() - 3_600_000)

    world = make_world(lasting(), keyring=ring)
    kept = run(before(world))
    run(world.store.close())
    restarted = make_world(lasting(), keyring=ring)
    run(after(restarted, *kept))
    run(restarted.store.close())
    thirdly = make_world(lasting(), keyring=ring)
    with pytest.raises(Revoked):  # the reuse that was found is not forgotten either
        run(thirdly.sessions.refresh(kept[2]))
    run(thirdly.store.close())


async def test_reuse_ends_that_session_and_no_other_and_really_ends_it(stored: Any) -> None:
    """Measured: better-auth and oidc-provider end the user's other devices or the whole grant; AuthFort reports
    reuse, and its own exception rolls the revocation back; simplejwt leaves the family alive."""
    phone, laptop = [await stored.sessions.create("ann") for _ in range(2)]
    other = await stored.sessions.issue(laptop)
    stolen = await stored.sessions.issue(phone)
    fresh = await stored.sessions.refresh(stolen.refresh_token)
    stored.clock.set(stored.clock() + 31_000)
    with pytest.raises(Reused):
        await stored.sessions.refresh(stolen.refresh_token)
    for token in (fresh.refresh_token, stolen.refresh_token):
        with pytest.raises(Revoked):
            await stored.sessions.refresh(token)
    for access in (fresh.access_token, stolen.access_token):
        with pytest.raises(Revoked):
            stored.coat.verifier.verify(access)
    assert await stored.store.load(phone.id) is None
    assert (await stored.sessions.load(laptop.cookie)).subject == "ann"
    stored.coat.verifier.verify(other.access_token)
    await stored.sessions.refresh(other.refresh_token)
    assert [event.session_id for event in stored.events if event.kind == "reused"] == [phone.id]


async def test_simultaneous_refreshes_all_get_the_same_living_successor(stored: Any) -> None:
    """Measured: oidc-provider and better-auth give the loser `invalid_grant` and end the winner's grant; simplejwt
    and AuthFort give each a successor of its own, allauth two of which one is dead."""
    token = (await stored.sessions.issue(await stored.sessions.create("ann"))).refresh_token
    for _ in range(3):
        grants = await asyncio.gather(*(stored.sessions.refresh(token) for _ in range(20)))
        [successor] = {grant.refresh_token for grant in grants}
        assert successor != token
        late = await stored.sessions.refresh(token)  # its answer was lost; the retry comes after all others
        assert late.refresh_token == successor
        for grant in grants:
            stored.coat.verifier.verify(grant.access_token)
        token = successor
    assert len(await stored.sessions.list("ann")) == 1


async def test_nothing_outlives_the_rotation_of_an_id(stored: Any) -> None:
    """A token or a second tab's cookie of the id before goes on to work in libraries that only add a new id."""
    session = await stored.sessions.create("ann")
    cookie, grant = session.cookie, await stored.sessions.issue(session)
    stale = await stored.sessions.load(cookie)
    await stored.sessions.rotate(session)
    with pytest.raises(Revoked):
        await stored.sessions.load(cookie)
    with pytest.raises(Revoked):
        stored.coat.verifier.verify(grant.access_token)
    with pytest.raises(Revoked):
        await stored.sessions.refresh(grant.refresh_token)
    await stored.sessions.revoke(session.id)
    with pytest.raises(SessionGone):
        await stored.sessions.rotate(stale)
    assert await stored.sessions.list("ann") == []
