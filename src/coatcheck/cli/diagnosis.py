"""A diagnosis: what one check of `coatcheck doctor` has found out, in words."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Verdict = Literal["not looked at", "fine", "attention", "broken"]

# By the severities that `--fail-on` asks for.
RANKS: Final[dict[Verdict, str]] = {
    "not looked at": "",
    "fine": "",
    "attention": "medium",
    "broken": "high",
}

FORGIVEN_MS: Final = 1_000  # between two clocks: nobody notices
LEEWAY_MS: Final = 10_000  # of a policy: tokens from a clock that is further ahead are refused


class Diagnosis(msgspec.Struct, frozen=True):
    """What a check says.

    Args:
        check: what was looked at.
        verdict: fine, or not, or why there was nothing to look at.
        seen: in words.
        fix: what to do; "" if there is nothing to do.
    """

    check: str
    verdict: Verdict
    seen: str
    fix: str = ""


def of_clock(check: str, ahead: float, forgiven: float = FORGIVEN_MS) -> Diagnosis:
    """Return what is to be said about another clock.

    Args:
        check: whose.
        ahead: how far it is ahead of ours, in milliseconds.
        forgiven: how much of that says nothing.
    """
    off = abs(ahead)
    words = f"its clock is {_milliseconds(off)} {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if off <= forgiven:
        return Diagnosis(check, "fine", words)
    if off <= LEEWAY_MS:
        return Diagnosis(check, "attention", words, "let both set their clocks by NTP")
    return Diagnosis(
        check,
        "broken",
        f"{words}; 10 seconds are forgiven: tokens are refused as from the future, and sessions end early",
        "let both set their clocks by NTP",
    )


def reason_of(error: Exception) -> str:
    """Return in a few words why somebody did not answer."""
    words = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
    return str(words or type(error).__name__)


def _milliseconds(number: float) -> str:
    return f"{number:.0f} ms" if number < 10_000 else f"{number / 1000:.0f} s"
