"""Sign-ins and refreshes a second, by one process: on each store, and with a password to check.

    python3 tools/dev.py bench rates [--only redis] [--rounds 7] [--record]

A sign-in is `sessions.create` and the cookie's value; a refresh spends a refresh token, and makes its successor and an
access token, signed by HS256 and ES256. 64 of them are under way at any time, each for a subject of its own. With a
password, Argon2id with the server's parameters comes first, in its pool of threads. By the clock, not by CPU: what a
store makes durable before it answers takes its time.

The table of the timer says how late a task that sleeps for a millisecond is woken up while passwords are checked.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from statistics import quantiles
from typing import Any, Final

from suite import command, report
from suite.harness import Case, Spread, Work, measure
from suite.servers import Places, places

from coatcheck import Coatcheck, Keyring, MemoryStore, SQLiteStore
from coatcheck.core.record import Device
from coatcheck.server.passwords import Passwords
from coatcheck.store import Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore

LIBRARIES: Final = ("redis", "psycopg", "msgspec", "cryptography")
AT_ONCE: Final = 64
TIMES: Final = 512
HASHED: Final = 32  # sign-ins with a password a round: each takes two hundredths of a second of a core
PASSWORD: Final = "four words of mine"  # noqa: S105
DEVICE: Final = Device("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "203.0.113.7")

STORES: Final[dict[str, Callable[[Places], Store]]] = {
    "memory": lambda _: MemoryStore(),
    "SQLite": lambda where: SQLiteStore(where.folder / f"{secrets.token_hex(4)}.db"),
    "Redis": lambda where: RedisStore.from_url(where.redis),
    "PostgreSQL": lambda where: PostgresStore(where.postgres),
}


def main() -> None:
    """Measure, and show."""
    options = command.parse(command.parser(__doc__, rounds=7))
    stores = [name for name in STORES if options.only.lower() in name.lower()]
    with places() as where:
        tables = asyncio.run(both(where, stores, options.rounds, seconds=1 if options.quick else 4))
    report.publish("rates", tables, libraries=LIBRARIES, record=options.record)


async def both(where: Places, stores: Sequence[str], rounds: int, seconds: float) -> list[report.Table]:
    """Return both tables."""
    passwords = Passwords(patience=60)
    try:
        stored = await passwords.hash(PASSWORD)
        rates_of = await rates(where, stores, rounds, lambda: passwords.verify(PASSWORD, stored))
        return [rates_of, await timer(lambda: passwords.verify(PASSWORD, stored), seconds)]
    finally:
        passwords.close()


# -- rates

KINDS: Final = ("sign-ins", "refreshes, HS256", "refreshes, ES256", "sign-ins with a password")


async def rates(
    where: Places, stores: Sequence[str], rounds: int, prove: Callable[[], Awaitable[bool]]
) -> report.Table:
    """Return the table of what is done in a second."""
    cases: list[Case] = []
    for name in stores:
        coats = [Coatcheck(STORES[name](where), Keyring.generate(algorithm)) for algorithm in ("HS256", "ES256")]
        for coat in coats:
            await coat.open()
        cases += [
            Case(f"{name} {KINDS[0]}", signing_in(coats[0], None), TIMES),
            Case(f"{name} {KINDS[1]}", await refreshing(coats[0]), TIMES),
            Case(f"{name} {KINDS[2]}", await refreshing(coats[1]), TIMES),
            Case(f"{name} {KINDS[3]}", signing_in(coats[0], prove), HASHED),
        ]
    timings = await measure(cases, rounds=rounds)
    rows: list[list[report.Cell]] = [
        [name, *(Spread.of([1e6 / one.wall for one in timings[f"{name} {kind}"]]) for kind in KINDS)] for name in stores
    ]
    return report.Table("rates", ("a second, by one process", *KINDS), rows)


def signing_in(coat: Coatcheck, prove: Callable[[], Awaitable[bool]] | None) -> Work:
    """Return what signs subjects in, each of them once."""
    numbers = count()

    async def one() -> None:
        if prove is not None and not await prove():
            raise RuntimeError("the password was refused")
        session = await coat.sessions.create(f"user {next(numbers)}", amr=("pwd",), device=DEVICE)
        if session.cookie is None or not session.cookie.value:
            raise RuntimeError("there is no cookie")

    return _at_once(lambda _: one())


async def refreshing(coat: Coatcheck) -> Work:
    """Return what refreshes, each time with what the time before has given."""
    tokens = []
    for number in range(AT_ONCE):
        session = await coat.sessions.create(f"refreshing {number}", amr=("pwd",), device=DEVICE)
        tokens.append((await coat.sessions.issue(session)).refresh_token)

    async def one(user: int) -> None:
        tokens[user] = (await coat.sessions.refresh(tokens[user])).refresh_token

    return _at_once(one)


def _at_once(one: Callable[[int], Awaitable[None]]) -> Work:
    async def work(times: int) -> None:
        async def user(number: int) -> None:
            for _ in range(number, times, AT_ONCE):
                await one(number)

        await asyncio.gather(*(user(number) for number in range(AT_ONCE)))

    return work


# -- the timer


async def timer(prove: Callable[[], Awaitable[bool]], seconds: float) -> report.Table:
    """Return how long a sleep of a millisecond takes, at rest and while 16 passwords at a time are checked."""
    rest = await ticks(asyncio.create_task(asyncio.sleep(seconds)))
    ends = time.perf_counter() + seconds

    async def ask() -> int:
        times = 0
        while time.perf_counter() < ends:
            await prove()
            times += 1
        return times

    asking = asyncio.gather(*(ask() for _ in range(16)))
    busy = await ticks(asking)
    checked = sum(asking.result()) / seconds
    rows: list[list[report.Cell]] = [
        ["at rest", *_late(rest), None],
        ["while passwords are checked", *_late(busy), checked],
    ]
    return report.Table("rates: timer", ("a sleep of 1 ms takes, ms", "p50", "p99", "max", "passwords a second"), rows)


async def ticks(until: asyncio.Future[Any]) -> list[float]:
    """Return how long each sleep of a millisecond took, in ms."""
    taken: list[float] = []
    while not until.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _late(taken: Sequence[float]) -> tuple[float, float, float]:
    cuts = quantiles(taken, n=100, method="inclusive")
    return cuts[49], cuts[98], max(taken)


if __name__ == "__main__":
    main()
