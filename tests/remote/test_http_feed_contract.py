"""HTTPFeed keeps the contract of feeds; what it hears is published beside it, in the feed that the server follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from auth_server import TOKEN
from uvicorn.server import ServerState

from coatcheck.core.revocation import Revoked
from coatcheck.feed import Feed
from coatcheck.feeds.http import HTTPFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.server.feed_endpoint import FeedEndpoint
from coatcheck.server.feed_hub import FeedHub
from coatcheck.server.protocol import GuardedProtocol
from coatcheck.testing import FeedContract, SettableClock

pytestmark = pytest.mark.anyio


class Spoken(HTTPFeed):
    """An HTTPFeed that can be spoken on, with the voice of the feed behind it."""

    def __init__(self, url: str, behind: Feed) -> None:
        super().__init__(url, TOKEN)
        self._behind = behind

    async def publish(self, revoked: tuple[Revoked, ...], now: int) -> None:
        await self._behind.publish(revoked, now)


class TestHTTP(FeedContract):
    @pytest.fixture
    async def feed(self, tmp_path: Path) -> AsyncIterator[Spoken]:
        behind = SQLiteFeed(tmp_path / "feed.db")
        await behind.open()
        hub = FeedHub(behind, clock=SettableClock())
        options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False}
        config, state = uvicorn.Config(FeedEndpoint(hub, [TOKEN]), **options), ServerState()
        config.load()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: GuardedProtocol(config, state, {}), "127.0.0.1", 0)
        yield Spoken(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", behind)
        await hub.close()
        listening.close()
        async with asyncio.timeout(30):
            while state.connections:  # noqa: ASYNC110 (there is no event to wait for)
                await asyncio.sleep(0.01)
        await behind.close()

    @pytest.fixture
    def other(self, feed: Spoken) -> Spoken:
        return Spoken(feed._origin.url, feed._behind)
