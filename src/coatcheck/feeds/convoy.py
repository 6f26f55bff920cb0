"""Convoy: what comes while a call is under way goes together with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Convoy(Generic[T]):
    """Gathers items for calls that exclude each other anyway. It belongs to one event loop.

    A task of its own makes the calls: that who waits is cancelled stops nothing.

    Args:
        send_all: takes all items that have come; it should give up after some time by itself.
    """

    def __init__(self, send_all: Callable[[Sequence[T]], Awaitable[object]]) -> None:
        self._send_all = send_all
        self._items: list[T] = []
        self._arrival: asyncio.Future[None] | None = None
        self._moving: asyncio.Task[None] | None = None

    async def send(self, items: Iterable[T]) -> None:
        """Send items, and return when they have arrived.

        Raises:
            whatever `send_all` raised.
        """
        self._items += items
        if self._arrival is None:
            self._arrival = asyncio.get_running_loop().create_future()
        arrival = self._arrival
        if self._moving is None:
            self._moving = asyncio.ensure_future(self._move())
        await asyncio.shield(arrival)

    async def settled(self) -> None:
        """Wait until everything has arrived, or has failed to."""
        if self._moving is not None:
            await asyncio.wait([self._moving])

    async def _move(self) -> None:
        try:
            while self._arrival is not None:
                items, self._items = self._items, []
                arrival, self._arrival = self._arrival, None
                try:
                    await self._send_all(items)
                except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
                    arrival.set_exception(error)
                    arrival.exception()  # perhaps nobody waits any more
                except BaseException:
                    arrival.cancel()
                    raise
                else:
                    arrival.set_result(None)
        finally:
            self._moving = None
