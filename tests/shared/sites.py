"""Sites: a store of each networked kind on servers of its own, each behind a proxy, all of them ours to break."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import pytest
from postgres_server import OwnServer
from valkey_server import HOST, Valkey, info, wait_until

from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.testing import FaultProxy

NETWORKED: Final = ("redis", "cluster", "postgres")

Spoil = Callable[[FaultProxy], None]


class Server(Protocol):
    """A server of our own."""

    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass
class Site:
    """One test's place on a kind of servers. `store` makes one more store over it, as another process would."""

    kind: str
    servers: Sequence[Server]
    proxies: Sequence[FaultProxy]
    store: Callable[..., Store]
    ready: Callable[[], None] = lambda: None

    def spoil(self, verb: Spoil) -> None:
        """Have all proxies do something."""
        for proxy in self.proxies:
            verb(proxy)

    def heal(self) -> None:
        self.spoil(FaultProxy.heal)

    def kill(self) -> None:
        """Kill every process of all servers with -9."""
        for server in self.servers:
            server.kill()

    def start(self) -> None:
        """Start them again, and return when they serve."""
        for server in self.servers:
            if not server.running:
                server.start()
        self.ready()

    def pause(self) -> None:
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        for server in self.servers:
            server.resume()


@contextlib.contextmanager
def paused(*servers: Server, at_most: float = 20) -> Iterator[None]:
    """Pause servers. What waits for one for ever must not keep the tests from ending: they go on after `at_most` s."""

    def resume() -> None:
        for server in servers:
            server.resume()

    guard = threading.Timer(at_most, resume)
    try:
        for server in servers:
            server.pause()
        guard.start()
        yield
    finally:
        guard.cancel()
        resume()


@pytest.fixture(scope="module")
def proxied_cluster(cluster: list[Valkey]) -> Iterator[list[FaultProxy]]:
    """The Cluster, which sends its clients through proxies while the tests of one file run."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(HOST, server.port)) for server in cluster]
        announce(cluster, [proxy.port for proxy in proxies])
        yield proxies
        announce(cluster, [0] * len(cluster))


def announce(servers: Sequence[Valkey], ports: Sequence[int]) -> None:
    """Have the servers tell clients other ports than their own (0: their own); no pause makes a replica take over."""
    expected = {port or server.port for server, port in zip(servers, ports, strict=True)}
    for server, port in zip(servers, ports, strict=True):
        stay = "yes" if port else "no"
        server.ask("CONFIG", "SET", "cluster-announce-client-port", port, "cluster-replica-no-failover", stay)
    wait_until(lambda: all("cluster_state:ok" in info(server, "CLUSTER", "INFO") for server in servers))
    wait_until(lambda: all(told_ports(server) == expected for server in servers))


def told_ports(server: Valkey) -> set[int]:
    return {node[1] for entry in server.ask("CLUSTER", "SLOTS") for node in entry[2:]}


@pytest.fixture
def site(kind: str, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site of the kind that the test is parametrised with; the servers run again afterwards, whatever was done."""
    name = f"t{os.getpid()}x{secrets.token_hex(4)}"
    with _SITES[kind](request, name) as site:
        yield site
        site.heal()
        site.resume()
        if not all(server.running for server in site.servers):
            site.start()


@contextlib.contextmanager
def _redis(request: pytest.FixtureRequest, name: str) -> Iterator[Site]:
    server: Valkey = request.getfixturevalue("valkey")
    with FaultProxy(HOST, server.port) as proxy:

        def store(**options: Any) -> Store:
            return RedisStore.from_url(f"redis://{HOST}:{proxy.port}", prefix=name, **options)

        yield Site("redis", [server], [proxy], store)


@contextlib.contextmanager
def _cluster(request: pytest.FixtureRequest, name: str) -> Iterator[Site]:
    servers: list[Valkey] = request.getfixturevalue("cluster")
    proxies: list[FaultProxy] = request.getfixturevalue("proxied_cluster")
    hosts = ",".join(f"{HOST}:{proxy.port}" for proxy in proxies[:3])

    def store(**options: Any) -> Store:
        return RedisStore.from_url(f"redis+cluster://{hosts}", prefix=name, **options)

    ready = partial(announce, servers, [proxy.port for proxy in proxies])
    yield Site("cluster", servers, proxies, store, ready)


@contextlib.contextmanager
def _postgres(request: pytest.FixtureRequest, name: str) -> Iterator[Site]:
    server: OwnServer = request.getfixturevalue("own_postgres")
    with FaultProxy(HOST, server.port) as proxy:

        def store(**options: Any) -> Store:
            return PostgresStore(server.url.replace(f":{server.port}/", f":{proxy.port}/"), schema=name, **options)

        yield Site("postgres", [server], [proxy], store)
    server.ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


_SITES = {"redis": _redis, "cluster": _cluster, "postgres": _postgres}
