"""RESP2, the protocol of Redis: commands as they are sent, and replies as they come to an event loop.

redis-py does both as well, but takes ten times as long to read a small reply, and three times as long to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from coatcheck.stores.redis_scripts import Command

_INTEGER, _OCTETS, _ARRAY, _STATUS, _ERROR = b":$*+-"
_LONGEST_LINE: Final = 65_536


class _Incomplete(Exception):
    """There is no whole part yet; so many octets are missing at least."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing


def pack(commands: Sequence[Command]) -> bytes:
    """Return commands as they are sent."""
    lines: list[bytes] = []
    for command in commands:
        lines.append(b"*%d" % len(command))
        for word in command:
            octets = word if isinstance(word, bytes) else str(word).encode()
            lines += (b"$%d" % len(octets), octets)
    return b"\r\n".join([*lines, b""])


class Parser:
    """Makes replies of octets as they come: each an int, octets, None, a list of these, or the ResponseError it is.

    However small the pieces are in which a reply comes, its parts are read once only.
    """

    def __init__(self) -> None:
        self._unread: list[bytes] = []
        self._missing = 0  # octets, before it is of any use to look again
        self._begun: list[tuple[list[Any], int]] = []  # arrays, from the outermost, and how many parts each will have

    @property
    def amid(self) -> bool:
        """Whether a reply has begun to come, and is not complete."""
        return bool(self._unread or self._begun)

    def feed(self, octets: bytes) -> list[Any]:
        """Return the replies that are complete with these octets.

        Raises:
            RedisError: the server is not ready, or this is no reply: the connection is of no use any more.
        """
        self._missing -= len(octets)
        if self._missing > 0:
            self._unread.append(octets)
            return []
        if self._unread:
            octets = b"".join([*self._unread, octets])
            self._unread.clear()
        replies: list[Any] = []
        start = 0
        try:
            while start < len(octets):
                start = self._read(octets, start, replies)
        except _Incomplete as more:
            self._unread.append(octets[start:])
            self._missing = more.missing
        except ValueError:
            raise InvalidResponse("this is no reply of a Redis server") from None
        return replies

    def _read(self, octets: bytes, start: int, replies: list[Any]) -> int:
        """Read the part that begins at `start`, and return where the next one begins."""
        after = octets.find(b"\r\n", start, start + _LONGEST_LINE) + 2
        if after < 2:  # nothing was found
            raise ValueError if len(octets) - start >= _LONGEST_LINE else _Incomplete(1)
        kind, rest = octets[start], octets[start + 1 : after - 2]
        reply: Any
        if kind == _OCTETS:
            reply, after = _octets(octets, after, int(rest))
        elif kind == _ARRAY and rest not in _NO_PARTS:
            self._begun.append(([], _size(rest)))
            return after
        else:
            reply = _line(kind, rest)
        while self._begun:
            parts, wanted = self._begun[-1]
            parts.append(reply)
            if len(parts) < wanted:
                return after
            reply, _ = self._begun.pop()
        replies.append(reply)
        return after


class Replies(asyncio.Protocol):
    """Asks a server, and awaits what it answers: for one caller at a time, over one connection.

    A connection on which something comes that nobody waits for is closed, and so never used again (P4).

    Args:
        transport: the connection, which is signed in. Its octets come here from now on.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._parser = Parser()
        self._found: list[Any] = []
        self._wanted = 0
        self._answer: asyncio.Future[list[Any]] | None = None  # stays if nobody waits for it any more
        self._ended = False
        transport.set_protocol(self)

    @property
    def fresh(self) -> bool:
        """Whether it can be asked: still open, and nothing left to be read."""
        return self._answer is None and not self._ended and not self._transport.is_closing()

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands, at least one; what each was answered is awaited.

        Raises:
            RedisError: see `Parser.feed`; or the connection was lost.
        """
        if not self.fresh:
            raise RedisConnectionError("the connection is of no use any more")
        octets = pack(commands)
        self._found, self._wanted = [], len(commands)
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._transport.write(octets)  # no more than one batch waits in it, so there is no need to drain it
        return answer

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        answer = self._answer
        if answer is None or answer.done():
            self._end()
            return
        try:
            self._found += self._parser.feed(data)
        except RedisError as error:
            answer.set_exception(error)
            self._end()
            return
        if len(self._found) < self._wanted:
            return
        if len(self._found) > self._wanted or self._parser.amid:
            answer.set_exception(InvalidResponse("the server said more than it was asked"))
            self._end()
            return
        self._answer = None
        answer.set_result(self._found)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. The transport is closed then."""
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended = True
        if self._answer is not None and not self._answer.done():
            error = RedisConnectionError("the connection was lost")
            error.__cause__ = exc
            self._answer.set_exception(error)

    def _end(self) -> None:
        self._ended = True
        self._transport.abort()


_NO_PARTS: Final = (b"0", b"-1")


def _octets(octets: bytes, start: int, size: int) -> tuple[bytes | None, int]:
    """Return the octets that begin at `start`, and where the next part begins."""
    if size < 0:
        if size < -1:
            raise ValueError
        return None, start
    end = start + size
    if len(octets) < end + 2:
        raise _Incomplete(end + 2 - len(octets))
    if not octets.startswith(b"\r\n", end):
        raise ValueError
    return octets[start:end], end + 2


def _size(digits: bytes) -> int:
    size = int(digits)
    if size <= 0:
        raise ValueError
    return size


def _line(kind: int, rest: bytes) -> Any:
    if kind == _INTEGER:
        return int(rest)
    if kind == _STATUS:
        return rest
    if kind == _ERROR:
        return _error(rest)
    if kind == _ARRAY:
        return [] if rest == b"0" else None
    raise ValueError


def _error(words: bytes) -> Exception:
    parser: Any = DefaultParser  # it is not typed
    error: Exception = parser.parse_error(words.decode("utf-8", "replace"))
    if isinstance(error, RedisConnectionError):
        raise error
    return error
