"""Places: a new, empty place for sessions of each kind, by its URL, on real servers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

LOCAL: Final = ("file", "sqlite")
SHARED: Final = ("redis", "cluster", "postgres")
KINDS: Final = (*LOCAL, *SHARED)

Places = Callable[[str], str]
"""Takes a kind, and returns the URL of a place of that kind that nobody has used."""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    databases: list[tuple[str, str]] = []

    def place(kind: str) -> str:
        name = f"p{os.getpid()}x{secrets.token_hex(4)}"
        if kind == "file":
            return f"file://{tmp_path / name}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / name}.sqlite"
        if kind == "redis":
            return f"{request.getfixturevalue('single_url')}?prefix={name}&allow_volatile=1"
        if kind == "cluster":
            ports = [server.port for server in request.getfixturevalue("cluster")[:3]]
            return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}?prefix={name}"
        # The schema's name is no part of a URL, so it is a database of its own.
        server = str(request.getfixturevalue("server").url)
        _ask(server, f"CREATE DATABASE {name}")
        databases.append((server, name))
        return server.rpartition("/")[0] + f"/{name}"

    yield place
    for server, name in databases:
        _ask(server, f"DROP DATABASE {name} WITH (FORCE)")


def _ask(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())
