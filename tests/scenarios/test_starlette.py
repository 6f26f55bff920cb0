"""The scenarios through Starlette, on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestStarlette(Scenarios, StoreDown):
    adapter = "starlette"
