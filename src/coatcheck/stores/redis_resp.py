"""RESP2, the protocol of Redis: commands as they are sent, and replies as they are read from an event loop's stream.

redis-py does both as well, but takes ten times as long to read a small reply, and three times as long to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from coatcheck.stores.redis_scripts import Command


def pack(commands: Sequence[Command]) -> bytes:
    """Return commands as they are sent."""
    lines: list[bytes] = []
    for command in commands:
        lines.append(b"*%d" % len(command))
        for word in command:
            octets = word if isinstance(word, bytes) else str(word).encode()
            lines += (b"$%d" % len(octets), octets)
    return b"\r\n".join([*lines, b""])


async def read_reply(stream: asyncio.StreamReader) -> Any:
    """Return what a server said: an int, octets, None, a list of these, or the ResponseError that it is.

    Raises:
        RedisError: the server is not ready, or this is no reply: the connection is of no use any more.
        OSError, EOFError: it was lost.
    """
    try:
        return await _reply(stream)
    except (ValueError, asyncio.LimitOverrunError):
        raise InvalidResponse("this is no reply of a Redis server") from None


async def _reply(stream: asyncio.StreamReader) -> Any:
    line = await stream.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else await _octets(stream, int(rest))
    if kind == b"*":
        return None if rest == b"-1" else [await _reply(stream) for _ in range(int(rest))]
    if kind == b"+":
        return rest
    if kind == b"-":
        return _error(rest)
    raise ValueError


async def _octets(stream: asyncio.StreamReader, size: int) -> bytes:
    octets = await stream.readexactly(size + 2)
    if not octets.endswith(b"\r\n"):
        raise ValueError
    return octets[:-2]


def _error(words: bytes) -> Exception:
    parser: Any = DefaultParser  # it is not typed
    error: Exception = parser.parse_error(words.decode("utf-8", "replace"))
    if isinstance(error, RedisConnectionError):
        raise error
    return error
