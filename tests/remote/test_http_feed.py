"""HTTPFeed: the protocol of a feed over HTTP, as it is heard; wrong content is silence, never a crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from auth_server import TOKEN, AuthServer
from hypothesis import given
from hypothesis import strategies as st

from coatcheck import Coatcheck, ConfigurationError, Keyring, Policy, Revoked, StoreUnavailable
from coatcheck.core.revocation import Revoked as Entry
from coatcheck.feed import Batch
from coatcheck.feeds.http import HTTPFeed
from coatcheck.remote import events
from coatcheck.remote.events import MAX_EVENT, EventReader
from coatcheck.remote.origin import NotAsked

pytestmark = pytest.mark.anyio

LATER = 2**42


@pytest.fixture
def feed(auth: AuthServer) -> HTTPFeed:
    return HTTPFeed(auth.url, TOKEN)


def publish(auth: AuthServer, *entries: Entry) -> None:
    auth.do(auth.server.coat.feed.publish(entries, 0))


async def heard(feed: HTTPFeed, position: int, enough: Callable[[list[Batch]], bool]) -> list[Batch]:
    found: list[Batch] = []
    async with asyncio.timeout(30), aclosing(feed.follow(position)) as batches:
        async for batch in batches:
            found.append(batch)
            if enough(found):
                break
    return found


async def test_a_follower_hears_all_after_its_position_in_order_and_the_heartbeats(
    auth: AuthServer, feed: HTTPFeed
) -> None:
    publish(auth, Entry(session_id="before", until=LATER))
    snapshot = await feed.snapshot(0)
    assert snapshot.after == 0
    assert snapshot.revoked[-1].session_id == "before"
    wanted = (Entry(subject='\x00é"\n\U0001f9e5', before=7, until=LATER), Entry(session_id="after", until=LATER))
    asyncio.get_running_loop().call_later(0.2, publish, auth, *wanted)
    found = await heard(feed, snapshot.position, lambda found: any(batch.revoked for batch in found))
    assert tuple(entry for batch in found for entry in batch.revoked) == wanted
    assert [batch.after for batch in found] == [snapshot.position] * len(found)
    assert found[-1].position == snapshot.position + 2
    assert len(found) > 1, "heartbeats came before"
    again = await heard(feed, snapshot.position, lambda found: True)
    assert again[0].revoked == wanted, "whoever comes back goes on where it was"


async def test_a_position_that_was_never_reached_is_a_gap(feed: HTTPFeed) -> None:
    [batch] = await heard(feed, 10**9, lambda found: True)
    assert batch.after != 10**9


async def test_a_large_snapshot_and_a_large_batch_arrive_whole(auth: AuthServer, feed: HTTPFeed) -> None:
    position = (await feed.snapshot(0)).position
    names = {f"{n:022}" for n in range(3000)}
    publish(auth, *(Entry(session_id=name, until=LATER) for name in names))
    assert names <= {entry.session_id for entry in (await feed.snapshot(0)).revoked}
    found = await heard(feed, position, lambda found: found[-1].position >= position + 3000)
    assert names == {entry.session_id for batch in found for entry in batch.revoked}


async def test_nothing_is_published_here(feed: HTTPFeed) -> None:
    await feed.publish((), 0)
    with pytest.raises(ConfigurationError, match="auth server"):
        await feed.publish((Entry(session_id="a", until=LATER),), 0)


async def test_close_ends_followers(feed: HTTPFeed) -> None:
    await feed.open()
    async for _ in feed.follow(0):
        await feed.close()


async def test_a_coatcheck_of_its_own_can_follow_it(auth: AuthServer, feed: HTTPFeed) -> None:
    """A resource server that keeps sessions of its own as well: with the issuer's keys, and the issuer's feed."""
    ring = Keyring.from_jwks(auth.server.coat.keyring.jwks())
    token = auth.token("zoe")
    async with Coatcheck(keyring=ring, policy=Policy(issuer=auth.url), feed=feed) as coat:
        assert coat.verifier.verify(token).subject == "zoe"
        auth.revoke_all("zoe")
        async with asyncio.timeout(30):
            while True:
                try:
                    coat.verifier.verify(token)
                except Revoked:
                    break
                await asyncio.sleep(0.01)


# -- what a server may say instead


@pytest.fixture
def speaking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "SILENCE", 0.2)
        patch.setattr(events, "_PAUSES", (0.0, 0.02))
        yield


def event(position: int = 1, **members: Any) -> bytes:
    said = {"after": 0, "position": position, "elapsed": 0, **members}
    return b"event: heartbeat\ndata: " + json.dumps(said).encode() + b"\n\n"


WRONG = {
    "a page": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>" + event(),
    "a redirect": b"HTTP/1.1 301 Moved\r\nlocation: /elsewhere\r\n\r\n" + event(),
    "an error": b"HTTP/1.1 503 No\r\ncontent-type: text/event-stream\r\n\r\n" + event(),
    "not JSON": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: heartbeat\ndata: {\n\n",
    "no position": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: heartbeat\ndata: {}\n\n",
    "not UTF-8": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: heartbeat\ndata: \xff\n\n",
    "another type": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event(position="1"),  # type: ignore[arg-type]
    "deep": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: heartbeat\ndata: "
    + b"[" * 9999
    + b"\n\n",
    "old news": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event(elapsed=-1000),
    "another event": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    + event().replace(b"heartbeat", b"other"),
    "no end of a line": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: " + b"x" * (2 * MAX_EVENT),
    "no end of an event": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"data: xxxx\n" * 200_000,
    "nothing": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
}
GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\r\n\r\n" + event(7).replace(b"\n", b"\r\n")


@pytest.fixture
async def script() -> AsyncIterator[tuple[HTTPFeed, list[bytes]]]:
    """A feed whose server says the next line of a script to each connection, and the last one for ever."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(lines.pop(0) if len(lines) > 1 else lines[0])
            await reader.read()  # open until the other end closes it
        except OSError:
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield HTTPFeed(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN), lines


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_content_is_silence_and_the_next_connection_is_heard(
    wrong: str, script: tuple[HTTPFeed, list[bytes]], speaking: None, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: whatever comes instead of the feed leads to a new try, and to nothing else."""
    feed, lines = script
    lines += [WRONG[wrong], WRONG[wrong], GOOD]
    assert [batch.position for batch in await heard(feed, 0, lambda found: True)] == [7]
    assert lines == [GOOD]
    assert TOKEN not in caplog.text


async def test_trouble_is_logged_once_and_so_is_its_end(
    script: tuple[HTTPFeed, list[bytes]], speaking: None, caplog: pytest.LogCaptureFixture
) -> None:
    feed, lines = script
    lines += [WRONG["an error"]] * 5 + [GOOD]
    await heard(feed, 0, lambda found: True)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the feed is not heard", "the feed is heard again",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>",
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"after":0,"position":1,"revoked":[{}]}',
        b"HTTP/1.1 401 No\r\n\r\n",
    ],
)
async def test_a_snapshot_that_cannot_be_read_is_none(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(StoreUnavailable):
            await HTTPFeed(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN).snapshot(0)


@given(st.lists(st.integers(1, 9), max_size=60))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b": hi\n\nid: 1\nevent: revoked\ndata: a\ndata:b\n\nevent:other\ndata: c\n\r\n"
    stream += b"event: heartbeat\r\ndata: d\r\n\r\n"
    reader, found, rest = EventReader(), list[bytes](), stream
    for cut in [*cuts, len(stream)]:
        found += reader.take(rest[:cut])
        rest = rest[cut:]
    assert found == [b"a\nb", b"d"]


def test_an_event_has_a_size_that_it_may_have() -> None:
    """P9"""
    reader, line = EventReader(), b"data: " + b"x" * (MAX_EVENT // 4) + b"\n"
    for _ in range(3):
        assert reader.take(line) == []
    with pytest.raises(NotAsked):
        reader.take(line)


async def test_one_feed_serves_several_event_loops(auth: AuthServer, feed: HTTPFeed) -> None:
    def follow() -> None:
        asyncio.run(heard(feed, 0, lambda found: True))

    await asyncio.gather(*(asyncio.to_thread(follow) for _ in range(3)))
