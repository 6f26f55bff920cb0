"""Rivals: tabs, devices and processes that want different things of the same sessions at the same moment (P1, P5)."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import pytest
from outages import coat_on

from coatcheck import Coatcheck, CoatcheckError, CredentialError, FileStore, MemoryStore, Reused, SQLiteStore
from coatcheck.core.session import Session
from coatcheck.errors import Revoked
from coatcheck.store import Store
from coatcheck.stores.redis import RedisStore

NewStore = Callable[[], Store]
NewCoat = Callable[[], Coatcheck]
Together = Callable[..., list[int]]

STORES: Final = ("memory", "file", "sqlite", "redis", "cluster", "postgres")
SHARED: Final = tuple(name for name in STORES if name != "memory")
PATIENT: Final = timedelta(seconds=20)
TABS: Final = (1, 2, 3, 5, 10, 25)  # of each of two processes


@pytest.fixture
def new_store(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> NewStore:
    """Make one more store over the same records, as another process would; what matters here is not how fast it is."""
    if store == "postgres":
        make = request.getfixturevalue("make")
        return lambda: cast("Store", make(timeout=PATIENT))
    if store in ("redis", "cluster"):
        prefix = request.getfixturevalue("prefix")
        valkey = request.getfixturevalue("cluster")[0] if store == "cluster" else request.getfixturevalue("valkey")
        url = valkey.url.replace("redis:", "redis+cluster:") if store == "cluster" else valkey.url
        return lambda: RedisStore.from_url(url, prefix=prefix, timeout=PATIENT)
    stores: dict[str, NewStore] = {
        "memory": MemoryStore,
        "file": lambda: FileStore(tmp_path / "sessions"),
        "sqlite": lambda: SQLiteStore(tmp_path / "sessions.db"),
    }
    return stores[store]


@pytest.fixture
def coat_of(new_store: NewStore) -> NewCoat:
    """Make one more coatcheck over the same records."""
    return lambda: coat_on(new_store())


def opened(coat: Coatcheck, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run work with an open coatcheck in an event loop of its own."""

    async def main() -> Any:
        async with coat:
            return await work()

    return asyncio.run(main())


async def spend(coat: Coatcheck, token: str, tabs: int, chance: random.Random) -> tuple[str, int]:
    """Have so many tabs spend one token at once; return its successor, which all must get, and how often it was spent.

    Some lose the answer and ask again, some ask twice, and answers come in any order.
    """

    async def tab() -> list[str]:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        answers = [(await coat.sessions.refresh(token)).refresh_token]
        again = range(chance.choice((0, 0, 0, 1, 2)))
        return [*answers, *[(await coat.sessions.refresh(token)).refresh_token for _ in again]]

    answers = [answer for each in await asyncio.gather(*(tab() for _ in range(tabs))) for answer in each]
    [successor] = set(answers)
    return successor, len(answers)


def race_two_processes(coat_of: NewCoat, together: Together, folder: Path, rounds: int) -> int:
    """Have the tabs of two processes race for so many rounds, and return how many refreshes that were.

    Nobody is signed out, all arrive at the same token, and the other device is as it was. A token that was spent two
    rounds ago ends its session, and only that one.
    """

    async def start() -> tuple[str, str]:
        one, other = [await coat.sessions.create("ann") for _ in range(2)]
        return (await coat.sessions.issue(one)).refresh_token, str(other.id)

    first, other = opened(coat := coat_of(), start)
    barrier = multiprocessing.get_context("fork").Barrier(2)

    def process(name: str) -> None:
        async def race() -> None:
            tokens, spent, chance = [first], 0, random.Random(name)  # noqa: S311 (a seed is to be repeatable)
            for number in range(rounds):
                await asyncio.to_thread(barrier.wait, 60)
                token, times = await spend(coat, tokens[-1], TABS[number % len(TABS)], chance)
                tokens.append(token)
                spent += times
            (folder / name).write_text(f"{spent} {tokens[-3]} {tokens[-1]}")

        opened(coat := coat_of(), race)

    assert together(lambda: process("a"), lambda: process("b")) == [0, 0]
    ends = [(folder / name).read_text().split() for name in ("a", "b")]
    assert ends[0][1:] == ends[1][1:]
    opened(coat := coat_of(), lambda: _reused(coat, ends[0][1], ends[0][2], other))
    return sum(int(end[0]) for end in ends)


async def _reused(coat: Coatcheck, old: str, newest: str, other: str) -> None:
    """Check that the newest token is good until an old one is used again, which leaves the other device alone."""
    newest = (await coat.sessions.refresh(newest)).refresh_token
    for token, error in ((old, Reused), (newest, Revoked)):
        try:
            await coat.sessions.refresh(token)
        except error:
            continue
        raise AssertionError("a spent token was taken")
    assert [session.id for session in await coat.sessions.list("ann")] == [other]


async def end_the_others(coat: Coatcheck, elsewhere: Coatcheck, chance: random.Random, devices: int = 8) -> None:
    """End all sessions but one while the others are busy in another process: exactly that one is left, and listed.

    They are used, written, rotated and refreshed; more sign in whose proof began before.
    """
    earlier = int(time.time() * 1000) - 1000
    mine, *others = [await coat.sessions.create("ann") for _ in range(devices)]
    grants = [await coat.sessions.issue(session) for session in others]
    seen = [await elsewhere.sessions.load(_cookie(session)) for session in others]
    for number, session in enumerate(seen):
        session["late"] = number
    rivals: list[Coroutine[Any, Any, Any]] = [
        *(elsewhere.sessions.rotate(session) for session in seen[::2]),
        *(elsewhere.sessions.save(session) for session in seen[1::2]),
        *(elsewhere.sessions.refresh(grant.refresh_token) for grant in grants),
        *(elsewhere.sessions.create("ann", began_at=earlier) for _ in range(devices)),
        coat.sessions.revoke_all("ann", keep=mine.id),
    ]
    outcomes = await asyncio.gather(*(_at_some_time(rival, chance) for rival in rivals), return_exceptions=True)
    unexpected = [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, CoatcheckError)]
    assert unexpected == []
    assert isinstance(outcomes[-1], int)
    created = [each for each in outcomes if isinstance(each, Session)]
    for here in (coat, elsewhere):
        assert [session.id for session in await here.sessions.list("ann")] == [mine.id]
        alive = [session for session in (mine, *others, *seen, *created) if await _lives(here, session)]
        assert {session.id for session in alive} == {mine.id}
    await coat.sessions.revoke_all("ann")


async def _at_some_time(rival: Coroutine[Any, Any, Any], chance: random.Random) -> Any:
    await asyncio.sleep(chance.random() * 0.005)
    return await rival


def _cookie(session: Session) -> Any:
    assert session.cookie is not None
    return session.cookie


async def _lives(coat: Coatcheck, session: Session) -> bool:
    if session.cookie is None:  # as loaded
        return False
    try:
        await coat.sessions.load(session.cookie)
    except CredentialError:
        return False
    return True
