"""What others made, read leniently: to say what is wrong with a text, one has to read it first."""

from __future__ import annotations

import json
import re
import zlib
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from coatcheck.core import base64url, strict_json
from coatcheck.errors import Malformed

MAX_TEXT: Final = 2_097_152  # octets of a text that is looked at
_MAX_INFLATED: Final = 262_144  # J16
_BASE64: Final = re.compile(r"[0-9A-Za-z_+/-]*")
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


# What editors and shells write before a text, and in what it is then written.
_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_QUOTES: Final = ("'", '"', "`")


def as_text(octets: bytes) -> str:
    """Return what somebody has pasted, without the quotes that it was copied with."""
    for mark, encoding in _MARKS:
        if octets.startswith(mark):
            text = octets.removeprefix(mark).decode(encoding, "replace").strip()
            break
    else:
        text = octets.decode("utf-8", "surrogateescape").strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES and text[0] not in text[1:-1]
    return text[1:-1].strip() if quoted else text


@dataclass(frozen=True)
class Read:
    """A JSON object, and what a strict reader holds against it; "" if nothing."""

    members: dict[str, Any]
    problem: str = ""


def base64_octets(text: str) -> bytes | None:
    """Return what base64 of either alphabet encodes, padded or not; None if it is none."""
    letters = text.rstrip("=")
    if not _BASE64.fullmatch(letters) or len(letters) % 4 == 1:
        return None
    return a2b_base64(letters.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(letters) % 4))


def is_canonical(text: str) -> bool:
    """Say whether a text is base64url as RFC 7515 wants it: no padding, no other letters, unused bits zero (J7)."""
    try:
        base64url.decode(text)
    except Malformed:
        return False
    return True


def json_object(octets: bytes) -> Read | None:
    """Return a JSON object as lenient parsers read it, the last of a name winning; None if it is none."""
    try:
        return Read(strict_json.loads(octets))
    except Malformed as error:
        problem = str(error)
    twice: list[str] = []

    def last_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) != len(pairs):
            twice.append("")
        return dict(pairs)

    try:
        value = json.loads(octets, object_pairs_hook=last_wins)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return Read(cast("dict[str, Any]", value), "a JSON member is named twice" if twice else problem)


def inflated(octets: bytes) -> bytes | None:
    """Return what zlib has compressed, if it is bearably large."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(octets, _MAX_INFLATED)
    except zlib.error:
        return None
    return data if inflater.eof else None


def names_within(members: Mapping[str, object], depth: int = 3) -> list[str]:
    """Return the names of members, and of theirs."""
    found = list(members)
    for value in members.values() if depth else ():
        if isinstance(value, dict):
            found += names_within(cast("dict[str, object]", value), depth - 1)
    return found
