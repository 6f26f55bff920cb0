"""What it takes to have it: to import it, and to keep its server running.

    python3 tools/dev.py bench footprint [--rounds 15] [--record]

Each import is a fresh interpreter's, by turns, with bytecode that was compiled before; shown is what it takes more than
an interpreter that imports nothing. The server is `coatcheck serve` on an embedded SQLite, after somebody has signed
in with a password, and has been left alone for a moment.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
from suite import command, report, servers
from suite.auth_server import serving
from suite.harness import Spread

LIBRARIES: Final = ("starlette", "fastapi", "litestar", "flask", "django", "pyjwt", "joserfc", "authlib", "uvicorn")
# What a program says when it only wants the library.
IMPORTS: Final = {
    "coatcheck": "import coatcheck",
    "coatcheck, the middleware and Starlette": "import coatcheck, coatcheck.web.starlette, starlette.applications",
    "cryptography's keys and signatures": "from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding",
    "Starlette and its SessionMiddleware": "import starlette.applications, starlette.middleware.sessions",
    "FastAPI": "import fastapi",
    "Litestar": "import litestar",
    "Flask": "import flask",
    "Django, with sessions": "import django.contrib.sessions.middleware, django.core.handlers.wsgi",
    "PyJWT, with its algorithms": "import jwt; jwt.get_algorithm_by_name('RS256')",
    "joserfc": "import joserfc.jwt",
    "Authlib, for tokens": "import warnings; warnings.simplefilter('ignore'); import authlib.jose",
}
NOTHING: Final = "nothing"
# The resident memory at its height; the peak that the system counts for a process may be that of its parent.
CHILD: Final = """
{0}
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(used.ru_utime + used.ru_stime, peak[0].split()[1])
"""
AT_REST: Final = 3.0  # seconds
NAME, PASSWORD = "ann", "four words of mine"
AS_JSON: Final = {"Content-Type": "application/json"}


def main() -> None:
    """Measure, and show."""
    options = command.parse(command.parser(__doc__, rounds=15))
    names = [name for name in IMPORTS if options.only.lower() in name.lower()]
    tables = [imports(names, options.rounds), server(options.rounds)]
    report.publish("footprint", tables, libraries=LIBRARIES, record=options.record)


# -- what an import takes


def imports(names: Sequence[str], rounds: int) -> report.Table:
    """Return the table of what an import takes over an interpreter that imports nothing."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (NOTHING, *names)}
    for number in range(rounds + 1):
        for name, turns in found.items():
            turn = imported(IMPORTS.get(name, ""))
            if number > 0:
                turns.append(turn)
    rows: list[list[report.Cell]] = [
        [
            name,
            *(
                Spread.of([one[i] - bare[i] for one, bare in zip(found[name], found[NOTHING], strict=True)])
                for i in (0, 1)
            ),
        ]
        for name in names
    ]
    return report.Table("footprint: imports", ("import", "ms of CPU", "MB"), rows)


def imported(statement: str) -> tuple[float, float]:
    """Return what a fresh interpreter takes: ms of CPU, and MB at most."""
    command: list[str] = [sys.executable, "-c", CHILD.format(statement)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    seconds, kilobytes = said.split()
    return float(seconds) * 1000, int(kilobytes) * 1024 / 1e6


# -- the server


def server(rounds: int) -> report.Table:
    """Return the table of a server's memory."""
    found: list[dict[str, float]] = [resident() for _ in range(min(rounds, 3))]
    rows: list[list[report.Cell]] = [[name, Spread.of([one[name] for one in found])] for name in found[0]]
    return report.Table("footprint: server", ("the server's memory", "MB"), rows)


def resident() -> dict[str, float]:
    """Return the resident memory of a server: as it begins, and at rest after a sign-in."""
    with ExitStack() as stack:
        data = stack.enter_context(servers.folder()) / "data"
        add = ["-m", "coatcheck.cli", "accounts", "add", NAME, "--password-stdin", "--data-dir", str(data)]
        subprocess.run([sys.executable, *add], check=True, input=f"{PASSWORD}\n", text=True, capture_output=True)  # noqa: S603
        running = stack.enter_context(serving(data, "", os.environ))
        begun = _memory(running.pid)
        sign_in(running.port)
        time.sleep(AT_REST)
        return {"when it has begun": begun, "at rest after a sign-in": _memory(running.pid)}


def _memory(pid: int) -> float:
    memory: Any = psutil.Process(pid).memory_info()
    return float(memory.rss) / 1e6


def sign_in(port: int) -> None:
    """Sign in with a password, and look at what the account's owner can see."""
    connection = http.client.HTTPConnection("localhost", port, timeout=30)
    try:
        connection.request("POST", "/api/sign-in", json.dumps({"account": NAME, "password": PASSWORD}), AS_JSON)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the sign-in was answered {answer.status}")
    finally:
        connection.close()


if __name__ == "__main__":
    main()
