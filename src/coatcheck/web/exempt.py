"""csrf_exempt: which unsafe requests other sites may send, by the path or by a mark on the view; one rule for all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from coatcheck.errors import ConfigurationError

View = TypeVar("View", bound=Callable[..., Any])

_MARK: Final = "_coatcheck_csrf_exempt"
_OF_A_TEMPLATE: Final = frozenset("{<")


def csrf_exempt(view: View) -> View:
    """Mark a view as one that other sites may send unsafe requests to: for webhooks and the like.

    It stands below the route: `@app.post("/hook")`, and then `@csrf_exempt`.
    """
    setattr(view, _MARK, True)
    return view


def is_exempt(view: object) -> bool:
    """Say whether a view is marked."""
    return hasattr(view, _MARK)


def exempt_paths(paths: Collection[str]) -> frozenset[str]:
    """Return the paths that an application has named.

    Raises:
        ConfigurationError: it is a single path, or one of them is the template of a route, which no path equals.
    """
    for path in (named := exempt_routes(paths)):
        if not _OF_A_TEMPLATE.isdisjoint(path):
            raise ConfigurationError(f"csrf_exempt takes whole paths here; of {path!r}, mark the route itself")
    return named


def exempt_routes(paths: Collection[str]) -> frozenset[str]:
    """Return the paths that an application has named, templates of routes among them.

    Raises:
        ConfigurationError: it is a single path.
    """
    if isinstance(paths, str):
        raise ConfigurationError("csrf_exempt is a collection of paths; a single one is [path]")
    return frozenset(paths)
