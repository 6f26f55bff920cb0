"""The application on Django, whose settings are the process's: they are made once, and changed before each handler."""

from __future__ import annotations

import secrets
from typing import Any, Final

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path

from coatcheck import Coatcheck, Sealed, SQLiteStore
from coatcheck.run import run
from coatcheck.store import Store
from coatcheck.stores.redis import RedisStore
from suite.servers import Places
from suite.small_app import CONTENT, App

THEIRS: Final = "django.contrib.sessions.middleware.SessionMiddleware"
OURS_THERE: Final = "coatcheck.web.django.CoatcheckMiddleware"


def _make(places: Places, *middleware: str, **changed: Any) -> Any:
    from django.core.handlers.wsgi import WSGIHandler

    if not settings.configured:
        _configure(places)
    settings.MIDDLEWARE = list(middleware)
    for name, value in changed.items():
        setattr(settings, name, value)
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


def _own(name: str, engine: str) -> App:
    module = f"django.contrib.sessions.backends.{engine}"
    return App(name, "Django", lambda places: _make(places, THEIRS, SESSION_ENGINE=module))


def _ours(places: Places, store: Store | Sealed) -> Any:
    return _make(places, OURS_THERE, SESSION_ENGINE="coatcheck.web.django", COATCHECK=Coatcheck(store))


# Which pages there are belongs to the process as well, so the bare application has these, too, and no session.


def start(request: Any) -> HttpResponse:
    if hasattr(request, "coatcheck"):
        run(request.coatcheck.sign_in("ann", amr=("pwd",)))
    if hasattr(request, "session"):
        request.session.update(CONTENT)
    return HttpResponse("ann")


def read(request: Any) -> HttpResponse:
    return HttpResponse(request.session["name"] if hasattr(request, "session") else "ann")


def write(request: Any) -> HttpResponse:
    if hasattr(request, "session"):
        request.session["count"] += 1
    return HttpResponse("ann")


urlpatterns = [path("start", start), path("read", read), path("write", write)]

BARE: Final = App("Django", "Django", _make)
OURS: Final = (
    App("coatcheck on Django, sealed cookie", "Django", lambda p: _ours(p, Sealed())),
    App(
        "coatcheck on Django, SQLite",
        "Django",
        lambda p: _ours(p, SQLiteStore(p.folder / f"{secrets.token_hex(4)}.db")),
    ),
    App("coatcheck on Django, Redis", "Django", lambda p: _ours(p, RedisStore.from_url(p.redis))),
)
PEERS: Final = (
    _own("Django, signed cookie", "signed_cookies"),
    _own("Django, cache on Redis", "cache"),
    _own("Django, SQLite behind Redis", "cached_db"),
    _own("Django, SQLite", "db"),
)
