"""Request heads that are slow or large are cut off; everything else goes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from coatcheck.server import protocol as module
from coatcheck.server.protocol import MAX_HEAD, GuardedProtocol
from coatcheck.web.asgi import Receive, Scope, Send

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

REQUEST = b"GET /path HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = f"{scope['method']} {scope['path']} {len(scope['headers'])} {len(body)}".encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
async def listening() -> AsyncIterator[tuple[ServerState, Connect]]:
    options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None}
    config, state = uvicorn.Config(_app, **options), ServerState()
    config.load()
    server = await asyncio.get_running_loop().create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0)
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        opened.append(writer)
        return reader, writer

    yield state, connect
    for writer in opened:
        writer.close()
    server.close()
    await _until(lambda: not state.connections)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.005)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Return everything until the server closes the connection."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def _answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await reader.readexactly(length)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_requests_go_through_however_they_are_cut(listening: tuple[ServerState, Connect], piece: int) -> None:
    reader, writer = await listening[1]()
    for _ in range(3):
        for start in range(0, len(REQUEST), piece):
            writer.write(REQUEST[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        assert await _answer(reader) == b"GET /path 1 0"


async def test_requests_in_one_piece_are_answered_in_their_order(listening: tuple[ServerState, Connect]) -> None:
    reader, writer = await listening[1]()
    post = b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
    writer.write(REQUEST + post + REQUEST)
    assert [await _answer(reader) for _ in range(3)] == [b"GET /path 1 0", b"POST /post 2 5", b"GET /path 1 0"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"GET /path HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /path HTTP/1.1\r\nHost: localhost\r\nX-Endless: aaa",
        b"\r\n\r\n",
        REQUEST + b"GET /pa",
        REQUEST + b"\r\n\r\n",
    ],
)
async def test_a_head_that_does_not_become_complete_loses_its_connection(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    reader, writer = await listening[1]()
    if sent.startswith(REQUEST):
        writer.write(REQUEST)
        await _answer(reader)
    writer.write(sent.removeprefix(REQUEST))
    assert await _rest(reader) == b""


async def test_one_octet_now_and_then_does_not_gain_time(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.1)
    reader, writer = await listening[1]()
    gone = asyncio.create_task(_rest(reader))

    async def drip() -> None:
        writer.write(b"GET / HTTP/1.1\r\nX-Drip: ")
        while not gone.done():
            writer.write(b"a")
            await asyncio.sleep(0.01)

    await asyncio.gather(drip(), gone, return_exceptions=True)
    assert not gone.exception()


async def test_many_half_sent_requests_are_all_gone_and_the_next_one_is_answered(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 1.0)
    state, connect = listening
    for _ in range(200):
        _, writer = await connect()
        writer.write(REQUEST[:-1])
    await _until(lambda: len(state.connections) == 200)
    await _until(lambda: not state.connections)
    reader, writer = await connect()
    writer.write(REQUEST)
    assert await _answer(reader) == b"GET /path 1 0"


async def test_the_time_for_a_head_ends_with_the_head(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body has its own limit, in the guard."""
    state, connect = listening
    _, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel")
    await _until(lambda: any(connection.cycle is not None for connection in state.connections))  # type: ignore[union-attr]
    [connection] = state.connections
    assert isinstance(connection, GuardedProtocol)
    assert connection._deadline is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"a" * MAX_HEAD,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: a\r\n" * (MAX_HEAD // 8) + b"\r\n",
        b"GET /" + b"a" * (2 * MAX_HEAD),
        b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_p9_a_large_head_is_431_and_names_the_limit(listening: tuple[ServerState, Connect], head: bytes) -> None:
    reader, writer = await listening[1]()
    writer.write(head)
    answer = await _rest(reader)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"at most 32 KiB" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_head_below_the_limit_goes_through(listening: tuple[ServerState, Connect]) -> None:
    reader, writer = await listening[1]()
    for _ in range(2):
        writer.write(REQUEST[:-2] + b"X-Large: " + b"a" * (MAX_HEAD - 200) + b"\r\n\r\n")
        assert await _answer(reader) == b"GET /path 2 0"


async def test_p9_who_does_not_read_loses_the_connection(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit such a connection, and all that waits for it, is kept for ever."""
    monkeypatch.setattr(module, "READ_SECONDS", 0.2)
    state, connect = listening
    reader, writer = await connect()
    writer.write(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await _answer(reader)
    [connection] = state.connections
    connection.transport.write(b"x" * 30_000_000)  # more than the buffers of both sockets take  # type: ignore[union-attr]
    connection.transport.close()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await _until(lambda: not state.connections)


async def test_p9_who_reads_keeps_the_connection(
    listening: tuple[ServerState, Connect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    reader, writer = await listening[1]()
    for _ in range(4):
        writer.write(REQUEST)
        assert await _answer(reader) == b"GET /path 1 0"
        await asyncio.sleep(0.03)


async def test_p9_requests_without_end_in_one_piece_are_not_kept(listening: tuple[ServerState, Connect]) -> None:
    state, connect = listening
    reader, writer = await connect()
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
    assert (await _rest(reader)).count(b"HTTP/1.1 200") <= module.MAX_WAITING
    await _until(lambda: not state.connections)


async def test_trailers_are_no_headers(listening: tuple[ServerState, Connect]) -> None:
    """RFC 9110, 6.5.1: a client behind a proxy could send what the proxy removes or overwrites."""
    reader, writer = await listening[1]()
    head = b"POST /path HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(2):
        writer.write(head + b"2\r\nab\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=b\r\n\r\n")
        assert await _answer(reader) == b"POST /path 2 2"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"hello\r\n\r\n"])
async def test_what_is_not_http_is_400(listening: tuple[ServerState, Connect], sent: bytes) -> None:
    reader, writer = await listening[1]()
    writer.write(sent)
    assert (await _rest(reader)).startswith(b"HTTP/1.1 400 ")
