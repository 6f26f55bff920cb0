"""Failovers: a primary that dies or freezes for good, and a replica that takes its place by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger import NOTHING, Ledger, recovered
from valkey_server import AOF, HOST, Valkey, info, wait_until

from coatcheck.stores.redis import RedisStore

SERVICE: Final = "coats"
_SETTINGS: Final = (*AOF, "everysec", "--repl-diskless-sync-delay", "0")


class Sentinel(Valkey):
    """Watches a primary; what it finds out it writes into its file."""

    def __init__(self, directory: Path, primary: Valkey, quorum: int) -> None:
        (directory / "sentinel.conf").write_text(
            f"sentinel monitor {SERVICE} {HOST} {primary.port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 1500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        super().__init__(directory)

    def command(self) -> list[str]:
        program, *place = super().command()
        return [program, str(self.directory / "sentinel.conf"), "--sentinel", *place[: place.index("--save")]]

    def knows(self, replicas: int, sentinels: int) -> bool:
        found: Any = self.ask("INFO", "sentinel")["master0"]
        return bool(found["slaves"] == replicas and found["sentinels"] == sentinels)

    def primary(self) -> int:
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


def follows(server: Valkey) -> bool:
    """Say whether it is a replica that has what its primary has."""
    role, *rest = server.ask("ROLE")
    return bool(role == b"slave" and rest[2] == b"connected")


def revive(server: Valkey) -> None:
    server.resume()
    if not server.running:
        server.start()


@dataclass
class Failover:
    """A primary with a replica; `restore` brings the primary back, as the other one's replica."""

    primary: Valkey
    store: Callable[..., RedisStore]
    promoted: Callable[[], bool]
    restore: Callable[[], None]


@contextlib.contextmanager
def sentinels(folder: Path, *, sentinels: int) -> Iterator[Failover]:
    """Give a primary, its replica, and those who watch it; none of them is the next test's.

    There is one replica: of two, one of which is waited for, the other one may be promoted, and miss what came last.
    """
    with contextlib.ExitStack() as stack:

        def new(kind: Callable[..., Valkey], name: str, *rest: Any) -> Any:
            place = folder / name
            place.mkdir()
            server = kind(place, *rest)
            stack.callback(server.kill)
            return server

        primary = new(Valkey, "primary", *_SETTINGS)
        follow = ("--replicaof", HOST, str(primary.port))
        replica = new(Valkey, "replica", *_SETTINGS, *follow)
        wait_until(lambda: follows(replica))
        watchers = [new(Sentinel, f"sentinel{n}", primary, sentinels // 2 + 1) for n in range(sentinels)]
        wait_until(lambda: all(watcher.knows(1, sentinels) for watcher in watchers))
        url = f"redis+sentinel://{','.join(f'{HOST}:{watcher.port}' for watcher in watchers)}/{SERVICE}"

        def restore() -> None:
            revive(primary)
            primary.ask("REPLICAOF", HOST, replica.port)  # a Sentinel takes its time until it says so itself
            wait_until(lambda: follows(primary))

        yield Failover(
            primary,
            lambda **options: RedisStore.from_url(url, **options),
            lambda: all(watcher.primary() == replica.port for watcher in watchers),
            restore,
        )


@contextlib.contextmanager
def of_cluster(servers: list[Valkey], prefix: str) -> Iterator[Failover]:
    """Give a primary of a Cluster; afterwards each server is again what it was."""
    primary, others = servers[0], servers[1:]
    replica = next(server for server in servers[3:] if server.ask("ROLE")[2] == primary.port)
    url = "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers[:3])

    def back() -> None:
        revive(primary)
        wait_until(lambda: "cluster_state:ok" in info(primary, "CLUSTER", "INFO"))
        wait_until(lambda: follows(primary))

    def restore() -> None:
        if replica.ask("ROLE")[0] == b"master":
            back()
            primary.ask("CLUSTER", "FAILOVER")
        wait_until(lambda: primary.ask("ROLE")[0] == b"master")
        wait_until(lambda: follows(replica))
        wait_until(lambda: all("cluster_state:ok" in info(server, "CLUSTER", "INFO") for server in servers))

    try:
        yield Failover(
            primary,
            lambda **options: RedisStore.from_url(url, prefix=prefix, **options),
            lambda: (
                all("cluster_state:ok" in info(server, "CLUSTER", "INFO") for server in others)
                and replica.ask("ROLE")[0] == b"master"
            ),
            back,
        )
    finally:
        restore()


@dataclass(frozen=True)
class FailedOver:
    """What came of it."""

    kept: int
    ended: int
    recovery: float  # seconds from the promotion until everybody's session is found again


async def fail_over(failover: Failover, how: Callable[[Valkey], None]) -> FailedOver:
    """Take the primary away amid writes, and hold what its successor has against what was acknowledged.

    The store waits for one replica. It is one object from the beginning to the end, and finds its way by itself.
    """
    store = failover.store(wait_replicas=1)
    ledger = Ledger(store)
    try:
        await store.open()
        assert store.durability == "failover-safe"
        async with ledger:
            await ledger.more(5)
            await asyncio.to_thread(how, failover.primary)
            await asyncio.to_thread(wait_until, failover.promoted)
            recovery = await recovered(store, ledger.kept)
            assert await ledger.wrong(store) == NOTHING
            await asyncio.to_thread(failover.restore)
            await ledger.more(5)
        assert await ledger.wrong(store) == NOTHING
    finally:
        await store.close()
    return FailedOver(len(ledger.kept), len(ledger.ended), recovery)
