"""The feed over HTTP, the server's half: who may hear it, how it goes on, and what it costs at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import uvicorn
from hearing import LATER, entries
from uvicorn.server import ServerState

from coatcheck import StoreUnavailable
from coatcheck.core.revocation import Revoked
from coatcheck.errors import ConfigurationError
from coatcheck.feed import Batch
from coatcheck.feeds.local import LocalFeed
from coatcheck.server import feed_endpoint, feed_hub, protocol
from coatcheck.server.app import create_app
from coatcheck.server.feed_endpoint import FeedEndpoint
from coatcheck.server.feed_hub import FeedHub
from coatcheck.server.protocol import GuardedProtocol
from coatcheck.server.settings import Settings
from coatcheck.testing import SettableClock
from coatcheck.testing.clock import START

if TYPE_CHECKING:
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

ONE, OTHER = "a-feed-token-of-32-letters-or-more", "the-feed-token-that-comes-after-it"
PATHS = ("/feed", "/feed/snapshot")


# -- who may hear it


@pytest.fixture
async def client(make_server: Callable[..., Awaitable[Server]], client_of: Callable[..., Client]) -> Client:
    return client_of(await make_server(feed_token=f" {ONE}\n{OTHER} "))


async def test_without_a_feed_token_there_is_no_feed(server: Server, client_of: Callable[..., Client]) -> None:
    for path in PATHS:
        for bearer in (None, ONE):
            answer = await client_of(server)("GET", path, bearer=bearer)
            assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_who_has_no_feed_token_is_refused(client: Client) -> None:
    wrong = 'Bearer error="invalid_token"'
    for path in PATHS:
        for headers, challenge in (
            ({}, "Bearer"),
            ({"cookie": f"__Host-access={ONE}"}, "Bearer"),
            ({"authorization": f"Bearer {ONE}x"}, wrong),
            ({"authorization": f"Bearer {ONE[:-1]}"}, wrong),
            ({"authorization": f"Bearer {ONE} {OTHER}"}, wrong),
            ({"authorization": "Bearer "}, wrong),
            ({"authorization": f"Basic {ONE}"}, wrong),
            ({"authorization": ONE}, wrong),
            ({"authorization": "Bearer ü"}, wrong),
        ):
            answer = await client("GET", path, headers=headers)
            assert (answer.status, answer.header("www-authenticate")) == (401, challenge), headers
            assert answer.header("cache-control") == "no-store"
            assert ONE not in answer.body.decode()


async def test_a_users_access_token_is_no_feed_token(server: Server, client: Client) -> None:
    session = await server.coat.sessions.create("ann", amr=("pwd",))
    token = (await server.coat.sessions.issue(session)).access_token
    assert (await client("GET", "/feed/snapshot", bearer=token)).status == 401


async def test_any_of_the_tokens_will_do(client: Client) -> None:
    """So one can be exchanged for another without a gap."""
    for bearer in (ONE, OTHER):
        answer = await client("GET", "/feed/snapshot", headers={"authorization": f"bEaReR {bearer}"})
        assert (answer.status, answer.header("content-type")) == (200, "application/json")
        assert answer.header("cache-control") == "no-store"
        assert answer.json["revoked"] == []


async def test_there_is_nothing_but_get(client: Client) -> None:
    for path in PATHS:
        for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            answer = await client(method, path, bearer=ONE)
            assert (answer.status, answer.header("allow")) == (405, "GET")


async def test_a_position_that_is_none_is_told_so(client: Client) -> None:
    targets = ["?after=x", "?after=-1", "?after=1&after=2", "?after=" + "1" * 20, f"?after={2**63}"]
    asked: list[tuple[str, dict[str, str]]] = [(f"/feed{each}", {}) for each in targets]
    for target, headers in [*asked, ("/feed", {"last-event-id": "1.5"}), ("/feed", {"last-event-id": "²"})]:
        answer = await client("GET", target, bearer=ONE, headers=headers)
        assert (answer.status, answer.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize("token", ["short", "x" * 40, f"{ONE} short"])
def test_a_feed_token_that_could_be_guessed_is_refused_at_the_start(token: str, tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="COATCHECK_FEED_TOKEN") as refused:
        Settings.read({}, {"COATCHECK_FEED_TOKEN": token})
    assert token not in str(refused.value)
    (tmp_path / "tokens").write_text(f"{ONE}\n{OTHER}\n")
    settings = Settings.read({}, {"COATCHECK_FEED_TOKEN_FILE": str(tmp_path / "tokens")})
    assert settings.feed_tokens == (ONE, OTHER)
    assert ONE not in repr(settings)


# -- while it is heard, and while not


class Silent(LocalFeed):
    """A feed whose store is away."""

    away = True

    async def snapshot(self, now: int) -> Batch:
        if self.away:
            raise StoreUnavailable("the store is away")
        return await super().snapshot(now)


async def test_a_feed_that_is_not_heard_is_not_passed_on_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: no heartbeat is made up."""
    monkeypatch.setattr(feed_hub, "_PATIENCE_SECONDS", 0.05)
    feed = Silent()
    hub = FeedHub(feed, clock=SettableClock())
    endpoint = FeedEndpoint(hub, [ONE])
    for path in PATHS:
        answer = await _ask(endpoint, path)
        assert (answer[0]["status"], dict(answer[0]["headers"])[b"retry-after"]) == (503, b"1")
    feed.away = False
    monkeypatch.setattr(feed_hub, "_PATIENCE_SECONDS", 30)
    await hub.open()
    monkeypatch.setattr(feed_hub, "_ALIVE", -1)
    monkeypatch.setattr(feed_hub, "_PATIENCE_SECONDS", 0.05)
    with pytest.raises(StoreUnavailable):
        await hub.open()
    await hub.close()


class Slow(Silent):
    """A feed with so much in it that it takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def snapshot(self, now: int) -> Batch:
        await self.goes_on.wait()
        return await super().snapshot(now)


@pytest.mark.parametrize("away", [False, True])
async def test_a_snapshot_that_takes_a_while_begins_with_signs_of_life(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White space, which JSON allows; if it comes to nothing, that is no JSON, and no snapshot."""
    monkeypatch.setattr(feed_endpoint, "_SIGN_OF_LIFE_SECONDS", 0.01)
    feed = Slow()
    feed.away = away
    hub, sent = FeedHub(feed, clock=SettableClock()), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message.get("body"))
        if len(sent) == 5:
            feed.goes_on.set()

    headers = [(b"authorization", b"Bearer " + ONE.encode())]
    scope = {"type": "http", "method": "GET", "path": "/feed/snapshot", "query_string": b"", "headers": headers}
    async with asyncio.timeout(30):
        await FeedEndpoint(hub, [ONE])(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    start, *signs = sent[:5]
    assert start is None
    assert signs == [b"\n"] * 4
    body = b"".join(sent[5:])
    assert not body.strip() if away else msgspec.json.decode(body)["after"] == 0
    await hub.close()


async def _ask(endpoint: FeedEndpoint, path: str) -> list[Any]:
    """Ask with a token, and go away as soon as something has come."""
    came, sent = asyncio.Event(), list[Any]()

    async def receive() -> Any:
        await came.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            came.set()

    headers = [(b"authorization", b"Bearer " + ONE.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    async with asyncio.timeout(30):
        await endpoint(scope, receive, send)
    return sent


async def test_more_listeners_than_there_may_be_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """P9; and whoever has gone away makes room."""
    hub = FeedHub(LocalFeed(), clock=SettableClock())
    monkeypatch.setattr(feed_endpoint, "MOST_LISTENERS", 1)
    endpoint = FeedEndpoint(hub, [ONE])
    for _ in range(3):
        assert (await _ask(endpoint, "/feed"))[0]["status"] == 200
    monkeypatch.setattr(feed_endpoint, "MOST_LISTENERS", 0)
    assert (await _ask(endpoint, "/feed"))[0]["status"] == 503
    await hub.close()


# -- over a real connection


@pytest.fixture
async def connect(
    make_server: Callable[..., Awaitable[Server]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]]:
    """Open connections to the whole application, under the protocol that cuts off whoever is slow."""
    server = await make_server(feed_token=ONE)
    options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None}
    config, state = uvicorn.Config(create_app(server), **options), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0)
    opened: list[asyncio.StreamWriter] = []

    async def connect(**more: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        opened.append(writer)
        fields = {"Host": "localhost", "Authorization": f"Bearer {ONE}", **more}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET /feed HTTP/1.1\r\n{head}\r\n".encode())
        return reader, writer

    connect.server, connect.state = server, state  # type: ignore[attr-defined]
    yield connect
    for writer in opened:
        writer.transport.abort()
    listening.close()
    async with asyncio.timeout(30):
        while state.connections:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.01)


async def test_a_stream_says_what_it_is_and_outlives_the_limits_for_slow_clients(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.2)
    monkeypatch.setattr("coatcheck.feeds.sqlite._HEARTBEAT", 0.1)
    reader, _ = await connect()
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        for name in (b"content-type: text/event-stream", b"cache-control: no-store", b"x-accel-buffering: no"):
            assert name in head
        assert b"x-content-type-options: nosniff" in head
        for _ in range(6):
            await reader.readuntil(b"event: heartbeat\ndata: ")
        await connect.server.coat.feed.publish(entries("a"), START)
        await reader.readuntil(b"event: revoked\ndata: ")
        said = msgspec.json.decode(await reader.readuntil(b"\n"))
    assert said["revoked"] == [{"until": LATER, "session_id": "a"}]
    assert said["position"] == said["after"] + 1 == 1
    assert said["elapsed"] > 300


async def test_a_reader_that_does_not_read_is_dropped(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: it holds one event, and not for long; the others hear on."""
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.2)
    slow, _ = await connect()
    slow._transport.pause_reading()
    quick, _ = await connect()
    subject = "x" * 255
    async with asyncio.timeout(30):
        await quick.readuntil(b"heartbeat")
        reading = asyncio.create_task(_read_on(quick))
        while len(connect.state.connections) == 2:
            many = tuple(Revoked(subject=f"{n}{subject}"[:255], before=1, until=LATER) for n in range(2000))
            await connect.server.coat.feed.publish(many, START)
            await asyncio.sleep(0.05)
        assert not reading.done()
        reading.cancel()
    assert len(connect.state.connections) == 1


async def _read_on(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def test_a_stream_ends_after_a_while_and_with_the_server(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.feeds.sqlite._HEARTBEAT", 0.1)
    lasting, _ = await connect()
    await lasting.readuntil(b"heartbeat")
    monkeypatch.setattr(feed_endpoint, "LIFE_MS", (150, 150))
    short, _ = await connect(Last_Event_ID="0")
    async with asyncio.timeout(30):
        assert (await short.read()).endswith(b"0\r\n\r\n")
        connect.server.feed_hub.end()
        assert (await lasting.read()).endswith(b"0\r\n\r\n")
