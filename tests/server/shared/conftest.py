"""Several servers on one Redis, one Cluster or one PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from places import SHARED, Places, place
from postgres_server import own_server, server
from valkey_server import free_port, own_valkey, single_url

from coatcheck.server.passwords import Passwords
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings

# Fixtures: pytest finds them by these names.
__all__ = ["free_port", "own_server", "own_valkey", "place", "server", "single_url"]

SECRET = "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020"


@pytest.fixture(params=SHARED)
def url(request: pytest.FixtureRequest, place: Places) -> str:
    return place(request.param)


@pytest.fixture
async def two(url: str, tmp_path: Path, cheap: Passwords) -> AsyncIterator[list[Server]]:
    """Two servers that were started at once on an empty store."""
    settings = Settings(data_dir=tmp_path / "data", store=url, secret=SECRET, algorithm="ES256")
    servers = [Server(settings, passwords=cheap) for _ in range(2)]
    await asyncio.gather(*(server.open() for server in servers))
    yield servers
    await asyncio.gather(*(server.close() for server in servers))
