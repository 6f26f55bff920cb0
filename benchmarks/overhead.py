"""What a session costs for each request: this process's CPU over the same application without sessions, in one process.

    python3 tools/dev.py bench overhead [--only redis] [--rounds 9] [--times 400] [--record]

Requests are made without sockets, so that nothing but the application is measured; 16 in flight means 16 users at a
time, who each send their next request when they have their answer. Round trips and bytes are counted by a proxy
between the application and its server, in another process and not while time is measured.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from suite import command, report
from suite.apps import APPS, BARE
from suite.counting import Count, counted
from suite.harness import Case, Timing, measure, over
from suite.servers import Places, places
from suite.small_app import App
from suite.traffic import USERS, Browsers, cases_of, cookie_octets, octets, opened

LIBRARIES: Final = (
    "starlette",
    "starsessions",
    "redis",
    "asyncpg",
    "psycopg",
    "pyjwt",
    "litestar",
    "flask",
    "flask-session",
    "django",
)
PAGES: Final = ("read", "write")
COUNTED: Final = 320


def main() -> None:
    """Measure, and show."""
    parser = command.parser(__doc__)
    parser.add_argument("--times", type=int, default=400, help="requests a round")
    options = command.parse(parser)
    apps = [app for app in APPS if options.only.lower() in app.name.lower()]
    times = 64 if options.quick else options.times
    with places() as found:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            counts = other.submit(counted_in_all, found, [app.name for app in apps]).result()
        timings = asyncio.run(time_all(found, apps, options.rounds, times))
        logging.disable()  # the threads of WSGI applications outlive their servers, and say so
    tables = [costs(apps, timings), trips(counts), wire(counts)]
    report.publish("overhead", tables, libraries=LIBRARIES, record=options.record)


# -- CPU


async def time_all(where: Places, apps: Sequence[App], rounds: int, times: int) -> dict[str, list[Timing]]:
    """Return the timings of every application and page."""
    cases: list[Case] = []
    for app in (*BARE, *apps):
        browsers = await opened(app, where)
        for page in app.pages:
            cases += cases_of(app, page, browsers, times)
    return await measure(cases, rounds=rounds)


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


# -- round trips and bytes

Row = list[report.Cell]


def counted_in_all(where: Places, names: Sequence[str]) -> list[tuple[App, Row, Row]]:
    """Return, of each application, the row of its round trips and the one of its cookies."""
    count = Count()
    with counted(where.redis, count) as redis, counted(where.postgres, count) as postgres:
        watched = Places(redis, postgres, where.folder)
        found = [asyncio.run(count_app(app, watched, count)) for app in APPS if app.name in names]
        logging.disable()
    return found


async def count_app(app: App, where: Places, count: Count) -> tuple[App, Row, Row]:
    """Return the rows of an application, which has an event loop to itself: nothing else speaks meanwhile."""
    browsers = await opened(app, where)
    trips: Row = [app.name]
    for page in PAGES if app.has_server else ():
        trips += await count_page(app, page, browsers, count)
    sent = octets(*await browsers.start(0))
    set_by = [cookie_octets(await browsers.visit(0, f"/{page}")) if page in app.pages else None for page in PAGES]
    return App(app.name, app.stack, str), trips, [app.name, sent, *set_by]


async def count_page(app: App, page: str, browsers: Browsers, count: Count) -> Row:
    """Return round trips for each request with 1 and with 16 in flight, and the bytes of one, there and back."""
    trips: Row = []
    size = 0
    for case in cases_of(app, page, browsers, COUNTED):
        for _ in range(2):  # the first time opens connections
            count.reset()
            await case.work(COUNTED)
        trips.append(round(count.trips / COUNTED, 3))
        size = size or round((count.sent + count.received) / COUNTED)
    return [*trips, *[None] * (2 - len(trips)), size]


def trips(counts: Sequence[tuple[App, Row, Row]]) -> report.Table:
    """Return the table of round trips."""
    columns = ["round trips and bytes a request"]
    for page in PAGES:
        columns += [f"{page}, 1", f"{page}, 16", f"{page}, bytes"]
    return report.Table("overhead: round trips", columns, [row for app, row, _ in counts if app.has_server])


def wire(counts: Sequence[tuple[App, Row, Row]]) -> report.Table:
    """Return the table of what goes between browser and application."""
    columns = ("bytes of headers a request", "the browser sends", "a read sets", "a write sets")
    return report.Table("overhead: cookies", columns, [row for _, _, row in counts])


if __name__ == "__main__":
    main()
