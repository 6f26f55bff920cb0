"""Coalescer: the loads of one event-loop tick become one call, for stores whose every call is a round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Coalescer(Generic[K, V]):
    """Gathers what is asked for in one tick of an event loop, and fetches it at once. It belongs to one loop.

    The fetching is done by a task of its own: that one of those who wait is cancelled stops neither the others nor
    the call, so no reply is ever left unread. Whoever asks after the call has begun waits for the next one, and so
    reads what was written before they asked.

    Args:
        fetch_many: is handed distinct keys, and returns what it found; a key that is missing was not found. A value
            that is an exception is raised to those who wait for that key; an exception that it raises reaches all.
            It should give up after some time by itself.
    """

    def __init__(self, fetch_many: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]]) -> None:
        self._fetch_many = fetch_many
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()  # a loop alone would not keep them

    async def load(self, key: K) -> V | None:
        """Return what is found under a key, or None.

        Raises:
            whatever `fetch_many` raised, or returned for this key.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._begin)
        future: asyncio.Future[V | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        return await future

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, {}
        task = asyncio.get_running_loop().create_task(self._fetch(waiting))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _fetch(self, waiting: dict[K, list[asyncio.Future[V | None]]]) -> None:
        found: Mapping[K, V | Exception]
        try:
            found = await self._fetch_many(list(waiting))
        except Exception as error:  # noqa: BLE001 (it is raised where it is waited for)
            found = dict.fromkeys(waiting, error)
        except BaseException:  # the loop is being shut down
            for futures in waiting.values():
                for future in futures:
                    future.cancel()
            raise
        for key, futures in waiting.items():
            _hand_over(found.get(key), futures)


def _hand_over(value: V | Exception | None, futures: list[asyncio.Future[V | None]]) -> None:
    for future in futures:
        if future.done():  # its request was cancelled
            continue
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
