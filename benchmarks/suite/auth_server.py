"""The auth server, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Running(NamedTuple):
    """A server that answers."""

    port: int
    pid: int


@contextmanager
def serving(data: Path, store: str, environment: Mapping[str, str]) -> Iterator[Running]:
    """Run a server, whose sessions are in its data directory unless a store's URL is given."""
    words = ["--data-dir", str(data), "--port", "0", *(["--store", store] if store else [])]
    command = [sys.executable, "-m", "coatcheck.cli", "serve", *words]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(environment)
    ) as process:
        try:
            yield Running(_port_of(process.stdout or ()), process.pid)
        finally:
            process.terminate()


def _port_of(printed: Iterable[str]) -> int:
    """Return the port that a server says it listens on, when it does."""
    port = ""
    for line in printed:
        found = re.search(r"port (\d+)\)", line)
        port = found[1] if found else port
        if line.startswith("  keys"):
            return int(port)
    raise SystemExit("the server has not begun")
