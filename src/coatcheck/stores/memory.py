"""MemoryStore: records in a dictionary, for tests, demonstrations and single processes that may forget."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import AsyncIterator

from coatcheck.core.record import Record
from coatcheck.run import offload
from coatcheck.store import Durability, Page
from coatcheck.stores.merging import CUTOFF_MEMORY, forward, succeed
from coatcheck.stores.walking import PAGE

_CHUNK = 500
_log = logging.getLogger("coatcheck")


class MemoryStore:
    """A store that is lost with its process. Every method is one step, under a lock held for microseconds.

    Workers that each have one refuse each other's sessions, so the first sign of that is logged, once.
    """

    durability: Durability = "volatile"

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._ids: dict[str, set[str]] = {}
        self._cutoffs: dict[str, int] = {}
        self._to_warn = True  # nobody was told, and nothing was removed: what is not here never was
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: the records stay for as long as the object does."""

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        with self._lock:
            if record.id in self._records:
                return False
            if record.subject is not None:
                if record.created_at < self._cutoffs.get(record.subject, record.created_at):
                    return False
                self._ids.setdefault(record.subject, set()).add(record.id)
            self._records[record.id] = record
            return True

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`."""
        record = self._records.get(id)
        if record is None and self._to_warn and self._records:
            self._warn()
        return record

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        with self._lock:
            stored = self._records.get(record.id)
            if stored is None:
                return False
            following = succeed(stored, record)
            if following is None:
                return False
            self._records[record.id] = following
            return True

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        with self._lock:
            stored = self._records.get(id)
            if stored is not None:
                self._records[id] = forward(stored, seen_at, expires_at)

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; see `Store.delete`."""
        with self._lock:
            return self._remove(id)

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`."""
        with self._lock:
            return [self._records[id] for id in self._ids.get(subject, ())]

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records; see `Store.revoke_subject`."""
        with self._lock:
            self._cutoffs[subject] = max(before, self._cutoffs.get(subject, before))
            ids = [id for id in self._ids.get(subject, ()) if id != keep]
            removed = [self._remove(id) for id in ids]
            return [record.id for record in removed if record is not None and record.successor is None]

    async def sweep(self, now: int) -> int:
        """Remove expired records; see `Store.sweep`."""
        return await offload(lambda: self._sweep(now))

    async def walk(self) -> AsyncIterator[Page]:
        """Yield every record; see `Walkable.walk`."""
        with self._lock:
            records = tuple(self._records.values())
        for start in range(0, len(records), PAGE):
            yield Page(records[start : start + PAGE])

    async def size(self) -> int:
        """Return how many records there are; see `Walkable.size`."""
        return len(self._records)

    def _sweep(self, now: int) -> int:
        # A pass over a copy, outside of the lock; what it finds is judged again inside.
        expired = [record.id for record in builtins.list(self._records.values()) if record.expires_at <= now]
        removed = 0
        for start in range(0, len(expired), _CHUNK):
            with self._lock:
                for id in expired[start : start + _CHUNK]:
                    record = self._records.get(id)
                    if record is not None and record.expires_at <= now:
                        self._remove(id)
                        removed += 1
        with self._lock:
            self._cutoffs = {
                subject: before for subject, before in self._cutoffs.items() if before >= now - CUTOFF_MEMORY
            }
        return removed

    def _warn(self) -> None:
        with self._lock:
            if not self._to_warn:
                return
            self._to_warn = False
        _log.warning(
            "a session was asked for that this process never had: sessions in memory end with their process, and each "
            "worker process has its own; SQLiteStore, or another store that they share, keeps them for all"
        )

    def _remove(self, id: str) -> Record | None:
        self._to_warn &= id not in self._records  # before: who then finds nothing has no warning left
        record = self._records.pop(id, None)
        if record is not None and record.subject is not None:
            ids = self._ids[record.subject]
            ids.discard(id)
            if not ids:
                del self._ids[record.subject]
        return record
