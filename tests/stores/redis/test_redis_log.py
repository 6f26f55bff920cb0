"""A write is acknowledged when the server's log has it, however slow its disk is (P1, P2).

With `appendfsync everysec` the server itself answers sooner: as long as the log is being synced, from its memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from held_sync import HeldSync
from valkey_server import AOF, Valkey

from coatcheck.core.record import Record
from coatcheck.core.revocation import Revoked
from coatcheck.errors import StoreUnavailable
from coatcheck.feeds.redis import RedisFeed
from coatcheck.run import run
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_documents import RedisDocuments
from coatcheck.stores.redis_drive import LoopDrive
from coatcheck.stores.redis_log import Log
from coatcheck.stores.redis_waiting import UNWRITTEN
from coatcheck.testing import make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import following

pytestmark = pytest.mark.anyio

SHORT = timedelta(seconds=0.2)
LONG = timedelta(seconds=30)
HERE = ("127.0.0.1", 6379)


@pytest.fixture
def everysec(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path, *AOF, "everysec")
    yield server
    server.kill()


async def stored(server: Valkey, *records: Record) -> None:
    store = RedisStore.from_url(server.url)
    assert all([await store.create(record) for record in records])
    await store.close()


WRITES: dict[str, Callable[[RedisStore, Record], Awaitable[object]]] = {
    "create": lambda store, _: store.create(make_record("bob")),
    "create for nobody": lambda store, _: store.create(make_record(None)),
    "replace": lambda store, record: store.replace(following(record)),
    "delete": lambda store, record: store.delete(record.id),
    "delete again": lambda store, record: store.delete(record.id),
    "revoke": lambda store, _: store.revoke_subject("alice", START),
}


async def test_p1_p2_what_only_the_servers_memory_has_is_pending(everysec: Valkey) -> None:
    """Whatever is written, and by whatever; reading goes on, and so does what may be lost."""
    record, other = make_record("alice"), make_record("alice")
    await stored(everysec, record, other)
    store = RedisStore.from_url(everysec.url, timeout=SHORT)
    documents = RedisDocuments.from_url(everysec.url, timeout=SHORT)
    feed = RedisFeed.from_url(everysec.url, timeout=SHORT)
    await store.open()
    assert store.durability == "crash-safe"
    with HeldSync(everysec) as held:
        for write in WRITES.values():
            with pytest.raises(StoreUnavailable, match="pending: done here"):
                await write(store, record)
        with pytest.raises(StoreUnavailable, match="pending: done here"):
            await documents.commit({}, {"key": b"value"})
        with pytest.raises(StoreUnavailable, match="pending: done here"):
            await feed.publish((Revoked(until=START + 60_000, session_id="id"),), START)
        assert await store.load(other.id) == other
        await store.touch(other.id, other.seen_at + 1, other.expires_at)
        assert await documents.note({}, {"other": b"value"})
        held.kill()
    for place in (store, documents, feed):
        await place.close()


def test_p1_p2_nor_where_no_event_loop_runs(everysec: Valkey) -> None:
    store = RedisStore.from_url(everysec.url, timeout=SHORT)
    run(store.open())
    with HeldSync(everysec), pytest.raises(StoreUnavailable, match="pending: done here"):
        run(store.create(make_record("alice")))
    record = make_record("alice")
    patient = RedisStore.from_url(everysec.url, timeout=LONG)
    assert run(patient.create(record))
    assert run(patient.load(record.id)) == record
    for each in (store, patient):
        run(each.close())


async def test_p1_p2_what_was_acknowledged_survives_a_kill_amid_a_sync(everysec: Valkey) -> None:
    """It is answered when the log has it; who waits for that keeps no connection from the others."""
    gone, coming = make_record("alice"), [make_record(f"user{n}") for n in range(20)]
    await stored(everysec, gone)
    store = RedisStore.from_url(everysec.url, timeout=LONG, pool_size=1)
    await store.open()
    with HeldSync(everysec) as held:
        waiting = [asyncio.ensure_future(store.delete(gone.id)), *map(asyncio.ensure_future, map(store.create, coming))]
        while await store.load(gone.id) is not None:
            pass
        assert not any(future.done() for future in waiting)
        held.release()
        assert await asyncio.gather(*waiting) == [gone, *[True] * 20]
    everysec.kill()
    everysec.start()
    again = RedisStore.from_url(everysec.url, timeout=LONG)
    assert await again.load(gone.id) is None
    assert [await again.load(record.id) for record in coming] == coming
    for each in (store, again):
        await each.close()


async def test_p2_a_log_that_is_switched_off_later_is_noticed_with_the_next_write(everysec: Valkey) -> None:
    store = RedisStore.from_url(everysec.url, timeout=SHORT)
    assert await store.create(make_record("alice"))
    everysec.ask("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(StoreUnavailable, match="pending: done here"):
        await store.create(make_record("alice"))
    await store.close()


async def test_a_server_that_may_keep_no_log_is_not_asked_for_it(everysec: Valkey) -> None:
    """From the first write on, which opens the place."""
    everysec.ask("CONFIG", "SET", "appendonly", "no")
    store = RedisStore.from_url(everysec.url, allow_volatile=True, timeout=SHORT)
    documents = RedisDocuments.from_url(everysec.url, allow_volatile=True, timeout=SHORT)
    assert await store.create(make_record("alice"))
    assert await documents.commit({}, {"key": b"value"})
    assert store.durability == documents.durability == "volatile"
    for place in (store, documents):
        await place.close()


# -- asking again


class Servers:
    """Answers in place of servers: what is said of the log, and which process says it."""

    def __init__(self, *said: tuple[bytes, bytes]) -> None:
        self._said, self.asked = list(said), 0

    async def __call__(self, address: Any, commands: Sequence[Any]) -> list[Any]:
        assert (address, len(commands)) == (HERE, 2)
        self.asked += 1
        behind, about = self._said.pop(0) if len(self._said) > 1 else self._said[0]
        return [behind, about]


def log_of(servers: Servers, seconds: float) -> Log:
    return Log(servers, LoopDrive(1, seconds), seconds)


BEHIND = (b"1a", b"run_id:1a\r\n")


async def test_a_log_is_waited_for_until_it_has_all() -> None:
    servers = Servers(BEHIND, BEHIND, (b"", b"run_id:1a\r\n"))
    assert await log_of(servers, 30).pending(HERE, b"1a") == ""
    assert servers.asked == 3


@pytest.mark.parametrize(
    ("said", "run"),
    [
        (BEHIND, b"1a"),
        ((b"", b"run_id:2b\r\n"), b"1a"),  # it was started again: what was not in its log is gone
        ((b"", b"run_id:1a\r\n"), None),
        ((b"", RuntimeError("NOPERM")), b"1a"),
    ],
)
async def test_p2_what_is_not_sure_is_pending(said: Any, run: Any) -> None:
    assert await log_of(Servers(said), 0.1).pending(HERE, run) == UNWRITTEN


async def test_p9_all_that_wait_for_a_log_ask_together() -> None:
    servers = Servers(BEHIND, BEHIND, (b"", b"run_id:1a\r\n"))
    log = log_of(servers, 30)
    assert await asyncio.gather(*(log.pending(HERE, b"1a") for _ in range(100))) == [""] * 100
    assert servers.asked <= 6
