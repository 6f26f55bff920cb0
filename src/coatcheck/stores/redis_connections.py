"""The connections of a RedisStore: those of each event loop, and those of the threads of a process without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, cast

from coatcheck.run import running_loop
from coatcheck.stores.coalesce import Asked
from coatcheck.stores.redis_drive import Ask, Drive, LoopDrive, ThreadDrive
from coatcheck.stores.redis_link import RedisLink
from coatcheck.stores.redis_scripts import Call
from coatcheck.stores.redis_url import Target
from coatcheck.stores.redis_waiting import Wait
from coatcheck.stores.redis_wire import Reply

_CHUNK = 500


class Here:
    """The connections of one event loop, or of the threads of a process that has none."""

    def __init__(self, drive: Drive, link: RedisLink) -> None:
        self.drive, self.link = drive, link
        self.opening = drive.gate(1)
        self.load: Final = drive.together(self._load_all, self._load_at_once)
        """Returns what is stored under a key, fetched together with what else is asked for in this tick."""
        self._asks: dict[Wait | None, Ask[Call, Reply]] = {}

    def ask(self, call: Call, wait: Wait | None = None) -> Awaitable[Reply]:
        """Send a call, together with those of this tick that wait for the same; its answer is awaited.

        Whoever stops awaiting it stops nothing: what was asked is carried out. It raises StoreUnavailable if the call
        was not answered, or not in time.
        """
        ask = self._asks.get(wait)
        if ask is None:
            at_once = partial(self._send_at_once, wait)
            ask = self._asks[wait] = self.drive.together(partial(self.link.send, wait=wait), at_once)
        return ask(call)

    async def fetch(self, keys: Sequence[bytes]) -> dict[bytes, bytes | Exception | None]:
        """Return what is stored under each of the keys."""
        found: dict[bytes, bytes | Exception | None] = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            if self.link.clustered:  # MGET is for keys of one slot; these go together to each server
                replies = await self.link.send([Call(key, ("GET", key)) for key in chunk])
            else:
                replies = await self.link.ask(Call(chunk[0], ("MGET", *chunk)))
            found.update(zip(chunk, replies, strict=True))
        return found

    async def close(self) -> None:
        """Wait for what is under way, and close the connections."""
        await self.drive.settled()
        await self.link.close()

    def _send_at_once(self, wait: Wait | None, asked: Asked[Call, Reply]) -> bool:
        server, calls, until = self.link.only(), asked.questions, self.drive.deadline()
        if server is None:
            return False

        def answered(found: list[Reply] | Exception) -> None:
            if isinstance(found, Exception):
                asked.fail(found)
            elif _is_all(found, wait):
                asked.answer(found[: len(calls)])
            else:
                asked.answer_later(self.drive.in_time(self.link.finish(server, calls, found, wait=wait), until=until))

        return self.link.send_at_once(server, calls, answered, wait=wait)

    def _load_at_once(self, asked: Asked[bytes, bytes | None]) -> bool:
        server, keys, until = self.link.only(), list(dict.fromkeys(asked.questions)), self.drive.deadline()
        if server is None:
            return False

        def answered(found: list[Reply] | Exception) -> None:
            values = _by_key(keys, found)
            if isinstance(found, Exception):
                asked.fail(found)
            elif values is None:
                asked.answer_later(self.drive.in_time(self._load_all(asked.questions), until=until))
            else:
                asked.answer([values[key] for key in asked.questions])

        return self.link.send_at_once(server, [Call(keys[0], ("MGET", *keys))], answered)

    async def _load_all(self, keys: Sequence[bytes]) -> list[bytes | Exception | None]:
        found = await self.fetch(list(dict.fromkeys(keys)))
        return [found[key] for key in keys]


def _is_all(found: Sequence[Reply], wait: Wait | None) -> bool:
    """Say whether there is nothing more to do: nothing that was found is an error, and nothing has to be waited for."""
    if wait is not None and found[-1] != b"":
        return False
    return not any(isinstance(reply, Exception) for reply in found)


def _by_key(keys: Sequence[bytes], found: list[Reply] | Exception) -> dict[bytes, bytes | None] | None:
    """Return what MGET has found under each of the keys; None if it was answered something else."""
    try:
        [values] = cast("list[Reply]", found)
        return dict(zip(keys, values, strict=True))
    except (TypeError, ValueError):
        return None


class Connections:
    """Finds the connections that belong where the caller is.

    Args:
        target: where the servers are.
        arguments: more of redis-py's arguments of a connection.
        pool_size: how many connections to each server there are at most.
        timeout: in seconds.
    """

    def __init__(self, target: Target, arguments: dict[str, Any], pool_size: int, timeout: float) -> None:
        self._target, self._arguments = target, arguments
        self._pool_size, self._timeout = pool_size, timeout
        self._loops: dict[asyncio.AbstractEventLoop, Here] = {}
        self._blocking: tuple[int, Here] | None = None  # the process, and its connections

    def here(self) -> Here:
        """Return the connections of the running event loop, or those of this process that are used without one."""
        loop = running_loop()
        if loop is not None:
            here = self._loops.get(loop)
            if here is None:
                for closed in [other for other in list(self._loops) if other.is_closed()]:
                    self._loops.pop(closed, None)  # nobody can use these any more
                here = self._loops[loop] = self._made(LoopDrive(self._pool_size, self._timeout))
            return here
        process, blocking = os.getpid(), self._blocking  # a child must not read its parent's replies
        if blocking is None or blocking[0] != process:
            self._blocking = blocking = (process, self._made(ThreadDrive(self._pool_size, self._timeout)))
        return blocking[1]

    async def close(self) -> None:
        """Close the connections of the running event loop, or those that are used without one."""
        loop = running_loop()
        if loop is not None:
            here = self._loops.pop(loop, None)
            if here is not None:
                await here.close()
        elif self._blocking is not None:
            (_, here), self._blocking = self._blocking, None
            await here.close()

    def _made(self, drive: Drive) -> Here:
        return Here(drive, RedisLink(self._target, self._arguments, drive, timeout=self._timeout))
