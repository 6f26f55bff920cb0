"""Clock: where the desks get the time from; a function, so that tests can set it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns milliseconds since the epoch."""


def system_clock() -> int:
    """Return the machine's time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_clock() -> int:
    """Return milliseconds since some moment in the past, for measuring how long something lasts (P7).

    Unlike the machine's time it is never set back or forward.
    """
    return time.monotonic_ns() // 1_000_000
