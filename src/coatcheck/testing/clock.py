"""SettableClock: time that passes only when it is told to."""

from __future__ import annotations

from datetime import timedelta

START = 4_102_444_800_000
"""Where a clock starts unless it is told otherwise: 1 January 2100, in milliseconds since the epoch.

Far ahead, because servers like Redis expire records by a clock of their own, which must not be there before the tests.
"""


class SettableClock:
    """A `coatcheck.clock.Clock` for tests.

    Args:
        now: milliseconds since the epoch.
    """

    def __init__(self, now: int = START) -> None:
        self._now = now

    def __call__(self) -> int:
        """Return the time, in milliseconds since the epoch."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass, or, with a negative `by`, go back."""
        self._now += by // timedelta(milliseconds=1)

    def set(self, now: int) -> None:
        """Set the time, in milliseconds since the epoch."""
        self._now = now
