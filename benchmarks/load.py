"""Whole servers under load: how much of a bare server's throughput is left when it has sessions.

    python3 tools/dev.py bench load [--only redis] [--rounds 7] [--seconds 1] [--record]

Each server is one process, and a load generator in another process keeps 32 connections of 32 users busy, for a second
at a time, one server after another. Where there are two cores or more, the server has one for itself; the generator,
Redis and PostgreSQL share another. A server's share is its throughput over that of the same server without sessions;
beside it stands what its CPU says, requests for each second of CPU, which the other processes cannot slow down.
Node's rows need Node and npm, and are left out where they are not.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from suite import command, node, report
from suite.harness import Spread
from suite.servers import Places, places
from suite.traffic import HEADERS, credential_of

LIBRARIES: Final = (
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "starsessions",
    "litestar",
    "redis",
    "psycopg",
    "pyjwt",
)
USERS: Final = 32
CORES: Final = sorted(os.sched_getaffinity(0))
# Each bare server, and those that are compared with it.
PYTHON: Final = {
    "Starlette": (
        "coatcheck, memory",
        "coatcheck, sealed cookie",
        "coatcheck, SQLite",
        "coatcheck, Redis",
        "coatcheck, Redis, near cache",
        "coatcheck, PostgreSQL",
        "coatcheck, RS256 token",
        "coatcheck, a token seen before",
        "Starlette, signed cookie",
        "starsessions, memory",
        "starsessions, Redis",
        "PyJWT by hand, RS256",
    ),
    "Litestar": ("coatcheck on Litestar, Redis", "Litestar, memory", "Litestar, Redis"),
}
ON_NODE: Final = {
    "Express": ("express-session, memory", "express-session, Redis"),
    "Fastify": ("fastify-session, memory", "fastify-session, Redis"),
}


def main() -> None:
    """Measure, and show."""
    parser = command.parser(__doc__, rounds=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    options = command.parse(parser)
    begins = node.prepare()
    groups = {**PYTHON, **(ON_NODE if begins else {})}
    wanted = {bare: [name for name in names if options.only.lower() in name.lower()] for bare, names in groups.items()}
    with ExitStack() as stack:
        stack.enter_context(on_cores(CORES[1:] or CORES))
        where = stack.enter_context(places())
        generator = Generator(stack)
        found = [
            stack.enter_context(running(name, bare, where, begins or []))
            for bare, names in wanted.items()
            for name in ((bare, *names) if names else ())
        ]
        for number in range(options.rounds + 1):
            for server in found:
                turn = generator.turn(server, 0.3 if options.quick else options.seconds)
                if number > 0:
                    server.turns.append(turn)
    tables = [shares(found)]
    report.publish("load", tables, libraries=LIBRARIES, more=versions(begins), record=options.record)


def versions(begins: Sequence[str] | None) -> dict[str, str]:
    """Return the versions of what is not in this environment."""
    return node.versions() if begins else {}


def shares(found: Sequence[Server]) -> report.Table:
    """Return the table."""
    bare = {server.name: server for server in found}
    rows: list[list[report.Cell]] = []
    for server in found:
        of = bare[server.bare]
        pairs = list(zip(server.turns, of.turns, strict=True))
        if server is of:
            shares: list[report.Cell] = [None, None]
        else:
            shares = [
                Spread.of([mine.by_clock / its.by_clock for mine, its in pairs]),
                Spread.of([mine.by_cpu / its.by_cpu for mine, its in pairs]),
            ]
        busy = Spread.of([turn.busy for turn in server.turns])
        rows.append([server.name, *shares, Spread.of([turn.by_clock for turn in server.turns]), busy])
    columns = (
        "share of the bare server",
        "of its throughput",
        "of its requests a second of CPU",
        "requests a second",
        "busy",
    )
    return report.Table("load", columns, rows)


# -- the servers


@dataclass(frozen=True)
class Turn:
    """How many requests were answered in a second, and in a second of the server's CPU; and its share of a core."""

    by_clock: float
    by_cpu: float
    busy: float


@dataclass(frozen=True)
class Server:
    """A server that runs, and how it did."""

    name: str
    bare: str
    port: int
    process: Any
    turns: list[Turn] = field(default_factory=list)


@contextmanager
def running(name: str, bare: str, where: Places, begins: Sequence[str]) -> Iterator[Server]:
    """Run one application in a process of its own."""
    if bare in ON_NODE:
        words = [*begins, name, where.redis]
        environment = {**os.environ, "NODE_ENV": "production"}
    else:
        words = [sys.executable, "-m", "suite.one_server", name, where.redis, where.postgres, str(where.folder)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with on_cores(CORES[:1]):
        started = subprocess.Popen(  # noqa: S603 - programs of ours
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
    with started as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"{name} has not begun")
            port = int(line)
            yield Server(name, bare, port, psutil.Process(process.pid))
        finally:
            process.terminate()


def request_of(port: int) -> str:
    """Return the request that one more user sends: with the cookie, or the token, that they were given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/start", headers=dict(HEADERS))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"/start was answered {answer.status}")
    name, value = credential_of(answer.getheaders())
    lines = [*HEADERS, *([(name, value)] if value else [])]
    return "".join(["GET /read HTTP/1.1\r\n", *(f"{key}: {text}\r\n" for key, text in lines), "\r\n"])


# -- the load


class Generator:
    """The other process, which asks."""

    def __init__(self, stack: ExitStack) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "suite.generator"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )

    def turn(self, server: Server, seconds: float) -> Turn:
        """Return what one turn of a server was like; its users are new ones each time."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("the load generator has no pipes")
        told = {"port": server.port, "requests": [request_of(server.port) for _ in range(USERS)], "seconds": seconds}
        before = server.process.cpu_times()
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"the load generator gave up on {server.name}")
        answers, taken = json.loads(said)
        after = server.process.cpu_times()
        cpu = after.user + after.system - before.user - before.system
        return Turn(answers / taken, answers / cpu, cpu / taken)


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Have what is started meanwhile run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    main()
