"""The scenarios through Flask, on gunicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestFlask(Scenarios, StoreDown):
    adapter = "flask"
