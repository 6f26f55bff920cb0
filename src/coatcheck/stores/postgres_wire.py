"""postgres_wire: psycopg's connections, which wait no longer than they may, and leave nothing open.

- A wait ends at its deadline whatever the server does.
- An attempt to connect that fails is a cycle in psycopg: the error, the frame that it came through, and in that frame
  the error and the socket. In a long outage sockets would be left open until the garbage is collected, which may take
  its time: `clear_frames` has them closed now.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from time import monotonic
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg.errors import Diagnostic

if TYPE_CHECKING:
    from psycopg.abc import PQGen

T = TypeVar("T")
Row = tuple[Any, ...]


class Answer(NamedTuple):
    """What a statement returned, and how many rows it was about."""

    rows: list[Row]
    affected: int


class TooLate(psycopg.OperationalError):
    """The server did not answer in time."""


def _limited(work: PQGen[T], deadline: float) -> Generator[Any, Any, T]:
    """Do what the driver's generator does, but not beyond the deadline; the driver looks up ten times a second."""
    try:
        wanted: Any = next(work)
        while True:
            ready = yield wanted
            if monotonic() > deadline:
                raise TooLate("no answer in time")
            wanted = work.send(ready)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Bounded:
    """What a connection of either kind knows: until when it may wait, and whether it was warned."""

    deadline: float = inf
    warned: bool = False

    def hear(self, notice: Diagnostic) -> None:
        """Remember a warning: a commit that no longer waits for its standby says so in one, and succeeds."""
        if notice.severity_nonlocalized == "WARNING":
            self.warned = True


class Connection(Bounded, psycopg.Connection[Row]):
    """A connection for threads."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect, or leave nothing open."""
        try:
            return super().connect(*args, **kwargs)
        except psycopg.Error as error:
            clear_frames(error.__traceback__)
            raise

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for the driver's generator, until the deadline."""
        return super().wait(_limited(gen, self.deadline), *args, **kwargs)


class AsyncConnection(Bounded, psycopg.AsyncConnection[Row]):
    """A connection for an event loop."""

    @classmethod
    async def connect(cls, *args: Any, **kwargs: Any) -> Self:
        """Connect, or leave nothing open."""
        try:
            return await super().connect(*args, **kwargs)
        except psycopg.Error as error:
            clear_frames(error.__traceback__)
            raise

    async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for the driver's generator, until the deadline."""
        return await super().wait(_limited(gen, self.deadline), *args, **kwargs)


def judged(connection: Bounded, answer: Answer) -> Answer:
    """Return an answer, unless a warning says that what was committed may be lost.

    Raises:
        TooLate: one does.
    """
    if connection.warned:
        raise TooLate("the server warned: a standby may not have what was committed")
    return answer
