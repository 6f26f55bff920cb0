"""What is sent to a Redis server is what redis-py would send, and what it answers is read as redis-py would read it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import redis.asyncio
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    InvalidResponse,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from coatcheck.stores.redis_resp import Parser, Replies, pack
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
    b"*-2\r\n",
    b"$1\r\nxy\r\n",
    b"*1\r\n!\r\n",
    b"+" + b"x" * 70_000,
]


class Connection:
    """A transport that keeps what is sent, and says what its end of a connection would say."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.replies = Replies(cast("asyncio.WriteTransport", self))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, Replies)

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True
        asyncio.get_running_loop().call_soon(self.replies.connection_lost, None)


@pytest.mark.parametrize("commands", COMMANDS)
def test_commands_are_sent_as_redis_py_sends_them(commands: list[Command]) -> None:
    packed: Any = redis.asyncio.Connection().pack_commands(commands)
    assert pack(commands) == b"".join(packed)


@pytest.mark.parametrize(("octets", "reply"), REPLIES)
def test_replies_are_read_one_after_the_other(octets: bytes, reply: object) -> None:
    assert Parser().feed(octets + octets + b":7\r\n") == [reply, reply, 7]


@pytest.mark.parametrize(("octets", "kind"), ERRORS)
def test_an_error_is_a_reply_and_inside_of_others_too(octets: bytes, kind: type[Exception]) -> None:
    alone, (first, second) = Parser().feed(octets + b"*2\r\n" + octets + b":1\r\n")
    assert [type(alone), type(first), second] == [kind, kind, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
@pytest.mark.parametrize(("octets", "reply"), REPLIES)
def test_a_reply_is_the_same_in_pieces_of_any_size(octets: bytes, reply: object, size: int) -> None:
    parser, replies = Parser(), list[object]()
    for start in range(0, len(octets), size):
        assert not replies
        replies += parser.feed(octets[start : start + size])
        assert parser.amid == (start + size < len(octets))
    assert replies == [reply]


def test_p9_parts_are_read_once_however_small_the_pieces() -> None:
    """Else a long reply would cost the square of its length."""
    parser, read = Parser(), 0
    once = parser._read

    def counted(octets: bytes, start: int, replies: list[object]) -> int:
        nonlocal read
        read += 1
        return once(octets, start, replies)

    parser._read = counted  # type: ignore[method-assign]
    octets = b"*1000\r\n" + b"$100\r\n%b\r\n" % (b"x" * 100) * 1000
    replies = [reply for start in range(0, len(octets), 10) for reply in parser.feed(octets[start : start + 10])]
    assert replies == [[b"x" * 100] * 1000]
    assert read < 4 * 1000


@pytest.mark.parametrize("octets", NO_REPLIES)
def test_p4_what_is_no_reply_is_refused(octets: bytes) -> None:
    with pytest.raises(InvalidResponse):
        Parser().feed(octets)


def test_a_server_that_is_still_loading_is_as_good_as_none() -> None:
    with pytest.raises(BusyLoadingError):
        Parser().feed(b"-LOADING still reading the log\r\n")


# -- the connection -------------------------------------------------------------------------------------------------


async def test_the_answers_of_a_batch_are_awaited_together() -> None:
    connection = Connection()
    for _ in range(2):
        asking = connection.replies.ask([("PING",), ("GET", b"k")])
        connection.replies.data_received(b"+PONG\r\n$1\r")
        assert not asking.done()
        assert not connection.replies.fresh
        connection.replies.data_received(b"\nv\r\n")
        assert await asking == [b"PONG", b"v"]
        assert connection.replies.fresh
    assert connection.sent == [pack([("PING",), ("GET", b"k")])] * 2


async def test_p4_who_speaks_unasked_is_not_asked() -> None:
    connection = Connection()
    connection.replies.data_received(b"$1\r\nv\r\n")
    assert connection.closed
    with pytest.raises(RedisError):
        connection.replies.ask([("PING",)])


async def test_p4_what_comes_for_somebody_who_waits_no_more_is_nobodys() -> None:
    connection = Connection()
    connection.replies.ask([("GET", b"k")]).cancel()
    assert not connection.replies.fresh
    with pytest.raises(RedisError):
        connection.replies.ask([("GET", b"other")])
    connection.replies.data_received(b"$1\r\nv\r\n")
    assert connection.closed


@pytest.mark.parametrize("more", [b"+OK\r\n", b"$", b"*2\r\n:1\r\n"])
async def test_p4_who_says_more_than_asked_is_not_believed(more: bytes) -> None:
    connection = Connection()
    asking = connection.replies.ask([("GET", b"k")])
    connection.replies.data_received(b"$1\r\nv\r\n" + more)
    with pytest.raises(InvalidResponse):
        await asking
    assert connection.closed


@pytest.mark.parametrize("octets", [b"hello\r\n", b"+OK\r\n-LOADING still reading the log\r\n"])
async def test_p4_what_is_no_reply_ends_the_connection(octets: bytes) -> None:
    connection = Connection()
    asking = connection.replies.ask([("PING",), ("PING",)])
    connection.replies.data_received(octets)
    with pytest.raises(RedisError):
        await asking
    assert connection.closed
    assert not connection.replies.fresh


@pytest.mark.parametrize("octets", [b"", b":1", b"$5\r\nab", b"*2\r\n:1\r\n"])
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_p4_half_a_reply_is_none(octets: bytes, error: Exception | None) -> None:
    connection = Connection()
    asking = connection.replies.ask([("PING",)])
    connection.replies.data_received(octets)
    connection.replies.eof_received()
    connection.replies.connection_lost(error)
    with pytest.raises(RedisError) as raised:
        await asking
    assert raised.value.__cause__ is error


async def test_who_has_hung_up_is_not_asked() -> None:
    left, lost, closed, there = (Connection() for _ in range(4))
    left.replies.eof_received()
    lost.replies.connection_lost(None)
    closed.closed = True
    assert [connection.replies.fresh for connection in (left, lost, closed, there)] == [False, False, False, True]
