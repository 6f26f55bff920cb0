"""How long it takes until another process refuses what was ended: from the acknowledgement to the refusal.

The other process is played by a Coatcheck of its own, which shares nothing with the first but files: it hears of an
end by its feed, or finds it out by its look-up. It is asked every half millisecond.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from coatcheck import Coatcheck
from coatcheck.comparison.kinds import Kind
from coatcheck.comparison.visits import Presented, sign_in, visit
from coatcheck.errors import StoreUnavailable
from coatcheck.web.asgi import App

ROUNDS: Final = 8
_PATIENCE: Final = 10.0  # seconds
_PAUSE: Final = 0.0005
_LOOKS: Final = 0.05  # seconds between two looks of an SQLiteFeed


class Pair(NamedTuple):
    """Two processes: one that ends sessions, and one that has to hear of it."""

    here: Coatcheck
    app: App
    elsewhere: App


async def time_to_refusal(pairs: Mapping[Kind, Pair]) -> dict[Kind, list[float]]:
    """Return for each kind how many milliseconds each of its ends took.

    Raises:
        StoreUnavailable: one was not refused within ten seconds, or the disk does not answer.
    """
    found: dict[Kind, list[float]] = {kind: [] for kind in pairs}
    for _ in range(ROUNDS):
        times = await asyncio.gather(*(_one(kind, pair) for kind, pair in pairs.items()))
        for kind, taken in zip(pairs, times, strict=True):
            found[kind].append(taken)
    return found


async def _one(kind: Kind, pair: Pair) -> float:
    presented = await sign_in(pair.app, kind)
    session_id = await _served(pair.elsewhere, presented)
    if session_id is None:
        raise StoreUnavailable("what was just made is refused in another process")
    # At any moment between two looks of the other one; without it, always soon after one.
    await asyncio.sleep(random.uniform(0, _LOOKS))  # noqa: S311 - it guards nothing
    await pair.here.sessions.revoke(session_id)
    acknowledged = time.monotonic()
    while await _served(pair.elsewhere, presented) is not None:
        if time.monotonic() - acknowledged > _PATIENCE:
            raise StoreUnavailable(f"what was ended is not refused in another process within {_PATIENCE:g} s")
        await asyncio.sleep(_PAUSE)
    return (time.monotonic() - acknowledged) * 1000


async def _served(app: App, presented: Presented) -> str | None:
    """Return the id of the session that the page is served for, or None."""
    answer = await visit(app, "/", presented.header)
    return answer.body.decode("ascii") if answer.status == 200 else None
