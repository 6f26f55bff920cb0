"""The scenarios through aiohttp, on its own server."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestAiohttp(Scenarios, StoreDown):
    adapter = "aiohttp"
