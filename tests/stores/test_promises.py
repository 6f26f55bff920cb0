"""The promises under load, on every store: through the middleware, in one process and across two (P1, P3, P5)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from rivals import SHARED, STORES, NewCoat, Together, end_the_others, opened, race_two_processes

from coatcheck import Coatcheck, Revoked
from coatcheck.exchange import Exchange
from coatcheck.issuer import Grant
from coatcheck.request_head import RequestHead

ROUNDS = {"memory": 10, "sqlite": 3}  # of the others 2: their writers meet in another process or on a disk
SIGN_OUTS = 1000
AT_ONCE = 50


async def request(coat: Coatcheck, cookie: str) -> Exchange:
    head = RequestHead("GET", "https", [(b"cookie", f"__Host-session={cookie}".encode())])
    return await Exchange.begin(head, coat.sessions, coat.verifier)


async def write(coat: Coatcheck, cookie: str, key: str) -> None:
    """One request that writes one key, from its cookie to its saved session."""
    exchange = await request(coat, cookie)
    exchange.require()
    exchange.session[key] = key
    await exchange.finish()


async def sign_in(coat: Coatcheck) -> tuple[str, Grant]:
    session = await coat.sessions.create("ann")
    assert session.cookie is not None
    return session.cookie.value, await coat.sessions.issue(session)


async def keys_of(coat: Coatcheck, cookie: str) -> set[str]:
    return set((await request(coat, cookie)).session)


@pytest.mark.parametrize("store", STORES)
def test_p3_200_of_200_concurrent_requests_keep_their_keys(store: str, coat_of: NewCoat) -> None:
    """Rounds of 200 requests that each write a key of their own into one session: none is lost."""
    coat = coat_of()

    async def rounds() -> None:
        for number in range(ROUNDS.get(store, 2)):
            cookie, _ = await sign_in(coat)
            await asyncio.gather(*(write(coat, cookie, f"{number}-{n}") for n in range(200)))
            assert await keys_of(coat, cookie) == {f"{number}-{n}" for n in range(200)}

    opened(coat, rounds)


@pytest.mark.parametrize("store", SHARED)
def test_p3_200_of_200_across_two_processes(coat_of: NewCoat, together: Together) -> None:
    """Two processes with 100 requests each, all at once: 200 keys."""
    cookie, _ = opened(first := coat_of(), lambda: sign_in(first))

    def process(name: str) -> None:
        coat = coat_of()

        async def work() -> None:
            await asyncio.gather(*(write(coat, cookie, f"{name}-{n}") for n in range(100)))

        opened(coat, work)

    assert together(lambda: process("a"), lambda: process("b")) == [0, 0]
    last = coat_of()
    assert opened(last, lambda: keys_of(last, cookie)) == {f"{name}-{n}" for name in "ab" for n in range(100)}


@pytest.mark.parametrize("store", STORES)
def test_p1_no_sign_out_is_undone_by_a_request_in_flight(coat_of: NewCoat) -> None:
    """A writer, a reader, a rotation and a refresh race each sign-out; afterwards every credential is dead."""
    coat = coat_of()

    async def race() -> int:
        cookie, grant = await sign_in(coat)
        racers = [await request(coat, cookie) for _ in range(3)]
        racers[0].session["late"] = 1
        leaving = await request(coat, cookie)
        rotated = racers[2]
        await asyncio.gather(
            racers[0].finish(),
            racers[1].finish(),
            rotated.rotate(),
            coat.sessions.refresh(grant.refresh_token),
            leaving.sign_out(),
            return_exceptions=True,
        )
        alive = 0
        newer = rotated.session.cookie
        for value in [cookie, *([newer.value] if newer else [])]:
            alive += (await request(coat, value)).principal is not None
        for dead in (lambda: coat.sessions.refresh(grant.refresh_token), lambda: _verify(coat, grant)):
            try:
                await dead()
                alive += 1
            except Revoked:
                continue
        return alive

    async def races() -> int:
        total = 0
        for _ in range(SIGN_OUTS // AT_ONCE):
            total += sum(await asyncio.gather(*(race() for _ in range(AT_ONCE))))
        return total + len(await coat.sessions.list("ann"))

    assert opened(coat, races) == 0


async def _verify(coat: Coatcheck, grant: Grant) -> None:
    bearer = (b"authorization", f"Bearer {grant.access_token}".encode())
    exchange = await Exchange.begin(RequestHead("GET", "https", [bearer]), coat.sessions, coat.verifier)
    exchange.require()


@pytest.mark.parametrize("store", STORES)
def test_p5_racing_tabs_are_never_signed_out(store: str, coat_of: NewCoat) -> None:
    """2 to 50 tabs spend one token at once, some of them twice: all get the identical successor, every time."""
    coat = coat_of()

    async def rounds() -> None:
        _, grant = await sign_in(coat)
        token = grant.refresh_token
        for tabs in [2, 3, 5, 10, 20, 50] * (8 if store in ROUNDS else 1):
            answers = await asyncio.gather(*(coat.sessions.refresh(token) for _ in range(tabs)))
            answers += await asyncio.gather(*(coat.sessions.refresh(token) for _ in range(tabs // 2)))
            [token] = {answer.refresh_token for answer in answers}
        assert len(await coat.sessions.list("ann")) == 1

    opened(coat, rounds)


@pytest.mark.parametrize("store", SHARED)
def test_p5_racing_tabs_across_two_processes(coat_of: NewCoat, tmp_path: Path, together: Together) -> None:
    """2 to 50 tabs of two processes spend the same token at once, lose answers, ask again: nobody is signed out.

    After each round they hold the same token; one that was spent long before ends its session, and no other.
    """
    assert race_two_processes(coat_of, together, tmp_path, 12) > 200


@pytest.mark.parametrize("store", STORES)
def test_p1_end_the_others_leaves_exactly_one_session(store: str, coat_of: NewCoat) -> None:
    """While all of them are in use in another process; the list says so, and nothing else lives."""
    coat = coat_of()
    other = coat if store == "memory" else coat_of()
    chance = random.Random(7)  # noqa: S311 (a seed is to be repeatable)

    async def rounds() -> None:
        async with other:
            for _ in range(10):
                await end_the_others(coat, other, chance)

    opened(coat, rounds)
