"""Very many sessions: what each is like, and the kinds of store that are filled with them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import redis

from coatcheck.core import base64url
from coatcheck.core.credentials import SessionCookie
from coatcheck.core.record import Device, Record, digest, pack
from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.sqlite import SQLiteStore
from suite.servers import folder, postgres, valkey

AT_ONCE: Final = 200
HOUR: Final = 60 * 60 * 1000
CALM: Final = timedelta(seconds=30)  # a machine that is busy with other things must not end the loading
PATIENCE: Final = 60  # seconds; a Redis server takes its time over the last ones
AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko) Version/18 Safari/604",
)
DATA: Final = {"cart": pack(["a1", "b2", "c3"]), "name": pack("Anna")}


def id_of(number: int) -> str:
    """Return the id of the session of a number: as good as random, and need not be remembered."""
    return base64url.encode(blake2b(number.to_bytes(8, "big"), digest_size=16).digest())


def ticket(number: int) -> SessionCookie:
    """Return the cookie of the session of a number."""
    return SessionCookie(id_of(number), blake2b(number.to_bytes(8, "big"), digest_size=32).digest())


def session(number: int, now: int) -> Record:
    """Return a session as a sign-in makes it, of a subject who has no other; those of even number expire sooner."""
    cookie = ticket(number)
    return Record(
        id=cookie.id,
        digest=digest(cookie.secret),
        subject=f"user-{number:010d}",
        created_at=now,
        signed_in_at=now,
        seen_at=now,
        expires_at=now + (24 if number % 2 == 0 else 48) * HOUR,
        ends_at=now + 720 * HOUR,
        idle=24 * HOUR,
        amr=("pwd",),
        device=Device(AGENTS[number % len(AGENTS)], f"203.0.{number % 113}.{number % 251}"),
        data=DATA,
    )


async def fill(store: Store, size: int, now: int) -> float:
    """Make so many sessions, and return how many a second."""
    numbers: Iterator[int] = iter(range(size))

    async def work() -> None:
        for number in numbers:
            if not await store.create(session(number, now)):
                raise RuntimeError("a session was refused")

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return size / (time.perf_counter() - began)


Expire = Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class Kind:
    """A kind of store, and what has to be done behind its back.

    Args:
        make: returns the store of a number, apart from the others of its kind.
        size: returns the bytes that the store of a number takes.
        busy: returns the seconds of CPU that the server has taken until now, or is None where there is none.
        storm: of a store and how many are in it, returns what has all sessions of even number expire, and says how
            many are gone when they are.
    """

    make: Callable[[int], Store]
    size: Callable[[int], int]
    busy: Callable[[], float] | None
    storm: Callable[[int, Store, int], Awaitable[Expire]]


async def swept(_number: int, store: Store, _size: int) -> Expire:
    """Return what has the store remove all that expires within the next 36 hours: the sessions of even number."""
    return lambda: store.sweep(int(time.time() * 1000) + 36 * HOUR)


def sqlite(stack: ExitStack) -> Kind:
    """Return files in one folder."""
    home = stack.enter_context(folder())

    def size(number: int) -> int:
        path = home / f"{number}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size

    return Kind(lambda number: SQLiteStore(home / f"{number}.db"), size, None, swept)


def redis_server(stack: ExitStack) -> Kind:
    """Return databases of one server."""
    server = stack.enter_context(valkey())
    url = server.url.removesuffix("/0")

    def tell(number: int, size: int) -> float:
        moment = time.time() + 2 + size / 40_000  # when all have been told
        with redis.Redis.from_url(f"{url}/{number}") as client:
            for start in range(0, size, 1000):
                pipe = client.pipeline(transaction=False)
                for even in range(start, min(start + 1000, size), 2):
                    pipe.pexpireat(f"coatcheck:{id_of(even)}", int(moment * 1000))
                pipe.execute()
        if time.time() > moment:
            raise RuntimeError("the moment was over before all were told")
        return moment

    def gone() -> int:
        with server.client() as client:
            info: Any = client.info("stats")
        return int(info["expired_keys"])

    async def prepare(number: int, size: int) -> Expire:
        moment, before = await asyncio.to_thread(tell, number, size), gone()

        async def expire() -> int:
            removed, patience = 0, time.monotonic() + PATIENCE
            while removed < (size + 1) // 2 and time.monotonic() < patience:
                await asyncio.sleep(0.05)
                removed = await asyncio.to_thread(gone) - before
            return removed

        await asyncio.sleep(moment - time.time())
        return expire

    def used(_number: int) -> int:
        with server.client() as client:
            info: Any = client.info("memory")
        return int(info["used_memory"])

    assert server.process is not None  # noqa: S101 (it runs)
    pid = server.process.pid
    return Kind(
        lambda number: RedisStore.from_url(f"{url}/{number}", timeout=CALM),
        used,
        lambda: _taken_by(pid),
        lambda number, _store, size: prepare(number, size),
    )


def postgres_server(stack: ExitStack) -> Kind:
    """Return schemas of one database."""
    server = stack.enter_context(postgres())

    def size(number: int) -> int:
        [[octets]] = server.ask(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = %s",
            f"size_{number}",
        )
        return int(octets)

    def first() -> int:
        [[child]] = server.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        return int(psutil.Process(child).ppid())

    return Kind(
        lambda number: PostgresStore(server.url, schema=f"size_{number}", timeout=CALM),
        size,
        lambda: _taken_by(first()),
        swept,
    )


def _taken_by(pid: int) -> float:
    """Return the seconds of CPU of a process, of those that it has started, and of those of them that have ended."""
    first = psutil.Process(pid)
    own = first.cpu_times()
    taken = own.user + own.system + own.children_user + own.children_system
    for child in first.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            times = child.cpu_times()
            taken += times.user + times.system
    return float(taken)


KINDS: Final[dict[str, Callable[[ExitStack], Kind]]] = {
    "SQLite": sqlite,
    "Redis": redis_server,
    "PostgreSQL": postgres_server,
}
