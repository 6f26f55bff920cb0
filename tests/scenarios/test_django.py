"""The scenarios through Django, on gunicorn and on uvicorn."""

from __future__ import annotations

from scenarios import Scenarios, StoreDown


class TestDjangoWSGI(Scenarios, StoreDown):
    adapter = "django_wsgi"


class TestDjangoASGI(Scenarios, StoreDown):
    adapter = "django_asgi"
