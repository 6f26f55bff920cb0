"""What a session costs for each request: this process's CPU over the same application without sessions, in one process.

    python3 tools/dev.py bench overhead [--only redis] [--rounds 9] [--times 400] [--record]

Requests are made without sockets, so that nothing but the application is measured; 16 in flight means 16 users at a
time, who each send their next request when they have their answer. Round trips and bytes are counted by a proxy
between the application and its server, in another process and not while time is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from suite import report
from suite.apps import BARE, OURS, PEERS, WSGI, App
from suite.counting import Count, counted
from suite.harness import Case, Timing, measure, over
from suite.servers import Places, places
from suite.traffic import USERS, AsgiBrowsers, WsgiBrowsers, in_flight, in_thread, in_turn

LIBRARIES: Final = (
    "starlette",
    "starsessions",
    "redis",
    "asyncpg",
    "psycopg",
    "litestar",
    "flask",
    "flask-session",
    "django",
)
PAGES: Final = ("read", "write")
COUNTED: Final = 320

Browsers = AsgiBrowsers | WsgiBrowsers


def main() -> None:
    """Measure, and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="a word that a row's name holds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=400, help="requests a round")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if options.only and options.record:
        parser.error("a part is not recorded")
    apps = [app for app in (*OURS, *PEERS) if options.only.lower() in app.name.lower()]
    with places() as found:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            counts = other.submit(counted_in_all, found, [app.name for app in apps]).result()
        timings = asyncio.run(time_all(found, apps, options.rounds, options.times))
    tables = [costs(apps, timings), trips(counts)]
    report.publish("overhead", tables, libraries=LIBRARIES, record=options.record)


# -- CPU


async def time_all(where: Places, apps: Sequence[App], rounds: int, times: int) -> dict[str, list[Timing]]:
    """Return the timings of every application and page."""
    cases: list[Case] = []
    for app in (*BARE, *apps):
        browsers = await opened(app, where)
        for page in PAGES:
            cases += cases_of(app, page, browsers, times)
    return await measure(cases, rounds=rounds)


async def opened(app: App, where: Places) -> Browsers:
    """Return the application's users; each has a session, if it has any."""
    if app.stack in WSGI:
        browsers = WsgiBrowsers(await in_thread(app.make, where))
        await in_thread(browsers.visit, 0, "/start")
        return browsers
    awaiting = AsgiBrowsers(app.make(where))
    for user in range(USERS):
        await awaiting.visit(user, "/start")
    return awaiting


def cases_of(app: App, page: str, browsers: Browsers, times: int) -> list[Case]:
    """Return the cases of one page: one request in flight, and sixteen where that can be."""
    if isinstance(browsers, WsgiBrowsers):
        return [Case(f"{app.name} {page} 1", in_turn(browsers, f"/{page}"), times)]
    return [
        Case(f"{app.name} {page} {users}", in_flight(users, browsers, f"/{page}"), times // users * users)
        for users in (1, USERS)
    ]


def costs(apps: Sequence[App], timings: dict[str, list[Timing]]) -> report.Table:
    """Return the table of CPU over the bare application."""
    rows: list[list[report.Cell]] = []
    for app in apps:
        row: list[report.Cell] = [app.name]
        for page in PAGES:
            for users in (1, USERS):
                mine = timings.get(f"{app.name} {page} {users}")
                row.append(over(mine, timings[f"{app.stack} {page} {users}"]) if mine else None)
        rows.append(row)
    columns = ("µs of CPU over the bare application", "read, 1", "read, 16", "write, 1", "write, 16")
    return report.Table("overhead: CPU", columns, rows)


# -- round trips


def counted_in_all(where: Places, names: Sequence[str]) -> list[list[report.Cell]]:
    """Return a row of counts for each application that has a server."""
    apps = [app for app in (*OURS, *PEERS) if app.name in names]
    count = Count()
    with counted(where.redis, count) as redis, counted(where.postgres, count) as postgres:
        watched = Places(redis, postgres, where.folder)
        rows = [asyncio.run(count_app(app, watched, count)) for app in apps]
    return [row for row in rows if isinstance(row[1], float) and row[1] > 0.5]  # others hear the last words of these


async def count_app(app: App, where: Places, count: Count) -> list[report.Cell]:
    """Return the row of an application, which has an event loop to itself: nothing else speaks meanwhile."""
    browsers = await opened(app, where)
    row: list[report.Cell] = [app.name]
    for page in PAGES:
        row += await count_page(app, page, browsers, count)
    return row


async def count_page(app: App, page: str, browsers: Browsers, count: Count) -> list[report.Cell]:
    """Return round trips for each request with 1 and with 16 in flight, and the bytes of one, there and back."""
    trips: list[report.Cell] = []
    size = 0
    for case in cases_of(app, page, browsers, COUNTED):
        for _ in range(2):  # the first time opens connections
            count.reset()
            await case.work(COUNTED)
        trips.append(round(count.trips / COUNTED, 3))
        size = size or round((count.sent + count.received) / COUNTED)
    return [*trips, *[None] * (2 - len(trips)), size]


def trips(rows: Sequence[Sequence[report.Cell]]) -> report.Table:
    """Return the table of round trips."""
    columns = ["round trips and bytes a request"]
    for page in PAGES:
        columns += [f"{page}, 1", f"{page}, 16", f"{page}, bytes"]
    return report.Table("overhead: round trips", columns, rows)


if __name__ == "__main__":
    main()
