"""URLs of PostgreSQL are libpq's. Three options are ours, and are taken out before libpq sees the rest:

schema        that holds our tables
connections   at most so many for each process, and for each event loop in it
timeout       in seconds: how long a call may take
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote

from coatcheck.errors import ConfigurationError

_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "schema": str,
    "connections": int,
    "timeout": lambda text: timedelta(seconds=float(text)),
}


def parse(url: str) -> tuple[str, dict[str, Any]]:
    """Return what libpq gets of a URL, and our options as arguments of PostgresStore and its like.

    Raises:
        ConfigurationError: an option is not what it should be.
    """
    place, mark, query = url.partition("?")
    theirs: list[str] = []
    ours: dict[str, Any] = {}
    for option in query.split("&"):
        name, _, text = option.partition("=")
        if name not in _READERS:
            theirs.append(option)
            continue
        try:
            ours[name] = _READERS[name](unquote(text))
        except (ValueError, OverflowError):
            raise ConfigurationError(f"{name} of a PostgreSQL URL is not what it should be") from None
    return (place + mark + "&".join(theirs)).removesuffix("?"), ours
