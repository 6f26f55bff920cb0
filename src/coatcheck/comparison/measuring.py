"""The figures of the comparison: taken on this machine, side by side, in about two seconds."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, NamedTuple

from coatcheck import Coatcheck, Keyring, Sealed, SQLiteStore
from coatcheck.comparison.kinds import KINDS, Kind
from coatcheck.comparison.revoking import Pair, time_to_refusal
from coatcheck.comparison.visits import Presented, application, bare, sign_in, visit
from coatcheck.errors import StoreUnavailable
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.web.asgi import App

ALGORITHM: Final = "ES256"
_DATA: Final = 1024  # octets in the session's data
_TURN: Final = 40  # requests
_LEAST_ROUNDS: Final = 5
_CPU_SECONDS: Final = 0.7
_FIRST_TOKENS: Final = 48
_TOKENS: Final[tuple[Kind, ...]] = ("token_cookie", "bearer")


class Spread(NamedTuple):
    """The median of several figures, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Return the spread of at least two figures."""
        low, median, high = quantiles(figures, n=4, method="inclusive")
        return cls(median, low, high)


class Measured(NamedTuple):
    """What was measured of one kind.

    Args:
        header: the request header that carries it, with its value shortened.
        bytes: that it adds to each request.
        bytes_with_data: the same, with 1 KiB of data in the session.
        look_ups: of the store, for each request.
        cpu_us: for each further request, over the same page without sessions.
        first_cpu_us: for the first request with a token; None where each is like the first.
        refused_ms: from the end of its session to the refusal in another process.
        scripts_read: the names of what a script in the page can read.
        readable: what can be read in it without a key: the names of claims.
    """

    header: str
    bytes: int
    bytes_with_data: int
    look_ups: float
    cpu_us: Spread
    first_cpu_us: Spread | None
    refused_ms: Spread
    scripts_read: Sequence[str]
    readable: Sequence[str]


class Measurements(NamedTuple):
    """What was measured of all kinds, and how many seconds that took."""

    kinds: Mapping[Kind, Measured]
    seconds: float


def compare() -> Measurements:
    """Measure, in this thread and in a folder that is removed afterwards.

    Raises:
        StoreUnavailable: there is no room for temporary files, or the disk does not answer.
    """
    return asyncio.run(_measured())


async def _measured() -> Measurements:
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="coatcheck-compare-") as folder:
            async with _places(Path(folder)) as places:
                kinds = await _kinds(places)
    except OSError as error:
        raise StoreUnavailable(f"no room for temporary files: {error.strerror}") from None
    return Measurements(kinds, time.monotonic() - began)


async def _kinds(places: Mapping[Kind, _Place]) -> dict[Kind, Measured]:
    given: dict[Kind, Presented] = {kind: await sign_in(place.pair.app, kind) for kind, place in places.items()}
    # Random, as what does not compress.
    data = secrets.token_urlsafe(_DATA)[:_DATA]
    larger: dict[Kind, Presented] = {kind: await sign_in(place.pair.app, kind, data) for kind, place in places.items()}
    cpu, look_ups = await _cpu(places, given)
    first = {kind: await _first_cpu(places[kind], kind) for kind in _TOKENS}
    refused = await time_to_refusal({kind: place.pair for kind, place in places.items()})
    return {
        kind: Measured(
            header=_shortened(presented),
            bytes=presented.size,
            bytes_with_data=larger[kind].size,
            look_ups=look_ups[kind],
            cpu_us=cpu[kind],
            first_cpu_us=first.get(kind),
            refused_ms=Spread.of(refused[kind]),
            scripts_read=presented.scripts_read,
            readable=presented.readable,
        )
        for kind, presented in given.items()
    }


# -- what is measured


class _CountingStore(SQLiteStore):
    """Counts what is asked of it. Any, for what a record is like is nobody's business here."""

    asked = 0

    async def load(self, id: str) -> Any:
        self.asked += 1
        return await super().load(id)

    async def list(self, subject: str) -> Any:
        self.asked += 1
        return await super().list(subject)

    async def replace(self, record: Any) -> bool:
        self.asked += 1
        return await super().replace(record)

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        self.asked += 1
        await super().touch(id, seen_at, expires_at)


class _Place(NamedTuple):
    pair: Pair
    store: _CountingStore


@asynccontextmanager
async def _places(folder: Path) -> AsyncGenerator[dict[Kind, _Place]]:
    """Open two processes' worth of each way to keep sessions; all have the same keys."""
    ring = Keyring.generate(ALGORITHM)
    async with AsyncExitStack() as stack:

        async def opened(name: str, *, sealed: bool) -> tuple[Coatcheck, _CountingStore]:
            store, feed = _CountingStore(folder / name), SQLiteFeed(folder / name)
            coatcheck = Coatcheck(Sealed() if sealed else store, ring, feed=feed, on_event=lambda _: None)
            coatcheck.store = store  # of sealed sessions, too: so that it can be seen that nobody asks it
            return await stack.enter_async_context(coatcheck), store

        places: dict[Kind, _Place] = {}
        for kind in KINDS:
            sealed = kind == "sealed"
            here, store = await opened(f"{kind}.sqlite", sealed=sealed)
            elsewhere, _ = await opened(f"{kind}.sqlite", sealed=sealed)
            places[kind] = _Place(Pair(here, application(here), application(elsewhere)), store)
        yield places


# -- CPU and look-ups


async def _cpu(
    places: Mapping[Kind, _Place], given: Mapping[Kind, Presented]
) -> tuple[dict[Kind, Spread], dict[Kind, float]]:
    """Return the CPU of a request over the bare page, and the look-ups of one, by turns: bare, A, B, bare, A, B ..."""
    figures: dict[Kind, list[float]] = {kind: [] for kind in places}
    for kind, presented in given.items():  # the first request with a token is another matter
        await _turn(places[kind].pair.app, presented)
        places[kind].store.asked = 0
    ends, rounds = time.monotonic() + _CPU_SECONDS, 0
    while rounds < _LEAST_ROUNDS or time.monotonic() < ends:
        rounds += 1
        base = await _turn(bare, given["bearer"])
        for kind, presented in given.items():
            figures[kind].append(await _turn(places[kind].pair.app, presented) - base)
    look_ups: dict[Kind, float] = {kind: place.store.asked / (rounds * _TURN) for kind, place in places.items()}
    return {kind: Spread.of(each) for kind, each in figures.items()}, look_ups


async def _first_cpu(place: _Place, kind: Kind) -> Spread:
    """Return the CPU of the first request with a token, over the bare page."""
    coatcheck = place.pair.here
    session = await coatcheck.sessions.create("ann")
    cookie = f"{coatcheck.policy.access_cookie.name}="
    figures: list[float] = []
    for _ in range(_FIRST_TOKENS):
        token = (await coatcheck.sessions.issue(session)).access_token
        text = (b"authorization", b"Bearer ") if kind == "bearer" else (b"cookie", cookie.encode("ascii"))
        fresh = Presented((text[0], text[1] + token.encode("ascii")), ())
        base = await _turn(bare, fresh, 1)
        figures.append(await _turn(place.pair.app, fresh, 1) - base)
    return Spread.of(figures)


async def _turn(app: App, presented: Presented, times: int = _TURN) -> float:
    """Return how many microseconds of this thread's CPU a request takes."""
    before = time.thread_time_ns()
    for _ in range(times):
        await visit(app, "/", presented.header)
    return (time.thread_time_ns() - before) / times / 1000


def _shortened(presented: Presented) -> str:
    """Return the header without what would be a secret, were it anybody's."""
    name = presented.header[0].decode("ascii").title()
    if name == "Authorization":
        return f"{name}: Bearer {presented.values['Bearer'][:6]}…"
    return f"{name}: " + "; ".join(f"{key}={value[:6]}…" for key, value in presented.values.items())
