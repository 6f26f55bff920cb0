"""What grows with the work, and what does not: requests in flight, revocations, living sessions.

    python3 tools/dev.py bench curves [--only sessions] [--rounds 9] [--count 1000000] [--record]

Three curves. In flight: this process's CPU for each read over the bare application, with 1 to 64 users at a time.
Revocations: verifying a token while ever more of them are remembered; a thousand tokens take turns. Sessions: what a
request pays to find its session, which is the desk's work and the store's, while there are ever more; any of them may
come next; and what a read pays for its session in all. How long a store takes by the clock is in the benchmark
`million`, with the servers as well.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from suite import command, report
from suite.apps import named
from suite.clocks import backwards
from suite.harness import Case, Timing, Work, grown, measure, microseconds, over, ratio
from suite.many import fill, id_of, ticket
from suite.on_starlette import bare, ours, starlette
from suite.servers import Places, folder, places
from suite.traffic import AsgiBrowsers, cases_of, opened

from coatcheck import Coatcheck, Key, Keyring, MemoryStore, Policy, Revocations, Revoked, SQLiteStore, Verifier
from coatcheck.clock import Clock, system_clock
from coatcheck.core.claims import build_access_token
from coatcheck.core.cookies import SESSION_COOKIE
from coatcheck.core.jws import sign
from coatcheck.core.revocation import Revoked as Revocation
from coatcheck.store import Store

LIBRARIES: Final = ("starlette", "starsessions", "redis", "asyncpg", "psycopg", "msgspec", "cryptography")
AT_ONCE: Final = (1, 2, 4, 8, 16, 32, 64)
IN_FLIGHT: Final = (
    "coatcheck, memory",
    "coatcheck, SQLite",
    "coatcheck, Redis, near cache",
    "coatcheck, Redis",
    "coatcheck, PostgreSQL",
    "redis-py, by hand",
    "asyncpg, by hand",
    "starsessions, Redis",
)
SIZES: Final = (1000, 10_000, 100_000, 1_000_000)
TOKENS: Final = 1000
LIVES: Final = 60 * 60  # seconds


def main() -> None:
    """Measure, and show."""
    parser = command.parser(__doc__)
    parser.add_argument("--count", type=int, default=SIZES[-1], help="sessions, and revocations, at most")
    options = command.parse(parser)
    sizes = [size for size in SIZES if size <= (10_000 if options.quick else options.count)]
    tables = [curve(sizes, options.rounds) for name, curve in CURVES.items() if options.only.lower() in name.lower()]
    report.publish("curves", tables, libraries=LIBRARIES, record=options.record)


def many_times(first: str, names: Sequence[str], timings: dict[str, list[Timing]]) -> list[report.Cell]:
    """Return, for each case, how many times the CPU of the first one it took."""
    return [ratio(timings[name], timings[first]) for name in names]


# -- requests in flight


def in_flight(_sizes: Sequence[int], rounds: int) -> report.Table:
    """Return the table of CPU a read, with ever more users at a time."""
    with places() as where:
        timings = asyncio.run(time_reads(where, rounds))
    rows: list[list[report.Cell]] = [
        [name, *(over(timings[f"{name} read {n}"], timings[f"Starlette read {n}"]) for n in AT_ONCE)]
        for name in IN_FLIGHT
    ]
    return report.Table("curves: in flight", ["µs of CPU over the bare application", *map(str, AT_ONCE)], rows)


async def time_reads(where: Places, rounds: int) -> dict[str, list[Timing]]:
    """Return the timings of each application with each number of users."""
    cases: list[Case] = []
    for app in named("Starlette", *IN_FLIGHT):
        browsers = await opened(app, where, users=AT_ONCE[-1])
        cases += cases_of(app, "read", browsers, 256, AT_ONCE)
    return await measure(cases, rounds=rounds)


# -- revocations


def revocations(sizes: Sequence[int], rounds: int) -> report.Table:
    """Return the table of verifying beside ever more revocations."""
    known = [Revocations() for _ in (0, *sizes)]
    for size, some in zip(sizes, known[1:], strict=True):
        for number in range(size):
            some.apply(Revocation(session_id=id_of(number), until=system_clock() + LIVES * 1000))
    rows: list[list[report.Cell]] = []
    for name, algorithm, clock in VERIFIED:
        key = Key.generate(algorithm)
        keyring = Keyring(key, secret=secrets.token_bytes(32))
        tokens = [token_of(key, -1 - number) for number in range(TOKENS)]
        cases = [
            Case(f"{len(some)}", verifying(Verifier(keyring, POLICY, some, clock=clock()), tokens), 2 * TOKENS)
            for some in known
        ]
        require_refusal(key, keyring, known[-1])
        timings = asyncio.run(measure(cases, rounds=rounds))
        rows.append([name, microseconds(timings["0"]), *many_times("0", [str(size) for size in sizes], timings)])
    columns = ["times the CPU with none", "none, µs", *(f"{size:,}" for size in sizes)]
    return report.Table("curves: revocations", columns, rows)


POLICY: Final = Policy(issuer="https://auth.example", audience="https://api.example")


def _ticking() -> Clock:
    return system_clock


# The cheapest and the dearest signature, and none at all.
VERIFIED: Final[Sequence[tuple[str, str, Callable[[], Clock]]]] = (
    ("HS256", "HS256", backwards),
    ("Ed25519", "EdDSA", backwards),
    ("a token seen before", "HS256", _ticking),
)


def token_of(key: Key, number: int) -> str:
    """Return an access token of the session of a number; those that are revoked are not negative."""
    payload = build_access_token(
        issuer=POLICY.issuer,
        audience=POLICY.audience,
        subject=f"user{number}",
        client_id="coatcheck",
        session_id=id_of(number % 2**60),
        token_id=secrets.token_urlsafe(16),
        issued_at=int(time.time()),
        lifetime=LIVES,
        scope="read write",
        auth_time=int(time.time()),
        amr=("pwd",),
    )
    return sign(payload, key, typ="at+jwt")


def verifying(verifier: Verifier, tokens: Sequence[str]) -> Work:
    """Return what verifies one token after another."""
    turns = cycle(tokens)

    async def work(times: int) -> None:
        for token in islice(turns, times):
            verifier.verify(token)

    return work


def require_refusal(key: Key, keyring: Keyring, known: Revocations) -> None:
    """Stop, unless a revoked token is refused: what cost nothing because it did nothing would be no figure."""
    try:
        Verifier(keyring, POLICY, known).verify(token_of(key, 7))
    except Revoked:
        return
    raise RuntimeError("a revoked token was good")


# -- living sessions


def sessions(sizes: Sequence[int], rounds: int) -> report.Table:
    """Return the table of finding a session among ever more."""
    rows: list[list[report.Cell]] = []
    with folder() as home:
        for name, make in STORES.items():
            finding, reading = asyncio.run(among(sizes, rounds, partial(make, home)))
            rows += [[name, *finding], [f"{name}, all that it costs a read", *reading]]
    columns = ["times the CPU with the fewest", f"{sizes[0]:,}, µs", *(f"{size:,}" for size in sizes[1:])]
    return report.Table("curves: sessions", columns, rows)


STORES: Final[dict[str, Callable[[Path, int], Store]]] = {
    "memory": lambda _home, _size: MemoryStore(),
    "SQLite": lambda home, size: SQLiteStore(home / f"{size}.db"),
}


async def among(
    sizes: Sequence[int], rounds: int, make: Callable[[int], Store]
) -> tuple[list[report.Cell], list[report.Cell]]:
    """Return the cells of one kind of store: of finding a session, and of a read over the bare application."""
    cases = [Case("bare", visiting(starlette(pages=(bare, bare, bare)), 1), TOKENS)]
    coats: list[Coatcheck] = []
    for size in sizes:
        coat = Coatcheck(make(size))
        await coat.open()
        await fill(coat.store, size, system_clock())
        coats.append(coat)
        cases.append(Case(f"{size}", finding(coat, size), TOKENS))
        cases.append(Case(f"read {size}", visiting(ours(coat), size), TOKENS))
    timings = await measure(cases, rounds=rounds)
    for coat in coats:
        await coat.close()
    first, *others = (str(size) for size in sizes)
    least, none = timings[f"read {first}"], timings["bare"]
    return (
        [microseconds(timings[first]), *many_times(first, others, timings)],
        [over(least, none), *(grown(timings[f"read {other}"], least, none) for other in others)],
    )


def visiting(app: Any, size: int) -> Work:
    """Return what reads a page with one session after another, whichever."""
    choose, browsers = random.Random(2), AsgiBrowsers(app)  # noqa: S311 (the same sessions each time)
    for user in range(20 * TOKENS):
        browsers.hand(user, "cookie", f"{SESSION_COOKIE}={ticket(choose.randrange(size)).value}")
    users = cycle(range(20 * TOKENS))

    async def work(times: int) -> None:
        for user in islice(users, times):
            await browsers.visit(user, "/read")

    return work


def finding(coat: Coatcheck, size: int) -> Work:
    """Return what finds one session after another, whichever."""
    choose = random.Random(1)  # noqa: S311 (the same sessions each time)
    turns = cycle([ticket(choose.randrange(size)) for _ in range(20 * TOKENS)])
    load = coat.sessions.load

    async def work(times: int) -> None:
        for cookie in islice(turns, times):
            await load(cookie)

    return work


CURVES: Final[dict[str, Callable[[Sequence[int], int], report.Table]]] = {
    "in flight": in_flight,
    "revocations": revocations,
    "sessions": sessions,
}

if __name__ == "__main__":
    main()
