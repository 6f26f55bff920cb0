"""The scenarios through FastAPI, on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestFastAPI(Scenarios, StoreDown):
    adapter = "fastapi"
