"""The scenarios through Litestar, on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestLitestar(Scenarios, StoreDown):
    adapter = "litestar"
