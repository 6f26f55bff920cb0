"""The application on Django, whose settings are the process's: they are made once, and changed before each handler."""

from __future__ import annotations

import secrets
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path

from suite.servers import Places


def make(places: Places, engine: str | None) -> Any:
    """Return the application with one of Django's session engines, or without sessions."""
    from django.core.handlers.wsgi import WSGIHandler

    if not settings.configured:
        _configure(places)
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"] if engine else []
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    return WSGIHandler()


def _configure(places: Places) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": places.folder / "django.db", "CONN_MAX_AGE": None}
    settings.configure(
        ALLOWED_HOSTS=["shop.example"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": places.redis}},
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.sessions"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=secrets.token_hex(),
        SESSION_COOKIE_SECURE=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)


# Which pages there are belongs to the process as well, so the bare application has these, too, and no session.


def start(request: Any) -> HttpResponse:
    if hasattr(request, "session"):
        request.session.update({"name": "ann", "count": 0, "cart": ["a1", "b2", "c3"]})
    return HttpResponse("ann")


def read(request: Any) -> HttpResponse:
    return HttpResponse(request.session["name"] if hasattr(request, "session") else "ann")


def write(request: Any) -> HttpResponse:
    if hasattr(request, "session"):
        request.session["count"] += 1
    return HttpResponse("ann")


urlpatterns = [path("start", start), path("read", read), path("write", write)]
