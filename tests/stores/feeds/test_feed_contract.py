"""Every feed keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coatcheck.feed import Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.postgres import PostgresFeed
from coatcheck.feeds.redis import RedisFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.testing import FeedContract

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(feed: Feed) -> AsyncIterator[Feed]:
    await feed.open()
    yield feed
    await feed.close()


class TestLocal(FeedContract):
    @pytest.fixture
    async def feed(self) -> AsyncIterator[Feed]:
        async with opened(LocalFeed()) as feed:
            yield feed

    @pytest.fixture
    def other(self, feed: Feed) -> Feed:
        return feed  # there is no other process


class TestSQLite(FeedContract):
    @pytest.fixture
    async def feed(self, tmp_path: Path) -> AsyncIterator[Feed]:
        async with opened(SQLiteFeed(tmp_path / "feed.db")) as feed:
            yield feed

    other = feed


class TestRedis(FeedContract):
    @pytest.fixture
    async def feed(self, single_url: str, prefix: str) -> AsyncIterator[Feed]:
        async with opened(RedisFeed.from_url(single_url, prefix=prefix, allow_volatile=True)) as feed:
            yield feed

    other = feed


class TestCluster(FeedContract):
    @pytest.fixture
    async def feed(self, cluster: list[Any], prefix: str) -> AsyncIterator[Feed]:
        url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
        async with opened(RedisFeed.from_url(url, prefix=prefix)) as feed:
            yield feed

    other = feed


class TestPostgres(FeedContract):
    @pytest.fixture
    async def feed(self, server: Any, schema: str) -> AsyncIterator[Feed]:
        async with opened(PostgresFeed(server.url, schema=schema)) as feed:
            yield feed

    other = feed
