"""Line: a connection to Redis that one follower has for itself, to whichever server holds the key it asks for."""

from __future__ import annotations

import asyncio

from redis.exceptions import AskError, MovedError, ResponseError

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis_link import RedisLink
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_wire import FAILURES, Reply, Wire

_MOST_MOVES = 6


class Line:
    """A connection that is opened when it is first used, and goes where its key goes.

    Args:
        link: knows which server holds what.
        key: the key that is asked for.
        timeout: how long an answer may take, in seconds.
    """

    def __init__(self, link: RedisLink, key: bytes, timeout: float) -> None:
        self._link, self._key, self._timeout = link, key, timeout
        self._wire: Wire | None = None
        self._asking = False

    async def ask(self, command: Command, *, patience: float = 0.0) -> Reply:
        """Return the answer of the server that holds the key now, and takes writes.

        Args:
            command: what is asked.
            patience: for how many seconds more than for others an answer is waited for.

        Raises:
            StoreUnavailable: there is none.
        """
        said: Reply = None
        role: Reply = None
        for _ in range(_MOST_MOVES):
            try:
                async with asyncio.timeout(self._timeout + patience):
                    said, role = await self._exchange(command, said)
            except (*FAILURES, TimeoutError) as error:
                await self._lost()
                raise StoreUnavailable(f"the Redis server cannot answer: {type(error).__name__}") from error
            if not isinstance(said, MovedError | AskError):
                break
            await self.close()
        if isinstance(said, ResponseError) or _is_replica(role):
            await self._lost()
            raise StoreUnavailable(f"the Redis server refuses, or takes no writes: {type(said).__name__}")
        return said

    async def close(self) -> None:
        """Close the connection; it is opened anew when it is used again."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.drop()

    async def _exchange(self, command: Command, said: Reply) -> tuple[Reply, Reply]:
        if self._wire is None:
            self._wire = await self._link.wire_to(self._key, said)
            self._asking = isinstance(said, AskError)
        before: list[Command] = [("ASKING",)] if self._asking else []
        *_, reply, role = await self._wire.exchange([*before, command, ("ROLE",)])
        return reply, role

    async def _lost(self) -> None:
        self._link.forget()
        await self.close()


def _is_replica(role: Reply) -> bool:
    """Say whether a server is known to be none that takes writes; it may be forbidden to ask."""
    return not isinstance(role, ResponseError) and bool(role[0] != b"master")
