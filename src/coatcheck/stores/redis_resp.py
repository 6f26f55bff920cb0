"""RESP2, the protocol of Redis: commands as they are sent, and replies as they come to an event loop.

redis-py does both as well, but takes ten times as long to read a small reply, and three times as long to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from coatcheck.stores.redis_scripts import Command

Answered = Callable[[list[Any] | Exception], None]
"""Is called with what each of several commands was answered, or with why they were not."""

_INTEGER, _OCTETS, _ARRAY, _STATUS, _ERROR = b":$*+-"
_NOTHING: Final = b"-1"
_NO_PARTS: Final = (b"0", _NOTHING)
_LONGEST_LINE: Final = 65_536
_SIZES: Final = tuple(b"\r\n$%d\r\n" % size for size in range(1024))


def pack(commands: Sequence[Command]) -> bytes:
    """Return commands as they are sent."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"\r\n*%d" % len(command))
        for word in command:
            octets = word if isinstance(word, bytes) else str(word).encode()
            size = len(octets)
            parts += (_SIZES[size] if size < len(_SIZES) else b"\r\n$%d\r\n" % size, octets)
    parts.append(b"\r\n")
    return b"".join(parts)[2:]


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
        try:
            read = self._read(octets, replies)
        except ValueError:
            raise InvalidResponse("this is no reply of a Redis server") from None
        if read < len(octets):
            self._unread.append(octets[read:])
        return replies

    def _read(self, octets: bytes, replies: list[Any]) -> int:
        """Read the parts that are whole, and return where the first one begins that is not."""
        begun, end, start = self._begun, len(octets), 0
        parts, wanted = begun[-1] if begun else (replies, inf)
        while start < end:
            line = octets.find(b"\r\n", start, start + _LONGEST_LINE)
            if line < 0:
                if end - start >= _LONGEST_LINE:
                    raise ValueError
                self._missing = 1
                return start
            kind, rest, after = octets[start], octets[start + 1 : line], line + 2
            if kind == _OCTETS and rest != _NOTHING:
                stop = after + _number(rest, least=0)
                if stop + 2 > end:
                    self._missing = stop + 2 - end
                    return start
                if octets[stop : stop + 2] != b"\r\n":
                    raise ValueError
                parts.append(octets[after:stop])
                start = stop + 2
            elif kind == _ARRAY and rest not in _NO_PARTS:
                array: list[Any] = []
                parts, wanted = array, _number(rest, least=1)
                begun.append((array, wanted))
                start = after
            else:
                parts.append(_line(kind, rest))
                start = after
            while len(parts) == wanted:
                begun.pop()
                whole = parts
                parts, wanted = begun[-1] if begun else (replies, inf)
                parts.append(whole)
        return start


class Replies(asyncio.Protocol):
    """Asks a server, and tells what it answers: for one caller at a time, over one connection.

    A connection on which something comes that nobody waits for is closed, and so never used again (P4).

    Args:
        transport: the connection, which is signed in. Its octets come here from now on.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._parser = Parser()
        self._found: list[Any] = []
        self._wanted = 0
        self._answered: Answered | None = None
        self._ended = False
        transport.set_protocol(self)

    @property
    def fresh(self) -> bool:
        """Whether it can be asked: still open, and nothing left to be read."""
        return self._answered is None and not self._ended and not self._transport.is_closing()

    def ask(self, commands: bytes, count: int, answered: Answered) -> None:
        """Send commands, and have `answered` called when all of them are answered, or will not be.

        Args:
            commands: as `pack` returns them.
            count: how many they are, at least one.
            answered: hears of a RedisError if the connection was lost, or as `Parser.feed` says.

        Raises:
            RedisError: it cannot be asked.
        """
        if not self.fresh:
            raise RedisConnectionError("the connection is of no use any more")
        self._found, self._wanted, self._answered = [], count, answered
        self._transport.write(commands)  # no more than one batch waits in it, so there is no need to drain it

    def end(self, error: Exception) -> None:
        """Close the connection, and tell whoever waits why."""
        self._ended = True
        self._transport.abort()
        self._tell(error)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._answered is None:
            self.end(InvalidResponse("nobody has asked"))
            return
        try:
            self._found += self._parser.feed(data)
        except RedisError as error:
            self.end(error)
            return
        if len(self._found) < self._wanted:
            return
        if len(self._found) > self._wanted or self._parser.amid:
            self.end(InvalidResponse("the server said more than it was asked"))
            return
        self._tell(self._found)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. The transport is closed then."""
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended = True
        error = RedisConnectionError("the connection was lost")
        error.__cause__ = exc
        self._tell(error)

    def _tell(self, found: list[Any] | Exception) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(found)


def _number(digits: bytes, *, least: int) -> int:
    number = int(digits)
    if number < least:
        raise ValueError
    return number


def _line(kind: int, rest: bytes) -> Any:
    if kind == _INTEGER:
        return int(rest)
    if kind == _STATUS:
        return rest
    if kind == _ERROR:
        return _error(rest)
    if kind == _ARRAY:
        return [] if rest == b"0" else None
    if kind == _OCTETS:
        return None
    raise ValueError


def _error(words: bytes) -> Exception:
    parser: Any = DefaultParser  # it is not typed
    error: Exception = parser.parse_error(words.decode("utf-8", "replace"))
    if isinstance(error, RedisConnectionError):
        raise error
    return error
