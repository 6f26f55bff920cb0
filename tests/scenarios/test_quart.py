"""The scenarios through Quart, on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestQuart(Scenarios, StoreDown):
    adapter = "quart"
