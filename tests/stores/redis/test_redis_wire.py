"""A connection that redis-py has opened is read without it from then on, and is used while it is in order (P4)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_drive import LoopDrive, ThreadDrive
from coatcheck.stores.redis_pool import LoopGate, Pool
from coatcheck.stores.redis_resp import pack
from coatcheck.stores.redis_scripts import FORGET, Call, call
from coatcheck.stores.redis_wire import Wire

pytestmark = pytest.mark.anyio

TOUCHED = [("GET", b"key")]
Answers = Callable[[bytes], bytes]
NEVER = 3600.0


class Server:
    """A server that says what a function makes of what it hears, and whatever else it is told to say."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.heard: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(ConnectionResetError):  # from Python 3.12 on asyncio reports what a server's task ends with
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


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)


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
        pool = Pool(wires.pop, LoopGate(1))
        first = asyncio.create_task(pool.exchange(TOUCHED))
        await until(lambda: server.heard)
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


# -- at once --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pooled(answers: Answers, seconds: float = 10) -> AsyncIterator[tuple[Server, Pool]]:
    """Give a pool of one connection, which is not opened yet."""
    async with served(answers) as (server, wire):
        drive = LoopDrive(1, seconds)
        pool = Pool(lambda: drive.wire(server_address(wire), {}, tls=False), LoopGate(1))
        yield server, pool
        await pool.close()


async def test_p9_an_idle_connection_is_asked_at_once_and_no_other() -> None:
    """Not one that must be opened first, nor beside one that is asked: there are no more than the gate lets through."""
    async with pooled(lambda words: b"$1\r\nv\r\n" * words.count(b"GET")) as (server, pool):
        heard: list[object] = []
        assert not pool.ask(TOUCHED, heard.append)
        assert await pool.exchange(TOUCHED) == [b"v"]
        assert pool.ask(TOUCHED * 2, heard.append)
        assert not pool.ask(TOUCHED, heard.append)
        await until(lambda: heard)
        assert heard == [[b"v", b"v"]]
        assert len(server.writers) == 1


async def test_who_asks_at_once_pushes_in_front_of_nobody() -> None:
    """Whoever waits for a connection is next when it becomes free."""
    async with pooled(lambda _: b"$1\r\nv\r\n") as (_, pool):
        await pool.exchange(TOUCHED)
        pushed: list[bool] = []
        assert pool.ask(TOUCHED, lambda _: pushed.append(pool.ask(TOUCHED, lambda _: None)))
        waiting = asyncio.ensure_future(pool.exchange(TOUCHED))
        assert await waiting == [b"v"]
        assert pushed == [False]


async def test_p6_who_does_not_answer_at_once_is_late_in_time() -> None:
    """The connection is closed, and the next one who asks has another."""
    answers = iter([b"$1\r\nv\r\n", b"$1\r\n", b"$1\r\nw\r\n"])
    async with pooled(lambda _: next(answers), seconds=0.1) as (server, pool):
        heard: list[object] = []
        await pool.exchange(TOUCHED)
        assert pool.ask(TOUCHED, heard.append)
        await until(lambda: heard)
        assert [str(each) for each in heard] == ["the Redis server did not answer within 0.1 s"]
        assert not pool.ask(TOUCHED, heard.append)
        assert await pool.exchange(TOUCHED) == [b"w"]
        assert len(server.writers) == 2


async def test_p4_who_is_lost_amid_an_answer_is_told_and_not_asked_again() -> None:
    async with pooled(lambda words: b"$1\r\nv\r\n" if b"GET" in words else b"$1\r\n") as (server, pool):
        heard: list[object] = []
        await pool.exchange(TOUCHED)
        assert pool.ask([("PING",)], heard.append)
        await until(lambda: len(server.heard) == 2)
        server.writers[0].close()
        await until(lambda: heard)
        assert [type(each) for each in heard] == [RedisConnectionError]
        assert not pool.ask(TOUCHED, heard.append)
        assert await pool.exchange(TOUCHED) == [b"v"]
        assert len(server.writers) == 2


async def test_p4_a_connection_that_is_asked_at_once_has_nothing_left_to_be_read() -> None:
    async with pooled(lambda _: b"$1\r\nv\r\n") as (server, pool):
        await pool.exchange(TOUCHED)
        server.writers[0].write(b"$5\r\nother\r\n")
        [wire] = pool._idle
        await until_not_fresh(wire)
        assert not pool.ask(TOUCHED, list[object]().append)
        assert await pool.exchange(TOUCHED) == [b"v"]


def test_where_no_event_loop_runs_nothing_is_asked_at_once(valkey: Any) -> None:
    """A connection of a thread blocks whoever asks; its gate lets through as many as another one's."""
    drive = ThreadDrive(1, 10)
    wire, gate = drive.wire(("127.0.0.1", valkey.port), {}, tls=False), drive.gate()
    assert not wire.ask(pack(TOUCHED), 1, list[object]().append)
    assert gate.enter()
    assert not gate.enter()
    gate.release()
    assert gate.enter()


async def test_what_has_begun_before_has_no_more_time_left() -> None:
    """A call that goes on in a task, after its server was asked at once."""
    drive = LoopDrive(1, NEVER)
    with pytest.raises(StoreUnavailable):
        await drive.in_time(asyncio.Event().wait(), until=drive.deadline() - NEVER)


def server_address(wire: Any) -> Any:
    return wire._connection.host, wire._connection.port
