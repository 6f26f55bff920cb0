"""The small application that each session library gets, in its documented form: what it answers, and how it is listed.

/start fills the session, /read answers with a value from it, and /write counts up a value in it. The bare application
of each framework has the same pages, which answer the same and know of no session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from suite.servers import Places

PATHS: Final = ("/start", "/read", "/write")
CONTENT: Final = {"name": "ann", "count": 0, "cart": ["a1", "b2", "c3"]}
SECRET: Final = "a secret of the benchmark, 32 characters and more"  # noqa: S105


class App(NamedTuple):
    """An application to measure.

    Args:
        name: how the tables call it.
        stack: the bare application that it is compared with.
        make: makes it.
        pages: what can be asked of it; a bearer token cannot be written to.
    """

    name: str
    stack: str
    make: Callable[[Places], Any]
    pages: tuple[str, ...] = ("read", "write")

    @property
    def has_server(self) -> bool:
        """Whether its sessions are in a process of their own."""
        return any(word in self.name for word in ("Redis", "redis", "PostgreSQL", "asyncpg"))
