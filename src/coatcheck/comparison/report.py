"""Words and figures put together: rows of the table, and what has become of the trade-offs that it used to show."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from coatcheck import __version__
from coatcheck.comparison.claims import TAUGHT
from coatcheck.comparison.kinds import KINDS, Kind
from coatcheck.comparison.measuring import ALGORITHM, Measured, Measurements, Spread


class Cell(NamedTuple):
    """What the table says at one place; without proofs it was measured."""

    text: str
    proofs: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row of the table: a cell for each kind."""

    title: str
    cells: Mapping[Kind, Cell]


class TradeOff(NamedTuple):
    """What is taught, and what is true here."""

    taught: str
    here: str
    proofs: tuple[str, ...] = ()


class Report(NamedTuple):
    """All of it.

    Args:
        words: the rows that are taught.
        figures: the rows that were measured.
        gone: trade-offs that are taught and are none here.
        left: those that are.
        where: what it was measured on, in words.
        measurements: the figures themselves.
    """

    words: tuple[Row, ...]
    figures: tuple[Row, ...]
    gone: tuple[TradeOff, ...]
    left: tuple[TradeOff, ...]
    where: str
    measurements: Measurements

    @property
    def proofs(self) -> tuple[str, ...]:
        """The tests that are named, each once, in the order in which they come."""
        traded = chain.from_iterable(each.proofs for each in (*self.gone, *self.left))
        return tuple(dict.fromkeys((*proofs_of(self.words), *traded)))


def report(measurements: Measurements) -> Report:
    """Put the words and the figures together. Not checked: that the tests named by the words pass; `make test` does."""
    kinds = measurements.kinds
    figures = tuple(
        Row(title, {kind: Cell(text(found)) for kind, found in kinds.items()}) for title, text in _FIGURES.items()
    )
    return Report(taught(), figures, _gone(kinds), _left(kinds), _where(measurements), measurements)


def taught() -> tuple[Row, ...]:
    """Return the rows that are words, for which nothing need be measured."""
    return tuple(
        Row(title, {kind: Cell(claim.words, claim.proofs) for kind, claim in claims.items()})
        for title, claims in TAUGHT.items()
    )


def proofs_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the tests that rows name, each once, in the order in which they come."""
    return tuple(dict.fromkeys(chain.from_iterable(cell.proofs for row in rows for cell in row.cells.values())))


def as_json(found: Report) -> dict[str, Any]:
    """Return a report as plain data."""
    return {
        "kinds": dict(KINDS),
        "rows": [
            {
                "row": row.title,
                "cells": {
                    kind: {"text": cell.text, **({"proofs": list(cell.proofs)} if cell.proofs else {"measured": True})}
                    for kind, cell in row.cells.items()
                },
            }
            for row in (*found.words, *found.figures)
        ],
        "measured": {kind: _plain(each) for kind, each in found.measurements.kinds.items()},
        "gone": [_traded(each) for each in found.gone],
        "left": [_traded(each) for each in found.left],
        "where": found.where,
        "seconds": round(found.measurements.seconds, 2),
    }


# -- the figures in words


def _script(found: Measured) -> str:
    if not found.scripts_read:
        return "nothing: HttpOnly"
    return f"all of it, and so: {_some(found.readable)}"


def _anybody(found: Measured) -> str:
    return _some(found.readable) if found.readable else "nothing"


def _some(names: Sequence[str]) -> str:
    told = [name for name in _TELLING if name in names]
    return f"{', '.join(told)} ..." if told else "nothing"


# Of the claims in a token, those that tell most about somebody.
_TELLING: Final = ("sub", "sid", "scope", "amr")

_FIGURES: Final[Mapping[str, Callable[[Measured], str]]] = {
    "example": lambda found: found.header,
    "bytes a request": lambda found: f"{found.bytes:,}",
    "with 1 KiB of data": lambda found: f"{found.bytes_with_data:,}",
    "look-ups a request": lambda found: f"{found.look_ups:.3g}",
    "CPU a request": lambda found: _microseconds(found.cpu_us),
    "CPU, the first time": lambda found: (
        "the same" if found.first_cpu_us is None else _microseconds(found.first_cpu_us)
    ),
    "refused elsewhere after": lambda found: _milliseconds(found.refused_ms),
    "script can read": _script,
    "readable by its holder": _anybody,
}


def _microseconds(spread: Spread) -> str:
    return f"{spread.median:.0f} µs"


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median:.0f} ms" if spread.median >= 1 else "under 1 ms"


# -- the trade-offs

_ROUND_TRIPS: Final = "tests/stores/test_round_trips.py"
_FEED: Final = "tests/stores/feeds/test_processes.py::test_s11_s13_a_sign_out_in_one_process_is_refused_in_the_other"


def _gone(kinds: Mapping[Kind, Measured]) -> tuple[TradeOff, ...]:
    session, sealed, bearer = kinds["session"], kinds["sealed"], kinds["bearer"]
    first = bearer.first_cpu_us or bearer.cpu_us
    return (
        TradeOff(
            "A session costs a look-up at each request.",
            f"It is {_microseconds(session.cpu_us)} of CPU here, look-up and all; a token takes "
            f"{_microseconds(bearer.cpu_us)}, and {_microseconds(first)} the first time. Requests in flight share one "
            "round trip, and what only reads writes nothing.",
            (f"{_ROUND_TRIPS}::test_requests_in_flight_are_one_round_trip_and_what_only_reads_writes_nothing",),
        ),
        TradeOff(
            "A token cannot be taken back before it expires.",
            f"Another process refuses it {_milliseconds(bearer.refused_ms)} after its session was ended, without a "
            "look-up.",
            (f"{_FEED}_without_a_look_up",),
        ),
        TradeOff(
            "A session in an encrypted cookie cannot be ended by the server.",
            f"Another process refuses it {_milliseconds(sealed.refused_ms)} after its end.",
            ("tests/desks/test_sealed_sessions.py::test_a_revocation_reaches_other_processes_by_the_feed",),
        ),
        TradeOff(
            "Signing out ends the cookie; the tokens live on.",
            "They are credentials of one session, and all end with it.",
            ("tests/desks/test_sessions.py::test_s10_p1_sign_out_kills_all_three_credentials",),
        ),
        TradeOff(
            "Of two requests that change a session in a store at once, one is lost.",
            "Both are kept.",
            ("tests/advisories/test_sessions.py::test_two_writers_of_different_keys_both_win",),
        ),
    )


def _left(kinds: Mapping[Kind, Measured]) -> tuple[TradeOff, ...]:
    sealed = kinds["sealed"]
    return (
        TradeOff(
            "What is in the cookie travels each time.",
            f"A sealed one of {sealed.bytes:,} bytes has {sealed.bytes_with_data:,} with 1 KiB of data in it. Whoever "
            "has the browser can bring an older one back.",
            ("tests/desks/test_sealed_sessions.py::test_the_limit_an_older_box_can_be_brought_back",),
        ),
        TradeOff(
            "A script that has a bearer token can send it anywhere.",
            "Yes. What is in an HttpOnly cookie it cannot even read.",
            ("tests/browser/test_compare.py::test_a_script_sees_what_the_table_says",),
        ),
        TradeOff(
            "A service that checks tokens by itself depends on nobody.",
            "It depends on the feed: cut off for 5 seconds, it trusts no token until it hears again, unless you "
            "choose otherwise.",
            ("tests/web/test_asgi.py::test_decision_14_a_stale_verifier_does_what_its_policy_says",),
        ),
    )


# -- inside


def _where(measurements: Measurements) -> str:
    return (
        f"coatcheck {__version__}, Python {platform.python_version()} on {sys.platform} {platform.machine()}, "
        f"{os.cpu_count()} CPUs; sessions in SQLite {sqlite3.sqlite_version}, tokens with {ALGORITHM}; "
        f"measured in {measurements.seconds:.1f} s"
    )


def _plain(found: Measured) -> dict[str, Any]:
    return {
        name: {key: round(figure, 3) for key, figure in value._asdict().items()} if isinstance(value, Spread) else value
        for name, value in found._asdict().items()
    }


def _traded(each: TradeOff) -> dict[str, Any]:
    return {"taught": each.taught, "here": each.here, "proofs": list(each.proofs)}
