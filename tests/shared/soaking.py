"""Soaking: how long the long tests may go on, and what they have to say."""

from __future__ import annotations

import os
import time
from typing import Final

MINUTES: Final = float(os.environ.get("COATCHECK_SOAK_MINUTES", "5"))
FIGURES: Final[list[tuple[str, str, str]]] = []


class Soak:
    """What one test has: its share of the time, and its lines in the table."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._began = time.monotonic()

    def going(self, share: float, *, done: int = 0, aim: int = 1) -> bool:
        """Say whether to go on: the aim is not reached, and this part of all the time is not over."""
        return done < aim and time.monotonic() - self._began < share * MINUTES * 60

    def report(self, what: str, count: str, result: str) -> None:
        """Write a line of the table."""
        FIGURES.append((f"{what}, {self._kind}", count, result))
