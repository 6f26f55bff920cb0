"""A million sessions: what they take, how fast they are made, and what finding one costs while there are ever more.

    python3 tools/dev.py bench million [--count 1000000] [--only redis] [--record]

Each kind of store is filled four times, with a thousand sessions up to `--count`; then sessions are looked up in the
four by turns. At last half of the largest expire at once, and sessions are looked up and made while they are removed.
Everything lies in a temporary directory: about 3 GB at its height for a million.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any, Final

from suite import command, report
from suite.harness import Spread, short
from suite.many import HOUR, KINDS, Expire, Kind, fill, id_of, session

from coatcheck.store import Store

ROUNDS, LOOK_UPS = 9, 1000
CALLS: Final = 20_000  # the system counts a server's CPU in hundredths of a second


def main() -> None:
    """Load, measure, and show."""
    parser = command.parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    options = command.parse(parser)
    options.count = min(options.count, 2000) if options.quick else options.count
    sizes = [size for size in (1000, 10_000, 100_000) if size < options.count] + [options.count]
    found = []
    for name, furnish in KINDS.items():
        if options.only.lower() in name.lower():
            with ExitStack() as stack, asyncio.Runner() as runner:
                found.append(runner.run(measure(name, furnish(stack), sizes)))
    tables = [
        report.Table("million: size", SIZE_COLUMNS, [[one.name, options.count, *one.size] for one in found]),
        report.Table(
            "million: look-ups", ["p50 and p99, µs", *map("{:,}".format, sizes), GROWN], [one.curve for one in found]
        ),
        report.Table("million: server", SERVER_COLUMNS, [one.server for one in found if one.server]),
        report.Table("million: storm", STORM_COLUMNS, [row for one in found for row in one.storm]),
    ]
    report.publish("million", tables, libraries=("redis", "psycopg", "msgspec"), record=options.record)


SIZE_COLUMNS: Final = ("store", "sessions", "bytes each", "made per second")
GROWN: Final = "p50, last to first"
SERVER_COLUMNS: Final = ("µs of the server's CPU", "look-up, 1", "look-up, 16", "touch, 16", "new session, 16")
STORM_COLUMNS: Final = ("p50, p99 and most, in ms", "at rest", "while half expire", "removed per second")


@dataclass(frozen=True)
class Full:
    """A store that was filled: its name, how many sessions were made and when, and numbers of sessions to come."""

    name: str
    store: Store
    size: int
    now: int
    fresh: Iterator[int]

    async def look_up(self, choose: random.Random) -> None:
        """Look one of its sessions up."""
        await self.store.load(id_of(choose.randrange(self.size)))

    async def touch(self, choose: random.Random) -> None:
        """Note that one of its sessions was used."""
        await self.store.touch(id_of(choose.randrange(self.size)), self.now + HOUR, self.now + 25 * HOUR)

    async def make(self, _choose: random.Random) -> None:
        """Make one more session; it is of those that expire later."""
        await self.store.create(session(next(self.fresh), self.now))


@dataclass(frozen=True)
class Found:
    """What was measured of a kind of store: parts of rows."""

    name: str
    size: Sequence[report.Cell]
    curve: Sequence[report.Cell]
    server: Sequence[report.Cell]
    storm: Sequence[Sequence[report.Cell]]


async def measure(name: str, kind: Kind, sizes: Sequence[int]) -> Found:
    """Return everything about one kind of store."""
    stores = [kind.make(number) for number in range(len(sizes))]
    now, largest = int(time.time() * 1000), len(sizes) - 1
    empty, speed = 0, 0.0
    for number, (store, size) in enumerate(zip(stores, sizes, strict=True)):
        await store.open()
        empty = kind.size(number)
        speed = await fill(store, size, now)
        print(f"{name}: {size:,} sessions, {speed:,.0f} a second", flush=True)
    each = (kind.size(largest) - empty) / sizes[-1]
    curve = await look_ups(name, stores, sizes)
    full = Full(name, stores[-1], sizes[-1], now, iter(range(sizes[-1] // 2 * 2 + 1, 2**40, 2)))
    server = await server_cost(full, kind.busy) if kind.busy else []
    storm = await expiry_storm(full, partial(kind.storm, largest, full.store, full.size))
    for store in stores:
        await store.close()
    found = Found(name, [round(each), round(speed)], curve, server, storm)
    for row in (found.size, found.curve, found.server, *found.storm):
        print(" | ".join(map(report.text, row)), flush=True)
    return found


# -- the curve


async def look_ups(name: str, stores: Sequence[Store], sizes: Sequence[int]) -> list[report.Cell]:
    """Return the row of p50 and p99 for each size, and how much the largest's p50 is above the smallest's."""
    choose = random.Random(1)  # noqa: S311 (the same sessions each time)
    taken: list[list[list[float]]] = [[] for _ in sizes]
    for number in range(ROUNDS + 1):
        for store, size, turns in zip(stores, sizes, taken, strict=True):
            turn = await look_up_some(store, [id_of(choose.randrange(size)) for _ in range(LOOK_UPS)])
            if number > 0:
                turns.append(turn)
    medians = [[percentile(turn, 50) for turn in turns] for turns in taken]
    grown = Spread.of([last / first for first, last in zip(medians[0], medians[-1], strict=True)])
    return [name, *(both(turns) for turns in taken), grown]


async def look_up_some(store: Store, ids: Sequence[str]) -> list[float]:
    """Return how long each look-up took, in microseconds."""
    taken: list[float] = []
    for id in ids:
        began = time.perf_counter()
        record = await store.load(id)
        taken.append((time.perf_counter() - began) * 1e6)
        if record is None:
            raise RuntimeError("a session was not found")
    return taken


def both(turns: Sequence[Sequence[float]]) -> str:
    """Return the p50 and p99 of all turns together."""
    figures = [figure for turn in turns for figure in turn]
    return f"{short(percentile(figures, 50))}, {short(percentile(figures, 99))}"


def percentile(figures: Sequence[float], percent: int) -> float:
    """Return the figure that so many per cent do not exceed."""
    return quantiles(figures, n=100, method="inclusive")[percent - 1]


# -- the server


async def server_cost(full: Full, busy: Callable[[], float]) -> list[report.Cell]:
    """Return the row of what one call costs the server, in microseconds of its CPU."""
    row: list[report.Cell] = [full.name]
    for call, at_once in ((full.look_up, 1), (full.look_up, 16), (full.touch, 16), (full.make, 16)):
        choose, times, before = random.Random(3), CALLS // at_once, busy()  # noqa: S311
        await asyncio.gather(*(_repeat(call, choose, times) for _ in range(at_once)))
        row.append((busy() - before) / (times * at_once) * 1e6)
    return row


async def _repeat(call: Callable[[random.Random], Awaitable[None]], choose: random.Random, times: int) -> None:
    for _ in range(times):
        await call(choose)


# -- the storm


async def expiry_storm(full: Full, prepare: Callable[[], Awaitable[Expire]]) -> list[list[report.Cell]]:
    """Return the rows of look-ups and of new sessions, at rest and while half of the sessions expire."""
    rest_loads, rest_makes = await traffic(full, asyncio.create_task(asyncio.sleep(10)))
    expire = await prepare()
    began = time.perf_counter()
    expiring = asyncio.ensure_future(expire())
    loads, makes = await traffic(full, expiring)
    removed = round(expiring.result() / (time.perf_counter() - began))
    return [
        [f"{full.name}, look-up", _latency(rest_loads), _latency(loads), removed],
        [f"{full.name}, new session", _latency(rest_makes), _latency(makes), None],
    ]


async def traffic(full: Full, until: asyncio.Future[Any]) -> tuple[list[float], list[float]]:
    """Look sessions up and make some, a few hundred a second of each, and return how long each took, in ms."""
    choose = random.Random(2)  # noqa: S311

    async def keep_on(call: Callable[[random.Random], Awaitable[None]], pause: float) -> list[float]:
        taken: list[float] = []
        while not until.done():
            began = time.perf_counter()
            await call(choose)
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(pause)
        return taken

    loads, makes, _ = await asyncio.gather(keep_on(full.look_up, 0.002), keep_on(full.make, 0.005), until)
    return loads, makes


def _latency(figures: Sequence[float]) -> str:
    return f"{percentile(figures, 50):.2f}, {percentile(figures, 99):.2f}, {max(figures):.1f}"


if __name__ == "__main__":
    main()
