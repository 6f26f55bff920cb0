"""The scenarios through the WSGI middleware alone, on gunicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestWSGI(Scenarios, StoreDown):
    adapter = "wsgi"
