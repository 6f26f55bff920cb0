"""What is sent to a Redis server is what redis-py would send, and what it answers is read as redis-py would read it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any, cast

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
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

from coatcheck.errors import StoreUnavailable
from coatcheck.stores import redis_resp
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

    def ask(self, *commands: Command) -> list[object]:
        """Ask, and return the list to which the answers, or why there are none, will be added."""
        heard: list[object] = []
        self.replies.ask(pack(commands), len(commands), heard.append)
        return heard

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


SIMPLE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40)
NESTED = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=4), max_leaves=20)


def written(reply: Any) -> bytes:
    """Return a reply as a server writes it."""
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"$-1\r\n" if reply is None else b":%d\r\n" % reply


@given(st.lists(NESTED, max_size=5), st.data())
def test_replies_are_the_same_wherever_they_are_cut(replies: list[object], data: st.DataObject) -> None:
    octets, parser = b"".join(map(written, replies)), Parser()
    cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=10))
    read: list[object] = []
    for start, end in pairwise(sorted({0, *cuts, len(octets)})):
        read += parser.feed(octets[start:end])
        assert len(read) <= len(replies)
    assert read == replies
    assert not parser.amid


@given(st.lists(NESTED, min_size=1, max_size=3), st.data())
def test_p4_what_was_damaged_on_the_way_is_a_reply_or_refused(replies: list[object], data: st.DataObject) -> None:
    """Whatever the octets are, the parser says that more must come, or raises what ends the connection."""
    octets = bytearray(b"".join(map(written, replies)))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RedisError):
        Parser().feed(bytes(octets))


def test_p9_parts_are_read_once_however_small_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a long reply would cost the square of its length."""
    parser, read, once = Parser(), 0, redis_resp._number

    def counted(digits: bytes, *, least: int) -> int:
        nonlocal read
        read += 1
        return once(digits, least=least)

    monkeypatch.setattr(redis_resp, "_number", counted)
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


async def test_the_answers_of_a_batch_are_told_together() -> None:
    connection = Connection()
    for _ in range(2):
        heard = connection.ask(("PING",), ("GET", b"k"))
        connection.replies.data_received(b"+PONG\r\n$1\r")
        assert not heard
        assert not connection.replies.fresh
        connection.replies.data_received(b"\nv\r\n")
        assert heard == [[b"PONG", b"v"]]
        assert connection.replies.fresh
    assert connection.sent == [pack([("PING",), ("GET", b"k")])] * 2


async def test_p4_who_speaks_unasked_is_not_asked() -> None:
    connection = Connection()
    connection.replies.data_received(b"$1\r\nv\r\n")
    assert connection.closed
    with pytest.raises(RedisError):
        connection.ask(("PING",))


async def test_p4_nobody_is_asked_who_has_not_answered_yet() -> None:
    connection = Connection()
    heard = connection.ask(("GET", b"k"))
    with pytest.raises(RedisError):
        connection.ask(("GET", b"other"))
    connection.replies.data_received(b"$1\r\nv\r\n")
    assert heard == [[b"v"]]


async def test_p4_who_is_ended_says_why_once_and_what_comes_then_is_nobodys() -> None:
    connection = Connection()
    heard, late = connection.ask(("GET", b"k")), StoreUnavailable("too late")
    connection.replies.end(late)
    assert connection.closed
    assert not connection.replies.fresh
    connection.replies.data_received(b"$1\r\nv\r\n")
    connection.replies.connection_lost(None)
    assert heard == [late]


@pytest.mark.parametrize("more", [b"+OK\r\n", b"$", b"*2\r\n:1\r\n"])
async def test_p4_who_says_more_than_asked_is_not_believed(more: bytes) -> None:
    connection = Connection()
    heard = connection.ask(("GET", b"k"))
    connection.replies.data_received(b"$1\r\nv\r\n" + more)
    assert [type(each) for each in heard] == [InvalidResponse]
    assert connection.closed


@pytest.mark.parametrize("octets", [b"hello\r\n", b"+OK\r\n-LOADING still reading the log\r\n"])
async def test_p4_what_is_no_reply_ends_the_connection(octets: bytes) -> None:
    connection = Connection()
    heard = connection.ask(("PING",), ("PING",))
    connection.replies.data_received(octets)
    assert [isinstance(each, RedisError) for each in heard] == [True]
    assert connection.closed
    assert not connection.replies.fresh


@pytest.mark.parametrize("octets", [b"", b":1", b"$5\r\nab", b"*2\r\n:1\r\n"])
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_p4_half_a_reply_is_none(octets: bytes, error: Exception | None) -> None:
    connection = Connection()
    heard = connection.ask(("PING",))
    connection.replies.data_received(octets)
    connection.replies.eof_received()
    connection.replies.connection_lost(error)
    [raised] = heard
    assert isinstance(raised, RedisError)
    assert raised.__cause__ is error


async def test_who_has_hung_up_is_not_asked() -> None:
    left, lost, closed, there = (Connection() for _ in range(4))
    left.replies.eof_received()
    lost.replies.connection_lost(None)
    closed.closed = True
    assert [connection.replies.fresh for connection in (left, lost, closed, there)] == [False, False, False, True]
