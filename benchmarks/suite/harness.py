"""Cases, measured side by side: A B C, A B C, and so on, so that what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

Work = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        name: how the table calls it.
        work: does it so many times.
        times: how often in each round.
        prepare: is called before each round, and not measured.
    """

    name: str
    work: Work
    times: int = 1000
    prepare: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Timing:
    """What one turn of a case took for each time, in microseconds: of this process's CPU, and by the clock."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Spread:
    """The median of several figures, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Return the spread of at least two figures."""
        low, median, high = quantiles(figures, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


async def measure(cases: Sequence[Case], *, rounds: int) -> dict[str, list[Timing]]:
    """Return the timings of each case, one a round; a round before the first warms up and counts for nothing."""
    timings: dict[str, list[Timing]] = {case.name: [] for case in cases}
    if len(timings) != len(cases):
        raise ValueError("two cases of one name")
    gc.collect()
    gc.freeze()  # what the other cases have made is no garbage, and no case is to search through it
    for number in range(rounds + 1):
        for case in cases:
            timing = await _turn(case)
            if number > 0:
                timings[case.name].append(timing)
    gc.unfreeze()
    return timings


async def _turn(case: Case) -> Timing:
    if case.prepare is not None:
        await case.prepare()
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await case.work(case.times)
    return Timing(
        cpu=(time.process_time() - cpu) / case.times * 1e6,
        wall=(time.perf_counter() - wall) / case.times * 1e6,
    )


def microseconds(timings: Sequence[Timing]) -> Spread:
    """Return the CPU that a case takes."""
    return Spread.of([timing.cpu for timing in timings])


def over(timings: Sequence[Timing], bare: Sequence[Timing]) -> Spread:
    """Return how much more CPU one case takes than another, from the difference in each round."""
    return Spread.of([one.cpu - other.cpu for one, other in zip(timings, bare, strict=True)])


def ratio(timings: Sequence[Timing], unit: Sequence[Timing]) -> Spread:
    """Return how many times the CPU of another a case takes, from the quotient in each round."""
    return Spread.of([one.cpu / other.cpu for one, other in zip(timings, unit, strict=True)])


def grown(timings: Sequence[Timing], first: Sequence[Timing], bare: Sequence[Timing]) -> Spread:
    """Return how many times as much as the first a case takes more than another, from what there was in each round."""
    rounds = zip(timings, first, bare, strict=True)
    return Spread.of([(one.cpu - other.cpu) / (least.cpu - other.cpu) for one, least, other in rounds])


def short(figure: float) -> str:
    """Return a figure with as many digits as mean something."""
    return f"{figure:.2f}" if abs(figure) < 9.995 else f"{figure:.1f}" if abs(figure) < 99.95 else f"{figure:,.0f}"
