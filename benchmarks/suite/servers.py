"""Real servers, from the same wheels as in the tests, for as long as a benchmark runs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "shared"))

from postgres_server import OwnServer, programs_in
from valkey_server import AOF, Valkey


@dataclass(frozen=True)
class Places:
    """Where sessions can be kept."""

    redis: str
    postgres: str
    folder: Path


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="coatcheck-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def valkey() -> Iterator[Valkey]:
    """Give a Valkey that logs every write, as its users must have it, and syncs the log each second."""
    with folder() as home:
        server = Valkey(home, *AOF, "everysec")
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def postgres() -> Iterator[OwnServer]:
    """Give a PostgreSQL with the settings that it comes with."""
    with folder() as home:
        server = OwnServer(home, programs_in(home))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def places() -> Iterator[Places]:
    """Give both, and a folder."""
    with valkey() as redis, postgres() as database, folder() as path:
        yield Places(redis.url, database.url, path)
