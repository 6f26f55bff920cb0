"""What others sign or encrypt: itsdangerous (Flask, Starlette), Django, Express, and Fernet.

A secret that everybody tries is tried on these, as whoever has the cookie would.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from hashlib import sha1, sha256
from typing import Final
from urllib.parse import unquote

from coatcheck.inspection.claims import personal_in, secrets_in
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import KNOWN_SECRETS, says_who
from coatcheck.inspection.reading import Read, base64_octets, inflated, json_object
from coatcheck.inspection.report import Finding, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed, moment

_MAC: Final = r"[0-9A-Za-z_-]{27}|[0-9A-Za-z_-]{43}|[0-9A-Za-z_-]{86}"
_DANGEROUS: Final = re.compile(rf"([^\s;]+?)(?:\.([0-9A-Za-z_-]{{6}}))?\.({_MAC})")
_DJANGO: Final = re.compile(r"([^\s;]+):([0-9A-Za-z]{5,7}):([0-9A-Za-z_-]{27}|[0-9A-Za-z_-]{43})")
_EXPRESS: Final = re.compile(r"s:([^\s;]+)\.([0-9A-Za-z+/]{43})=*")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SOME_YEARS: Final = (1_262_304_000, 4_102_444_800)  # 2010 and 2100; a time beyond is none

_FLASK_SALT: Final = b"cookie-session"
_PLAIN_SALT: Final = b"itsdangerous.Signer"
_DJANGO_SALTS: Final = (b"django.contrib.sessions.backends.signed_cookies", b"django.core.signing")


def itsdangerous(text: str, looking: Looking) -> Report | None:
    """Explain what itsdangerous has signed: the sessions of Flask and of Starlette's SessionMiddleware among it."""
    match = _DANGEROUS.fullmatch(text)
    if match is None:
        return None
    value, stamp, mac = match.groups()
    read, signed_at = _content(value), _stamp(stamp)
    if read is None and signed_at is None:
        return None  # three random parts look so too
    when = {"signed": moment(signed_at, looking.now)} if signed_at is not None else {}
    return Report(
        kind="itsdangerous session" if read is not None else "itsdangerous value",
        summary="Signed by itsdangerous, as Flask and Starlette sign their sessions: whoever has it can read it.",
        facts=when | _members(read),
        findings=(*_of_session(read), *_known(text.rpartition(".")[0], mac, _dangerous_keys())),
    )


def django(text: str, looking: Looking) -> Report | None:
    """Explain what Django has signed: the sessions of its signed_cookies backend among it."""
    match = _DJANGO.fullmatch(text)
    if match is None:
        return None
    value, stamp, mac = match.groups()
    seconds = 0
    for digit in stamp:
        seconds = seconds * 62 + _DIGITS.index(digit)
    if not _SOME_YEARS[0] <= seconds <= _SOME_YEARS[1]:
        return None
    read = _content(value)
    return Report(
        kind="Django session" if read is not None else "Django signed value",
        summary="Signed by Django: whoever has it can read it.",
        facts={"signed": moment(seconds, looking.now)} | _members(read),
        findings=(*_of_session(read), *_known(text.rpartition(":")[0], mac, _django_keys())),
    )


def express(text: str, looking: Looking) -> Report | None:
    """Explain what Express has signed: the id of a session, mostly."""
    match = _EXPRESS.fullmatch(unquote(text) if text.startswith("s%3A") else text)
    if match is None:
        return None
    octets = base64_octets(match[2]) or b""
    macs = [
        hmac.digest(secret.encode(), match[1].encode("utf-8", "surrogateescape"), "sha256") for secret in KNOWN_SECRETS
    ]
    known = (finding("secret-known", _TRIED),) if octets in macs else ()
    return Report(
        kind="Express signed value",
        summary="Signed by Express: the id of a session that a server keeps, mostly.",
        facts={},
        findings=known,
        parts=looking.into("value", match[1], looking.role),
    )


def fernet(text: str, looking: Looking) -> Report | None:
    """Explain a Fernet token."""
    octets = base64_octets(text) if text.startswith("gAAAA") else None
    if octets is None or len(octets) < 73:
        return None
    return Report(
        kind="Fernet token",
        summary="Encrypted and authenticated by Fernet; when it was made can be read, and nothing else.",
        facts={"made": moment(int.from_bytes(octets[1:9], "big"), looking.now)},
    )


_TRIED: Final = f"one of {len(KNOWN_SECRETS)} secrets that everybody tries has signed it"


def _content(value: str) -> Read | None:
    """Return the JSON object that a value holds, compressed or not."""
    octets = base64_octets(value.removeprefix("."))
    if octets is not None and value.startswith("."):
        octets = inflated(octets)
    return None if octets is None else json_object(octets)


def _stamp(text: str | None) -> int | None:
    octets = base64_octets(text) if text else None
    seconds = int.from_bytes(octets, "big") if octets else 0
    return seconds if _SOME_YEARS[0] <= seconds <= _SOME_YEARS[1] else None


def _members(read: Read | None) -> dict[str, str]:
    return {} if read is None else {"holds": listed(list(read.members)) or "nothing"}


def _of_session(read: Read | None) -> list[Finding]:
    if read is None:
        return []
    found = [*secrets_in(read.members), *personal_in(read.members)]
    if says_who(read.members):
        found.append(finding("client-session", "it says who is signed in, and nothing on the server does"))
    return found


def _known(signed: str, mac: str, keys: Iterator[tuple[bytes, str]]) -> list[Finding]:
    octets, message = base64_octets(mac), signed.encode("utf-8", "surrogateescape")
    fits = any(hmac.digest(key, message, digest) == octets for key, digest in keys)
    return [finding("secret-known", _TRIED)] if fits else []


def _dangerous_keys() -> Iterator[tuple[bytes, str]]:
    for known in KNOWN_SECRETS:
        secret = known.encode()
        yield hmac.digest(secret, _FLASK_SALT, "sha1"), "sha1"
        yield sha1(_PLAIN_SALT + b"signer" + secret).digest(), "sha1"  # noqa: S324 - it is what itsdangerous does


def _django_keys() -> Iterator[tuple[bytes, str]]:
    for known in KNOWN_SECRETS:
        for salt in _DJANGO_SALTS:
            yield sha256(salt + b"signer" + known.encode()).digest(), "sha256"
