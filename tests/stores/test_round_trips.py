"""What the requests in flight ask of the server that holds the sessions: one round trip to read, one more to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from postgres_sent import statements
from redis_sent import round_trips

from coatcheck import Coatcheck, Policy
from coatcheck.core.record import pack
from coatcheck.feeds.local import LocalFeed
from coatcheck.stores.postgres_rows import LOAD, LOAD_MANY, REPLACE, TOUCH
from coatcheck.stores.redis import RedisStore
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio

IN_FLIGHT = 16
Sent = list[str]


STATEMENTS = {
    LOAD.query: "load", LOAD_MANY.query: "load", REPLACE.all.query: "replace", TOUCH.all.query: "touch"
}  # fmt: skip
# What the requests of one tick send: if they only read, if they change something, if it is time to note their use.
EXPECTED = {
    "redis": (["MGET"], ["MGET", "EVAL EVALSHA"], ["MGET", "EVALSHA"]),  # EVAL asks about the log
    "postgres": (["load"], ["load", "replace"], ["load", "touch"]),
}


@pytest.fixture(params=EXPECTED)
async def store(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Any]:
    made: Any
    if request.param == "redis":
        made = RedisStore.from_url(request.getfixturevalue("single_url"), prefix=prefix, allow_volatile=True)
    else:
        made = request.getfixturevalue("make")()
    await made.open()
    yield made
    await made.close()


def listed(store: Any) -> list[Any]:
    return round_trips(store) if isinstance(store, RedisStore) else statements(store)


def name_of(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def names(sent: Sequence[Any]) -> Sent:
    """Return what was sent by name: statements have one, and the commands of a round trip one each."""
    return [
        STATEMENTS[each] if isinstance(each, str) else " ".join(sorted({name_of(command[0]) for command in each}))
        for each in sent
    ]


def kind(store: Any) -> str:
    return "redis" if isinstance(store, RedisStore) else "postgres"


async def serve(coat: Coatcheck, cookies: list[bytes], handle: Callable[[Any], object]) -> None:
    """Have a request with each of the cookies served, all of them at once."""

    async def app(scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        handle(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def request(cookie: bytes) -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        headers = [(b"host", b"example.com"), (b"cookie", b"__Host-session=" + cookie)]
        scope = {"type": "http", "method": "GET", "scheme": "https", "path": "/", "headers": headers, "client": None}
        await middleware(scope, receive, send)
        return statuses[0]

    middleware = CoatcheckMiddleware(app, coatcheck=coat)
    assert await asyncio.gather(*map(request, cookies)) == [200] * len(cookies)


def change(session: Any) -> None:
    session["n"] += 1


@pytest.mark.parametrize("sessions", [IN_FLIGHT, 1])
async def test_requests_in_flight_are_one_round_trip_and_what_only_reads_writes_nothing(
    store: Any, sessions: int
) -> None:
    """Sixteen requests, of as many sessions or of one: reading is one command, and so is what they write (S21)."""
    async with Coatcheck(store, feed=LocalFeed()) as coat:
        made = [await coat.sessions.create(f"user{n}", data={"n": pack(0)}) for n in range(sessions)]
        cookies = [session.cookie.value.encode() for session in made if session.cookie is not None]
        reading, writing, _ = EXPECTED[kind(store)]
        sent = listed(store)
        await serve(coat, cookies * (IN_FLIGHT // sessions), lambda session: session["n"])
        assert names(sent) == reading
        if sessions == IN_FLIGHT:
            sent.clear()
            await serve(coat, cookies, change)
            assert names(sent) == writing
            loaded = await asyncio.gather(*(coat.sessions.find(session.id or "") for session in made))
            assert [session["n"] for session in loaded] == [1] * sessions


async def test_uses_that_are_noted_in_one_tick_are_one_round_trip(store: Any) -> None:
    async with Coatcheck(store, policy=Policy(touch_every=timedelta(0)), feed=LocalFeed()) as coat:
        made = [await coat.sessions.create(f"user{n}", data={"n": pack(0)}) for n in range(IN_FLIGHT)]
        cookies = [session.cookie.value.encode() for session in made if session.cookie is not None]
        sent = listed(store)
        await serve(coat, cookies, lambda session: session["n"])
        assert names(sent)[:2] == EXPECTED[kind(store)][2]
