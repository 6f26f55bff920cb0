"""CountingStore: a memory store that counts what is asked of it, and can be told to fail."""

from __future__ import annotations

from collections import Counter

from coatcheck import MemoryStore, StoreUnavailable
from coatcheck.core.record import Record


class CountingStore(MemoryStore):
    """`calls` counts by method; while `broken`, each of them raises StoreUnavailable."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.broken = False

    def _count(self, call: str) -> None:
        self.calls[call] += 1
        if self.broken:
            raise StoreUnavailable("down")

    async def create(self, record: Record) -> bool:
        self._count("create")
        return await super().create(record)

    async def load(self, id: str) -> Record | None:
        self._count("load")
        return await super().load(id)

    async def replace(self, record: Record) -> bool:
        self._count("replace")
        return await super().replace(record)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        self._count("touch")
        await super().touch(id, seen_at, expires_at)

    async def delete(self, id: str) -> Record | None:
        self._count("delete")
        return await super().delete(id)
