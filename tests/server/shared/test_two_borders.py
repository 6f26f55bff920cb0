"""Security events and status lists of two servers of one store: told once, and the same at both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from receiving import TOKEN, PushReceiver, read, receiving, settings

from coatcheck.core import jws, status_list
from coatcheck.server.passwords import Passwords
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings

pytestmark = pytest.mark.anyio

SECRET = "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020"
PUSHED = "https://pushed.example"


@pytest.fixture
async def receiver() -> PushReceiver:
    return PushReceiver()


@pytest.fixture
async def two(url: str, tmp_path: Path, cheap: Passwords, receiver: PushReceiver) -> AsyncIterator[list[Server]]:
    async with receiving(receiver) as port:
        pushed = {"name": "pushed", "audience": PUSHED, "push_url": f"http://127.0.0.1:{port}/"}
        given: dict[str, Any] = {"data_dir": tmp_path / "data", "store": url, "secret": SECRET, "algorithm": "ES256"}
        given |= {"ssf_receivers": settings(pushed), "status_ttl": timedelta(seconds=10)}
        servers = [Server(Settings(**given), passwords=cheap) for _ in range(2)]
        await asyncio.gather(*(server.open() for server in servers))
        yield servers
        await asyncio.gather(*(server.close() for server in servers))


async def test_r9_p1_what_is_ended_at_one_is_told_once_whoever_is_asked_and_listed_at_both(
    two: list[Server], receiver: PushReceiver, client_of: Callable[[Server], Any]
) -> None:
    """Pushed once; polled at either, and acknowledged at either; the status lists of both are the same."""
    sessions = [await two[number % 2].coat.sessions.create("ann", amr=("pwd",)) for number in range(6)]
    places = [await _place(two[number % 2], session) for number, session in enumerate(sessions)]
    assert len({place["idx"] for place in places}) == 6
    ended = {str(session.id) for session in sessions[:5]}
    for number, session in enumerate(sessions[:5]):
        await two[number % 2].coat.sessions.revoke(session)
    await receiver.until(5)
    clients = [client_of(server) for server in two]
    async with asyncio.timeout(30):
        while len(await _polled(clients[0])) < 5:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)
        for server, client in zip(two, clients, strict=True):
            while sum(await _statuses(server, client, places)) < 5:  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.01)
            assert await _statuses(server, client, places) == [1] * 5 + [0]
    sets = await _polled(clients[1])
    assert {read(two[0], token)["sub_id"]["session"]["id"] for token in sets.values()} == ended
    assert await _polled(clients[0], ack=list(sets)) == await _polled(clients[1]) == {}
    assert {read(two[0], token, PUSHED)["sub_id"]["session"]["id"] for token in receiver.tokens} == ended
    assert len(receiver.tokens) == 5


async def _place(server: Server, session: Any) -> Any:
    token = (await server.coat.sessions.issue(session)).access_token
    return msgspec.json.decode(jws.verify(token, server.coat.keyring, typ="at+jwt"))["status"]["status_list"]


async def _polled(client: Any, **asked: Any) -> dict[str, str]:
    answer = await client("POST", "/ssf/poll", json={"returnImmediately": True, **asked}, bearer=TOKEN)
    assert answer.status == 200, answer.body
    return dict(answer.json["sets"])


async def _statuses(server: Server, client: Any, places: list[Any]) -> list[int]:
    answer = await client("GET", "/status-lists/0")
    if answer.status == 503:
        return []
    now, uri = server.coat.clock() / 1000, f"{server.settings.url}/status-lists/0"
    listed = status_list.verify(answer.body, server.coat.keyring, uri=uri, now=now, leeway=1)
    return [listed.statuses.status(place["idx"]) for place in places]
