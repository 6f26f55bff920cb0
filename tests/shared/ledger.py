"""Ledger: what a store has acknowledged to writers who go on whatever happens, to be held against it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Self

from sites import Site

from coatcheck import StoreUnavailable
from coatcheck.core.record import Record
from coatcheck.store import Store
from coatcheck.testing import make_record
from coatcheck.testing.clock import START

WRITERS: Final = 8
REVOKED_TOGETHER: Final = 4
NOTHING: Final[dict[str, list[str]]] = {"lost": [], "back": []}
PATIENCE: Final = 60.0  # seconds in which what must come has come
_AT_ONCE: Final = 500


class Ledger:
    """Signs people in, some for good, and ends the sessions of the others, in both ways.

    What is not acknowledged counts for nothing: it may be so or not, and is tried no more.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kept: list[str] = []
        self.ended: list[str] = []
        self.refusals = 0
        self._acknowledged = [0] * WRITERS
        self._tasks: list[asyncio.Task[None]] = []
        self._going = True

    async def __aenter__(self) -> Self:
        self._going = True
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def more(self, times: int) -> None:
        """Wait until each writer has had so many more rounds acknowledged."""
        wanted = [count + times for count in self._acknowledged]
        deadline = time.monotonic() + PATIENCE
        while any(have < want for have, want in zip(self._acknowledged, wanted, strict=True)):
            assert time.monotonic() < deadline, f"nothing is acknowledged any more: {self._acknowledged} of {wanted}"
            for task in self._tasks:
                if task.done():
                    await task
            await asyncio.sleep(0.005)

    async def wrong(self, store: Store) -> dict[str, list[str]]:
        """Return the acknowledged sign-ins that are not there, and the acknowledged sign-outs that are undone."""
        kept, ended = await _stored(store, self.kept), await _stored(store, self.ended)
        return {"lost": [id for id in self.kept if id not in kept], "back": [id for id in self.ended if id in ended]}

    async def _write(self, number: int) -> None:
        while self._going:
            try:
                await self._round(number)
                self._acknowledged[number] += 1
            except StoreUnavailable:
                self.refusals += 1
                await asyncio.sleep(0.01)

    async def _round(self, number: int) -> None:
        kept, subject = make_record(f"kept{number}"), f"gone{number}"
        if await self.store.create(kept):
            self.kept.append(kept.id)
        alone, *others = [make_record(None), *(make_record(subject) for _ in range(REVOKED_TOGETHER))]
        for record in (alone, *others):
            await self.store.create(record)
        if await self.store.delete(alone.id) is not None:
            self.ended.append(alone.id)
        self.ended += await self.store.revoke_subject(subject, START)


async def _stored(store: Store, ids: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), _AT_ONCE):
        records = await asyncio.gather(*(patiently(store, id) for id in ids[start : start + _AT_ONCE]))
        found.update(record.id for record in records if record is not None)
    return found


async def recovered(store: Store, ids: Iterable[str]) -> float:
    """Return after how many seconds all of these can be loaded."""
    began = time.monotonic()
    for id in ids:
        await patiently(store, id)
    return time.monotonic() - began


async def patiently(store: Store, id: str) -> Record | None:
    """Load a record, if need be again and again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await store.load(id)
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it does not recover"
            await asyncio.sleep(0.01)


async def killed(site: Site, ledger: Ledger, rounds: int, *, more: int = 3) -> None:
    """Have writers at work, kill the servers with -9 so often, and hold what the store then has against the ledger.

    The store is the same object all the time: it finds the servers again by itself.
    """
    async with ledger:
        for _ in range(rounds):
            await ledger.more(more)
            await asyncio.to_thread(site.kill)
            await asyncio.to_thread(site.start)
    await recovered(ledger.store, ledger.kept[-1:])
    assert await ledger.wrong(ledger.store) == NOTHING
