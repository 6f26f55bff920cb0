"""Set-Cookie as a browser reads it: the user agent's algorithm, for test clients and for `inspect`.

Source: 6265bis, sections 5.1.1 (dates), 5.6 (parsing) and 5.7 (storage); layered-cookies for `__Http-` and
`__Host-Http-`; CHIPS for Partitioned. Where Chromium differs from the text, the text is followed: it drops
a value with an inner HTAB and takes `Max-Age=+5`, we keep the one and ignore the other (C22).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from coatcheck.core.cookies import MAX_ATTRIBUTE, MAX_LIFETIME, MAX_PAIR, PREFIXES, unmet_promise

EARLIEST: Final = -11_644_473_600_000  # 1601-01-01, the earliest date that 6265bis 5.1.1 lets through

_MILLISECOND = timedelta(milliseconds=1)
_LONGEST: Final = MAX_LIFETIME // _MILLISECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WHITE = b" \t"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_AGE = re.compile(rb"-?[0-9]+")
_DELIMITER = re.compile(rb"[\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(rb"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_DAY = re.compile(rb"([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_YEAR = re.compile(rb"([0-9]{2,4})(?:[^0-9].*)?", re.DOTALL)
_MONTHS = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
_PREFIXES = tuple(prefix.encode("ascii") for prefix in PREFIXES)

StoredSameSite = Literal["Strict", "Lax", "None", "Default"]
_SAME_SITE: Final[dict[bytes, StoredSameSite]] = {b"strict": "Strict", b"lax": "Lax", b"none": "None"}


@dataclass(frozen=True, slots=True)
class StoredCookie:
    """A cookie that a browser would keep, before it is matched with the URL that set it.

    `name` is empty for a nameless cookie. `domain` is None for a host-only cookie, `path` None where the
    default path of the request applies. `expires_at` is in milliseconds since the epoch, and None for a
    session cookie; one that is not after now deletes. `same_site` is "Default" where the line has no known
    value. `value` is kept out of the repr.
    """

    name: bytes
    value: bytes = field(repr=False)
    domain: str | None
    path: bytes | None
    secure: bool
    http_only: bool
    same_site: StoredSameSite
    partitioned: bool
    expires_at: int | None


def parse_set_cookie(line: bytes, *, now: int) -> StoredCookie | None:
    """Return the cookie that a browser makes of one Set-Cookie header, or None if it ignores the line.

    Args:
        line: the header's value.
        now: milliseconds since the epoch, for Max-Age and the cap of 400 days.

    Not judged, because it takes the URL that set the cookie: whether Domain covers the host or is a public
    suffix, whether Secure came over https, and the default path. `__Host-` needs an explicit `Path=/`.
    """
    if _CONTROL.search(line):
        return None
    pair, *rest = line.split(b";")
    name, equals, value = pair.partition(b"=")
    if not equals:
        name, value = b"", pair
    name, value = name.strip(_WHITE), value.strip(_WHITE)
    if not (name or value) or len(name) + len(value) > MAX_PAIR:
        return None
    attributes = _attributes(rest)
    domain = attributes.get(b"domain", b"").removeprefix(b".").lower()
    if not domain.isascii():
        return None
    path = attributes.get(b"path", b"")
    cookie = StoredCookie(
        name,
        value,
        domain=domain.decode("ascii") or None,
        path=path if path.startswith(b"/") else None,
        secure=b"secure" in attributes,
        http_only=b"httponly" in attributes,
        same_site=_SAME_SITE.get(attributes.get(b"samesite", b"").lower(), "Default"),
        partitioned=b"partitioned" in attributes,
        expires_at=_expiry(attributes, now),
    )
    return cookie if _storable(cookie) else None


def parse_cookie_date(text: bytes) -> int | None:
    """Return a cookie-date in milliseconds since the epoch, or None where it is none (6265bis 5.1.1)."""
    found: dict[str, tuple[int, ...]] = {}
    for token in _DELIMITER.split(text):
        for field_name, values in _readings(token):
            if field_name not in found:
                found[field_name] = values
                break
    if len(found) != 4:
        return None
    (year,), (month,), (day,) = found["year"], found["month"], found["day"]
    if year <= 99:
        year += 1900 if year >= 70 else 2000
    if year < 1601:
        return None
    hour, minute, second = found["time"]
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // _MILLISECOND


def _readings(token: bytes) -> list[tuple[str, tuple[int, ...]]]:
    # In the order of the algorithm: a token goes to the first field that it fits and that is still free.
    readings: list[tuple[str, tuple[int, ...]]] = []
    for field_name, shape in (("time", _TIME), ("day", _DAY)):
        if match := shape.fullmatch(token):
            readings.append((field_name, tuple(int(digits) for digits in match.groups())))
    if (start := token[:3].lower()) in _MONTHS:
        readings.append(("month", (_MONTHS.index(start) + 1,)))
    if match := _YEAR.fullmatch(token):
        readings.append(("year", (int(match[1]),)))
    return readings


def _attributes(parts: list[bytes]) -> dict[bytes, bytes]:
    # The last of a name wins. One that is ignored (too long, no number, no date) leaves an earlier one alone.
    attributes: dict[bytes, bytes] = {}
    for part in parts:
        name, _, value = part.partition(b"=")
        name, value = name.strip(_WHITE).lower(), value.strip(_WHITE)
        if len(value) > MAX_ATTRIBUTE:
            continue
        if name == b"max-age" and not _MAX_AGE.fullmatch(value):
            continue
        if name == b"expires" and parse_cookie_date(value) is None:
            continue
        attributes[name] = value
    return attributes


def _expiry(attributes: dict[bytes, bytes], now: int) -> int | None:
    if b"max-age" in attributes:
        seconds = int(attributes[b"max-age"])
        return now + min(seconds * 1000, _LONGEST) if seconds > 0 else EARLIEST
    if b"expires" in attributes:
        expires = parse_cookie_date(attributes[b"expires"])
        return None if expires is None else min(expires, now + _LONGEST)
    return None


def _storable(cookie: StoredCookie) -> bool:
    if (cookie.same_site == "None" or cookie.partitioned) and not cookie.secure:
        return False
    if not cookie.name and cookie.value.lower().startswith(_PREFIXES):
        return False  # sent back as it is, it would pass for the prefixed cookie
    met = {
        "Secure": cookie.secure,
        "HttpOnly": cookie.http_only,
        "Path=/": cookie.path == b"/",
        "no Domain": cookie.domain is None,
    }
    return unmet_promise(cookie.name.decode("latin-1"), met) is None
