"""NearStore: a store that remembers for a moment what was just loaded, so that the next request need not ask again.

`load` always asks the store, as every other method does: a NearStore keeps all that `coatcheck.store` promises. What is
remembered is had by `recall` only, and only `Sessions.load` asks for it: there a yes may be a moment old, because the
revocations say whether it still holds. Nothing is ever written, refreshed or ended on the strength of a memory.
"""

from __future__ import annotations

import builtins
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Final, NamedTuple

from coatcheck.clock import Clock, monotonic_clock
from coatcheck.core.record import Record
from coatcheck.errors import ConfigurationError
from coatcheck.store import Durability, Store

# Revocations are remembered for more than a minute: a record that outlived its own would be good again.
_LONGEST: Final = timedelta(seconds=30)
# What a record takes besides its data: the objects of its fields, and its place among the others.
_OVERHEAD: Final = 2048


class _Kept(NamedTuple):
    record: Record
    until: int
    octets: int


class NearStore:
    """A store in front of another one, with a memory. Give it to a `Coatcheck`, which knows when it may be used.

    Remembered are sessions that somebody is signed in to, for their end is told to every process. What this process
    writes it forgets at once, so it always reads its own writes. What others wrote may be seen `fresh_for` late.

    Args:
        store: where the records are.
        fresh_for: how long after it was asked for a record may be served from memory; 30 s at most.
        most_octets: about how much memory the records may take.
        clock: milliseconds since some moment in the past.

    Raises:
        ConfigurationError: one of them cannot be what it should be.
    """

    def __init__(
        self,
        store: Store,
        *,
        fresh_for: timedelta = timedelta(seconds=1),
        most_octets: int = 32 * 2**20,
        clock: Clock = monotonic_clock,
    ) -> None:
        if not timedelta(0) < fresh_for <= _LONGEST:
            raise ConfigurationError("fresh_for is more than 0, and 30 seconds at most")
        if most_octets < 1:
            raise ConfigurationError("most_octets is at least 1")
        self.store = store
        self._fresh_for = fresh_for // timedelta(milliseconds=1)
        self._most_octets = most_octets
        self._clock = clock
        self._kept: dict[str, _Kept] = {}  # the oldest first
        self._octets = 0
        # The loads under way that nothing was written beside: only what they find may be remembered.
        self._asking: dict[str, object] = {}
        self._lock = Lock()

    @property
    def durability(self) -> Durability:
        """What the store behind says."""
        return self.store.durability

    async def open(self) -> None:
        """Open the store behind."""
        await self.store.open()

    async def close(self) -> None:
        """Forget everything, and close the store behind."""
        self._forget_all()
        await self.store.close()

    def recall(self, id: str) -> Record | None:
        """Return a record that was stored at some moment within the last `fresh_for`, or None; no store is asked.

        Not checked: whether the session was revoked since, which `Revocations` knows, and whether they are fresh.
        """
        kept = self._kept.get(id)
        return kept.record if kept is not None and self._clock() < kept.until else None

    async def load(self, id: str) -> Record | None:
        """Return what is stored, and remember it; see `Store.load`."""
        until = self._clock() + self._fresh_for
        with self._lock:
            asking = self._asking.setdefault(id, object())
        record = None
        try:
            record = await self.store.load(id)
        finally:
            with self._lock:
                # Else something was written meanwhile, which this may not know of, or another load was faster.
                if self._asking.get(id) is asking:
                    del self._asking[id]
                    self._keep(id, record, until)
        return record

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        with self._writing(record.id):
            return await self.store.create(record)

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`. Who lost the race does not find what they remembered again."""
        with self._writing(record.id):
            return await self.store.replace(record)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        with self._writing(id):
            await self.store.touch(id, seen_at, expires_at)

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; see `Store.delete`."""
        with self._writing(id):
            return await self.store.delete(id)

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`."""
        return await self.store.list(subject)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records; see `Store.revoke_subject`. All records are forgotten: this is rare."""
        try:
            return await self.store.revoke_subject(subject, before, keep)
        finally:
            self._forget_all()

    async def sweep(self, now: int) -> int:
        """Remove expired records; see `Store.sweep`."""
        return await self.store.sweep(now)

    @contextmanager
    def _writing(self, id: str) -> Generator[None]:
        """Forget a record once it was written, and whatever a load has read meanwhile: it may have missed the write."""
        try:
            yield
        finally:
            self._forget(id)

    def _forget(self, id: str) -> None:
        with self._lock:
            self._asking.pop(id, None)
            self._drop(id)

    def _forget_all(self) -> None:
        with self._lock:
            self._asking.clear()
            self._kept.clear()
            self._octets = 0

    def _keep(self, id: str, record: Record | None, until: int) -> None:
        self._drop(id)
        # Another's record (P4) is for the desk to refuse. Of an anonymous visit the feed tells nothing, and a sign-in
        # takes over what it had stored: that must be all of it (P3).
        if record is not None and record.id == id and record.subject is not None:
            octets = _OVERHEAD + sum(len(key) + len(value) for key, value in record.data.items())
            self._kept[id] = _Kept(record, until, octets)
            self._octets += octets
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if self._octets <= self._most_octets and now < self._kept[oldest].until:
                break
            self._drop(oldest)

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._octets -= kept.octets
