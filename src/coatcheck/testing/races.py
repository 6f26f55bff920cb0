"""The race explorer: runs racing coroutines in every order in which their store calls can interleave.

A store's methods are atomic, so the only places at which requests can meet are between them. `Stepping` makes
each call of a store such a place, and `explore` runs the race again for every schedule, depth first, and checks
each outcome. What holds afterwards holds for every interleaving, not for those that a test happened to hit.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

from coatcheck.core.record import Record
from coatcheck.store import Durability, Store

Outcome = Any
"""What a racer returned, or the exception that it raised."""

MOST_SCHEDULES = 500_000


class Race:
    """One race, freshly set up.

    Args:
        racers: coroutines that use a `Stepping` store.
        check: called with each racer's outcome, in the racers' order, after the last has finished; asserts.
    """

    def __init__(self, racers: Sequence[Coroutine[Any, Any, Any]], check: Callable[[list[Outcome]], None]) -> None:
        self.racers = racers
        self.check = check


class _Step:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def step() -> None:
    """Let the scheduler decide who goes next: for whatever else of a race should be a place to change over."""
    await _Step()


class Stepping:
    """A store whose every call first lets the scheduler decide who goes next."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def durability(self) -> Durability:
        """What the store underneath says."""
        return self._store.durability

    async def open(self) -> None:
        """Open the store underneath."""
        await self._store.open()

    async def close(self) -> None:
        """Close the store underneath."""
        await self._store.close()

    async def create(self, record: Record) -> bool:
        """Step, then create."""
        await _Step()
        return await self._store.create(record)

    async def load(self, id: str) -> Record | None:
        """Step, then load."""
        await _Step()
        return await self._store.load(id)

    async def replace(self, record: Record) -> bool:
        """Step, then replace."""
        await _Step()
        return await self._store.replace(record)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Step, then touch."""
        await _Step()
        await self._store.touch(id, seen_at, expires_at)

    async def delete(self, id: str) -> Record | None:
        """Step, then delete."""
        await _Step()
        return await self._store.delete(id)

    async def list(self, subject: str) -> builtins.list[Record]:
        """Step, then list."""
        await _Step()
        return await self._store.list(subject)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Step, then revoke the subject."""
        await _Step()
        return await self._store.revoke_subject(subject, before, keep)

    async def sweep(self, now: int) -> int:
        """Step, then sweep."""
        await _Step()
        return await self._store.sweep(now)


def explore(set_up: Callable[[], Race], *, most: int = MOST_SCHEDULES) -> int:
    """Run the race in every schedule, and return how many there were.

    Args:
        set_up: makes the race anew: its own store, its own sessions; nothing is shared between schedules.
        most: give up beyond this many schedules instead of running for ever.

    Raises:
        AssertionError: a check failed; the note on it names the schedule.
        RuntimeError: there are more schedules than `most`.
    """
    schedule: list[int] = []
    for count in range(1, most + 1):
        choices, options = _run(set_up(), schedule)
        while options and choices[-1] == options[-1] - 1:
            choices.pop()
            options.pop()
        if not options:
            return count
        schedule = [*choices[:-1], choices[-1] + 1]
    raise RuntimeError(f"more than {most} schedules")


def _run(race: Race, schedule: list[int]) -> tuple[list[int], list[int]]:
    """Run one schedule; return the choice made at each step, and how many there were to choose from."""
    outcomes: list[Outcome] = [None] * len(race.racers)
    waiting = list(range(len(race.racers)))
    choices: list[int] = []
    options: list[int] = []
    while waiting:
        choice = schedule[len(choices)] if len(choices) < len(schedule) else 0
        choices.append(choice)
        options.append(len(waiting))
        racer = waiting[choice]
        try:
            race.racers[racer].send(None)
        except StopIteration as stop:
            outcomes[racer] = stop.value
            waiting.remove(racer)
        except Exception as error:  # noqa: BLE001 - an outcome like any other, for the check to judge
            outcomes[racer] = error
            waiting.remove(racer)
    try:
        race.check(outcomes)
    except AssertionError as failure:
        failure.add_note(f"in the schedule {choices}, with the outcomes {outcomes}")
        raise
    return choices, options
