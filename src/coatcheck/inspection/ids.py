"""Bare values: UUIDs, numbers and random text. How much of one can be random at most is what counts (S1)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final
from uuid import RFC_4122, UUID

from coatcheck.inspection.looking import Looking
from coatcheck.inspection.report import Finding, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import moment

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_VALUE: Final = re.compile(r"[!-~]{1,4096}")
_NUMBER: Final = re.compile(r"[0-9]{1,64}")
# What the letters of a text are taken from, the smallest first.
_ALPHABETS: Final[Mapping[str, str]] = {
    "decimal digits": "0-9",
    "hexadecimal digits": "0-9a-f",
    "capital hexadecimal digits": "0-9A-F",
    "small letters": "a-z",
    "capital letters": "A-Z",
    "base32": "A-Z2-7",
    "small letters and digits": "0-9a-z",
    "letters and digits": "0-9A-Za-z",
    "base64": "0-9A-Za-z+/=_-",
    "printable signs": "!-~",
}
_SIZES: Final = (10, 16, 16, 26, 26, 32, 36, 62, 64, 94)
_ENOUGH, _TOO_FEW = 128, 64  # bits: ASVS 7.2.3, and NIST SP 800-63B-4, 5.1

_UUIDS: Final[Mapping[int, str]] = {
    1: "made of the time and of the machine's address",
    2: "made of the time and of a user's number",
    3: "the hash of a name",
    4: "122 random bits, if its maker has drawn them well",
    5: "the hash of a name",
    6: "made of the time and of the machine's address",
    7: "made of the time and of 74 random bits",
    8: "made as its maker likes",
}
_RANDOM_BITS: Final[Mapping[int, int]] = {4: 122, 7: 74, 8: 122}


def uuid(text: str, looking: Looking) -> Report | None:
    """Explain a UUID (RFC 9562)."""
    if not _UUID.fullmatch(text):
        return None
    found = UUID(text)
    version = found.version if found.variant == RFC_4122 else None
    facts = {"version": str(version or "none"), "made": _UUIDS.get(version or 0, "in no known way")}
    if version == 7:
        facts["time in it"] = moment((found.int >> 80) / 1000, looking.now)
    return Report(
        kind="UUID",
        summary="A UUID: it tells things apart, and says nothing by itself.",
        facts=facts,
        findings=_predictable(version) if looking.role == "credential" else (),
    )


def number(text: str, looking: Looking) -> Report | None:
    """Explain a number."""
    if not _NUMBER.fullmatch(text):
        return None
    counted = len(text) < 20  # more digits than any counter has: then it is a random text of digits
    if not counted:
        return None
    found = (finding("id-number", f"it is a number of {_digits(text)}"),) if looking.role == "credential" else ()
    return Report(kind="number", summary=f"A number of {_digits(text)}.", facts={}, findings=found)


def random_text(text: str, looking: Looking) -> Report | None:
    """Explain a text in which nothing can be read."""
    if looking.role == "anything":
        return Report(kind="plain value", summary=f"A text of {len(text)} characters.", facts={})
    if not _VALUE.fullmatch(text):
        return None
    name, bits = _alphabet(text)
    return Report(
        kind="opaque value",
        summary="Nothing can be read in it here: a random id, perhaps, of something that a server keeps.",
        facts={"letters": f"{len(text)} of {name}", "bits": f"{bits} at most, if they are random"},
        findings=_short(bits),
    )


def _predictable(version: int | None) -> tuple[Finding, ...]:
    bits = _RANDOM_BITS.get(version or 0, 0)
    if not bits:
        return (finding("uuid-predictable", f"a UUID of version {version or 'none'}, as a secret"),)
    words = f"a UUID of version {version} has {bits} random bits"
    return (finding("uuid-random", words, "low" if bits > 100 else "medium"),)


def _short(bits: int) -> tuple[Finding, ...]:
    if bits >= _ENOUGH:
        return ()
    words = f"there are {bits} bits in it at most, and it takes {_ENOUGH}"
    return (finding("id-short", words, "high" if bits < _TOO_FEW else "medium"),)


def _alphabet(text: str) -> tuple[str, int]:
    for (name, letters), size in zip(_ALPHABETS.items(), _SIZES, strict=True):
        if re.fullmatch(f"[{letters}]+", text):
            return name, int(len(text) * math.log2(size))
    raise AssertionError("a value is made of printable signs")


def _digits(text: str) -> str:
    return f"{len(text)} digit{'' if len(text) == 1 else 's'}"
