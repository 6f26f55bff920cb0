"""A connection that redis-py has opened is read without it from then on, and is used while it is in order (P4)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import RedisError

from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_scripts import FORGET, Call, call
from coatcheck.stores.redis_wire import LoopDrive, Pool, Wire

pytestmark = pytest.mark.anyio

TOUCHED = [("GET", b"key")]
Answers = Callable[[bytes], bytes]


class Server:
    """A server that says what a function makes of what it hears, and whatever else it is told to say."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.heard: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while words := await reader.read(65_536):
            self.heard.append(words)
            writer.write(self._answers(words))
        writer.close()


@asynccontextmanager
async def served(answers: Answers, **arguments: Any) -> AsyncIterator[tuple[Server, Wire]]:
    server = Server(answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        wire = LoopDrive(1, 10).wire(listening.sockets[0].getsockname(), arguments, tls=False)
        yield server, wire
        await wire.drop()
        for writer in server.writers:
            writer.close()


async def until_not_fresh(wire: Wire) -> None:
    async with asyncio.timeout(10):
        while await wire.fresh():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


@pytest.fixture
async def wire(valkey: Any) -> AsyncIterator[Wire]:
    wire = LoopDrive(1, 10).wire(("127.0.0.1", valkey.port), {"db": 0}, tls=False)
    yield wire
    await wire.drop()


async def test_a_batch_larger_than_any_buffer_is_answered(wire: Wire, prefix: str) -> None:
    """The server answers the first of it while the last of it is not yet sent."""
    keys = [f"{prefix}:{number}" for number in range(100)]
    values = {key: key.encode() * 6000 for key in keys}
    batch = [command for key in keys for command in (("SET", key, values[key], "PX", 60_000), ("GET", key))]
    replies = await wire.exchange(batch)
    assert replies == [reply for key in keys for reply in (b"OK", values[key])]
    assert await wire.exchange([("MGET", *keys), ("PING",)]) == [list(values.values()), b"PONG"]
    assert await wire.fresh()


async def test_a_connection_is_fresh_when_it_is_open_and_no_sooner(wire: Wire) -> None:
    assert not await wire.fresh()
    assert await wire.exchange([("PING",)]) == [b"PONG"]
    assert await wire.fresh()
    await wire.drop()
    assert not await wire.fresh()


async def test_p4_who_says_too_much_while_we_sign_in_is_not_asked() -> None:
    """What it said in advance would be taken for the answer."""
    async with served(lambda _: b"+OK\r\n$5\r\nother\r\n", db=1) as (server, wire):
        with pytest.raises(RedisError):
            await wire.exchange(TOUCHED)
        assert not await wire.fresh()
        assert not [words for words in server.heard if b"GET" in words]


async def test_p4_a_reply_that_nobody_waits_for_ends_the_connection() -> None:
    async with served(lambda _: b"$1\r\nv\r\n") as (server, wire):
        assert await wire.exchange(TOUCHED) == [b"v"]
        assert await wire.fresh()
        server.writers[0].write(b"$5\r\nother\r\n")
        await until_not_fresh(wire)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_the_server_has_closed_is_not_used(reset: bool) -> None:
    """Whether it says so, or resets it."""
    async with served(lambda _: b"$1\r\nv\r\n") as (server, wire):
        await wire.exchange(TOUCHED)
        if reset:
            there: socket.socket = server.writers[0].get_extra_info("socket")
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.writers[0].transport.abort()
        server.writers[0].close()
        await until_not_fresh(wire)


@pytest.mark.parametrize("said", [b"", b"$5\r\not"])
async def test_p4_who_is_cancelled_takes_the_connection_along(said: bytes) -> None:
    """The next one gets a connection of its own, and the answer to its own question."""
    answers = iter([said, b"$1\r\nv\r\n"])
    async with served(lambda _: next(answers)) as (server, wire):
        wires = [LoopDrive(1, 10).wire(server_address(wire), {}, tls=False), wire]
        pool = Pool(wires.pop, asyncio.Semaphore(1))
        first = asyncio.create_task(pool.exchange(TOUCHED))
        async with asyncio.timeout(10):
            while not server.heard:  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await pool.exchange(TOUCHED) == [b"v"]
        assert len(server.writers) == 2
        await pool.close()


async def test_what_a_server_has_done_is_not_asked_again(valkey: Any, prefix: str) -> None:
    """Of a batch only that goes again for which it wanted a script; and what is empty needs no server."""
    store = RedisStore.from_url(valkey.url, prefix=prefix)
    await store.open()
    done, again = f"{prefix}:{{x}}done".encode(), f"{prefix}:{{x}}again".encode()
    valkey.ask("SCRIPT", "FLUSH")
    calls = [Call(done, ("INCR", done)), Call(again, call(FORGET, (again,), 0)), Call(done, ("INCR", done))]
    assert await store._here().link.send(calls) == [1, 0, 2]
    assert valkey.ask("GET", done) == b"2"
    assert await store._here().link.send([]) == []
    await store.close()


def server_address(wire: Any) -> Any:
    return wire._connection.host, wire._connection.port
