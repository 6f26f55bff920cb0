"""Progress: one line that is written over and over on a terminal, and a line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

from coatcheck.stores.moving import Step

_BAR: Final = 24
_TERMINAL_EVERY: Final = 0.1  # seconds
_LOG_EVERY: Final = 5.0
_ANEW: Final = "\r\x1b[2K"


class Progress:
    """Shows how far something has come.

    Args:
        stream: where to; standard error, as a rule.
        now: seconds, since whenever.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._live = stream.isatty()
        self._last: Step | None = None
        self._began_at, self._spoken_at = 0.0, 0.0
        self._open = False

    def tell(self, step: Step) -> None:
        """Show a step, unless another one was shown a moment ago."""
        now, last = self._now(), self._last
        if step == last:
            return
        if last is None or step.what != last.what:
            self._began_at, self._spoken_at = now, float("-inf")
        self._last = step
        if step.done != step.of and now - self._spoken_at < (_TERMINAL_EVERY if self._live else _LOG_EVERY):
            return
        self._spoken_at = now
        words = _words(step, now - self._began_at)
        self._stream.write(f"{_ANEW}{_bar(step)} {words}" if self._live else f"{words}\n")
        self._stream.flush()
        self._open = self._live

    def end(self) -> None:
        """Leave the line, so that what is written next has one of its own."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def _bar(step: Step) -> str:
    filled = min(_BAR, _BAR * step.done // step.of) if step.of else _BAR
    return f"[{'#' * filled}{' ' * (_BAR - filled)}]"


def _words(step: Step, seconds: float) -> str:
    about = "" if step.done == step.of else "about "
    words = f"{step.what}: {step.done} of {about}{step.of}"
    if step.done and seconds > 0:
        rate = step.done / seconds
        words += f", {rate:.0f}/s, {max(0, step.of - step.done) / rate:.0f} s left"
    return words
