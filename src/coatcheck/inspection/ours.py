"""What coatcheck itself hands out. Whether one of these is genuine is not checked: that takes the keys."""

from __future__ import annotations

import re
from typing import Final

from coatcheck.core import base64url
from coatcheck.core.credentials import SessionCookie
from coatcheck.errors import Malformed
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.report import Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import moment

_BOX: Final = re.compile(r"2([12])\.([0-9A-Za-z_-]+)")
_NOTE: Final = re.compile(r"1\.([1-9][0-9]{0,15})\.[0-9A-Za-z_-]{43}")
_SIGNED: Final = re.compile(r"1\.([0-9A-Za-z_-]*)\.([1-9][0-9]{0,15})\.[0-9A-Za-z_-]{43}")
_REFRESH: Final = 57  # octets: version, session id, generation, MAC
_MANY: Final = 2**32  # refreshes; more than any session sees
_LEAST_SEALED: Final = 33  # octets: version, key id, nonce and tag


def session_cookie(text: str, _looking: Looking) -> Report | None:
    """Explain the value of our session cookie."""
    try:
        cookie = SessionCookie.parse(text.encode("ascii"))
    except (UnicodeEncodeError, Malformed):
        return None
    return Report(
        kind="coatcheck session cookie",
        summary="The ticket of a session that a server keeps: an id, which may be logged and shown, and a secret of "
        "256 bits, which must not. Who has the whole value is signed in.",
        facts={"session id": cookie.id, "genuine": "not checked: only the server can"},
    )


def sealed_session(text: str, _looking: Looking) -> Report | None:
    """Explain the value of our session cookie where sessions are sealed."""
    match = _BOX.fullmatch(text)
    octets = None if match is None else _sealed(match[2])
    if match is None or octets is None:
        return None
    return Report(
        kind="coatcheck sealed session",
        summary="A whole session, encrypted: its browser keeps it, and can neither read nor change it.",
        facts={"cookies that it takes": match[1], "key id": octets[1:5].hex(), "genuine": "not checked"},
    )


def note(text: str, looking: Looking) -> Report | None:
    """Explain the note that says when a sealed session was last seen."""
    match = _NOTE.fullmatch(text)
    if match is None:
        return None
    return Report(
        kind="coatcheck last-seen note",
        summary="When a sealed session was last seen; it counts for that session only, and carries no data.",
        facts={"last seen": moment(int(match[1]) // 1000, looking.now), "genuine": "not checked"},
    )


def signed_value(text: str, looking: Looking) -> Report | None:
    """Explain the value of a SignedCookie."""
    match = _SIGNED.fullmatch(text)
    if match is None:
        return None
    end = int(match[2])
    return Report(
        kind="coatcheck signed value",
        summary="A cookie of the application's: whoever has it can read it, and only the server can make it.",
        facts={
            "text": f"{len(match[1]) * 3 // 4} octets",
            "ends": moment(end // 1000, looking.now),
            "genuine": "not checked",
        },
        findings=(finding("ended", "its time is over"),) if end <= looking.now else (),
    )


def refresh_token(text: str, _looking: Looking) -> Report | None:
    """Explain a refresh token."""
    octets = _octets(text)
    if len(octets) != _REFRESH or octets[0] != 1 or (generation := int.from_bytes(octets[17:25], "big")) >= _MANY:
        return None
    return Report(
        kind="coatcheck refresh token",
        summary="Good once, for the next access token of its session. Spent a second time, it ends the session.",
        facts={
            "session id": base64url.encode(octets[1:17]),
            "generation": str(generation),
            "genuine": "not checked: only the server can",
        },
    )


def sealed_value(text: str, _looking: Looking) -> Report | None:
    """Explain a sealed value."""
    octets = _sealed(text)
    if octets is None:
        return None
    return Report(
        kind="coatcheck sealed value",
        summary="It looks like data that the server has encrypted for itself; one random text in 256 looks so too.",
        facts={
            "key id": octets[1:5].hex(),
            "content": f"{len(octets) - _LEAST_SEALED} octets, unreadable",
            "genuine": "not checked",
        },
    )


def _sealed(text: str) -> bytes | None:
    octets = _octets(text)
    return octets if len(octets) >= _LEAST_SEALED and octets[0] == 1 else None


def _octets(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except Malformed:
        return b""
