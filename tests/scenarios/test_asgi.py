"""The scenarios through the ASGI middleware alone, on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestASGI(Scenarios, StoreDown):
    adapter = "asgi"
