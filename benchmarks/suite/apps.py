"""All applications, in the order of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from suite import on_bearer, on_django, on_flask, on_litestar, on_starlette
from suite.small_app import App

# What each stack costs without sessions.
BARE: Final = (on_starlette.BARE, on_litestar.BARE, on_flask.BARE, on_django.BARE)
# They block, so a thread of their own serves them, one request at a time.
WSGI: Final = frozenset({"Flask", "Django"})
APPS: Final = (
    *on_starlette.OURS,
    *on_bearer.OURS,
    *on_starlette.PEERS,
    *on_bearer.PEERS,
    *on_litestar.OURS,
    *on_litestar.PEERS,
    *on_flask.OURS,
    *on_flask.PEERS,
    *on_django.OURS,
    *on_django.PEERS,
)


def named(*names: str) -> Sequence[App]:
    """Return applications by their names."""
    known = {app.name: app for app in (*BARE, *APPS)}
    return [known[name] for name in names]
