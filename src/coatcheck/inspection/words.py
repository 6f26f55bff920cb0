"""Words for what is found: short, printable, and never a secret."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN: Final = 60  # characters
_LAST: Final = 253_402_300_799  # the last second of the year 9999
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def shown(text: str, limit: int = _SHOWN) -> str:
    """Return a text that is no secret, shortened, and such that it can do nothing to a terminal."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in cut)


def listed(names: list[str], limit: int = 32) -> str:
    """Return names in a row, each shortened; of many, the first ones."""
    some = ", ".join(shown(name, limit) for name in names[:12])
    return some if len(names) <= 12 else f"{some} and {len(names) - 12} more"


def moment(seconds: float, now: int) -> str:
    """Return a time in words.

    Args:
        seconds: since the epoch; any number.
        now: milliseconds since the epoch.
    """
    if not math.isfinite(seconds) or not 0 <= seconds <= _LAST:
        return "no time between the years 1970 and 9999"
    at = (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%d %H:%M:%S UTC")
    away = seconds - now / 1000
    if abs(away) < 1:
        return f"{at}, now"
    return f"{at}, in {span(away)}" if away > 0 else f"{at}, {span(-away)} ago"


def span(seconds: float) -> str:
    """Return a length of time in words, in the largest unit that it has two of."""
    for length, unit in _UNITS:
        if seconds >= 2 * length or (unit == "second"):
            count = int(seconds // length)
            return f"{count} {unit}" + ("" if count == 1 else "s")
    raise AssertionError("a second is the smallest unit")
