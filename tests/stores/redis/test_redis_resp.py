"""What is sent to a Redis server is what redis-py would send, and what it answers is read as redis-py would read it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Connection
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    InvalidResponse,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from coatcheck.stores.redis_resp import pack, read_reply
from coatcheck.stores.redis_scripts import Command

pytestmark = pytest.mark.anyio

COMMANDS: list[list[Command]] = [
    [("PING",)],
    [("EVALSHA", b"0" * 40, 1, b"key", "text", -5, b"", b"\r\n\0\xff")],
    [("SET", "schl\u00fcssel", b"x" * 20_000), ("WAIT", 1, 333)],
]
REPLIES: list[tuple[bytes, object]] = [
    (b":1\r\n", 1),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b"+OK\r\n", b"OK"),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\na\r\n\0b\r\n", b"a\r\n\0b"),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n:0\r\n*2\r\n$1\r\nx\r\n$-1\r\n+a b\r\n", [0, [b"x", None], b"a b"]),
    (b"$100000\r\n" + b"y" * 100_000 + b"\r\n", b"y" * 100_000),
]
ERRORS: list[tuple[bytes, type[Exception]]] = [
    (b"-ERR what is that\r\n", ResponseError),
    (b"-MOVED 5 127.0.0.1:7000\r\n", MovedError),
    (b"-ASK 5 127.0.0.1:7000\r\n", AskError),
    (b"-NOSCRIPT no such script\r\n", NoScriptError),
    (b"-READONLY only a replica\r\n", ReadOnlyError),
]
NO_REPLIES = [
    b"hello\r\n",
    b"\r\n",
    b":one\r\n",
    b"$x\r\n",
    b"$-2\r\n",
    b"$1\r\nxy\r\n",
    b"*1\r\n!\r\n",
    b"+" + b"x" * 70_000,
]


def stream_of(octets: bytes, *, ends: bool = True) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    stream.feed_data(octets)
    if ends:
        stream.feed_eof()
    return stream


@pytest.mark.parametrize("commands", COMMANDS)
def test_commands_are_sent_as_redis_py_sends_them(commands: list[Command]) -> None:
    packed: Any = Connection().pack_commands(commands)
    assert pack(commands) == b"".join(packed)


@pytest.mark.parametrize(("octets", "reply"), REPLIES)
async def test_replies_are_read_and_nothing_beyond_them(octets: bytes, reply: object) -> None:
    stream = stream_of(octets + b":7\r\n")
    assert [await read_reply(stream), await read_reply(stream)] == [reply, 7]
    assert stream.at_eof()


@pytest.mark.parametrize(("octets", "kind"), ERRORS)
async def test_an_error_is_a_reply_and_inside_of_others_too(octets: bytes, kind: type[Exception]) -> None:
    assert type(await read_reply(stream_of(octets))) is kind
    first, second = await read_reply(stream_of(b"*2\r\n" + octets + b":1\r\n"))
    assert (type(first), second) == (kind, 1)


async def test_a_reply_that_comes_octet_by_octet_is_waited_for() -> None:
    octets, reply = REPLIES[8]
    stream = stream_of(b"", ends=False)
    reading = asyncio.ensure_future(read_reply(stream))
    for octet in octets:
        assert not reading.done()
        stream.feed_data(bytes([octet]))
        await asyncio.sleep(0)
    assert await reading == reply


@pytest.mark.parametrize("octets", NO_REPLIES)
async def test_p4_what_is_no_reply_ends_the_connection(octets: bytes) -> None:
    with pytest.raises(InvalidResponse):
        await read_reply(stream_of(octets, ends=False))


@pytest.mark.parametrize("octets", [b"", b":1", b"$5\r\nab", b"*2\r\n:1\r\n"])
async def test_p4_half_a_reply_is_none(octets: bytes) -> None:
    with pytest.raises(EOFError):
        await read_reply(stream_of(octets))


async def test_a_server_that_is_still_loading_is_as_good_as_none() -> None:
    with pytest.raises(BusyLoadingError):
        await read_reply(stream_of(b"-LOADING still reading the log\r\n"))
