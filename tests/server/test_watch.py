"""What a server does beside its requests: it ends what others have left, and forgets what has expired."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from coatcheck.errors import StoreUnavailable
from coatcheck.server.server import Server
from coatcheck.server.watch import Watch
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(make_server: Any, clock: SettableClock, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("coatcheck.server.watch._ROUND_SECONDS", 0.001)
    made: Server = await make_server(clock=clock)
    return made


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


async def test_s12_a_running_server_finishes_what_a_killed_one_has_begun(server: Server, clock: SettableClock) -> None:
    """Not at once: whoever changes a password keeps their own session, and has ended the others by then."""
    account = await server.accounts.add("ann", "hash")
    session = await server.coat.sessions.create(account.id)
    changed = await server.accounts.set_password(account, "another")
    clock.advance(timedelta(seconds=9))
    await server.end_sessions_of_unfinished()
    assert [each.id for each in await server.coat.sessions.list(account.id)] == [session.id]
    clock.advance(timedelta(seconds=1))

    async def finished() -> bool:
        return await server.accounts.unfinished(clock()) == []

    await _until(finished)
    assert await server.coat.sessions.list(account.id) == []
    assert await server.accounts.get(account.id) == changed


async def test_p9_a_running_server_sweeps_attempts_that_have_expired(server: Server, clock: SettableClock) -> None:
    attempt = await server.attempts.begin("ann", "192.0.2.1")
    clock.advance(timedelta(minutes=15))

    async def forgotten() -> bool:
        return await server._documents.get(attempt.account, attempt.address) == [None, None]

    await _until(forgotten)


async def test_a_trouble_is_told_once_and_again_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coatcheck.server.watch._ROUND_SECONDS", 0)
    rounds = 0

    async def troubled() -> None:
        nonlocal rounds
        rounds += 1
        if rounds % 10 > 2:
            raise StoreUnavailable("the store is down")

    async def as_well() -> None:
        if rounds % 10 > 3:
            raise StoreUnavailable("the store is down")

    async def seen_enough() -> bool:
        return rounds >= 30

    caplog.set_level(logging.WARNING, "coatcheck.server")
    watch = Watch((1, troubled), (1, as_well))
    watch.start()
    await _until(seen_enough)
    await watch.stop()
    await watch.stop()
    assert 3 <= caplog.text.count("the store is down") <= 1 + rounds // 10


async def test_p6_no_duty_ends_the_watch_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.server.watch._ROUND_SECONDS", 0)
    rounds = 0

    async def defective() -> None:
        raise ValueError("whatever")

    async def counting() -> None:
        nonlocal rounds
        rounds += 1

    async def went_on() -> bool:
        return rounds > 3

    watch = Watch((1, defective), (1, counting))
    watch.start()
    await _until(went_on)
    await watch.stop()
