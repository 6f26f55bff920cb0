"""What becomes of the writes of one tick when whoever asked is gone: the same in every store that joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from coatcheck.core.record import Record
from coatcheck.store import Store
from coatcheck.testing import make_record
from coatcheck.testing.records import following


async def made(store: Store, count: int, subject: str | None = None, **changes: Any) -> list[Record]:
    """Make records, all of them in one tick."""
    records = [make_record(subject, **changes) for _ in range(count)]
    assert all(await asyncio.gather(*map(store.create, records)))
    return records


async def half_stop_waiting(store: Store, records: Sequence[Record], sent: Sequence[object]) -> None:
    """Half of those who wrote in one tick are cancelled once something was sent; all is written, each has their own."""
    writing = [asyncio.ensure_future(store.replace(following(record))) for record in records]
    while not sent:  # noqa: ASYNC110 (there is no event to wait for)
        await asyncio.sleep(0)
    for task in writing[::2]:
        task.cancel()
    assert await asyncio.gather(*writing[1::2]) == [True] * (len(records) // 2)
    assert all(task.cancelled() for task in writing[::2])
    assert await asyncio.gather(*(store.load(record.id) for record in records)) == [following(r) for r in records]


async def written_before_it_closes(store: Store) -> None:
    """A request asks for a write, is cancelled, and the store is closed: the write is carried out (P2)."""
    [record] = await made(store, 1)
    writing = asyncio.ensure_future(store.replace(following(record)))
    await asyncio.sleep(0)
    writing.cancel()
    await store.close()
    assert await store.load(record.id) == following(record)
