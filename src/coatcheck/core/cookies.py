"""Cookies, the server's side: build Set-Cookie and its deletion twin, read Cookie headers.

A `Cookie` is a kind of cookie; everything that can be wrong about it is found when it is constructed, so that
building a header is one concatenation. Reading works on bytes: only SP and HTAB are white space, nothing is
unquoted and nothing is decoded, because every convenience there lets a look-alike name turn into ours.

Sources: 6265bis (draft-ietf-httpbis-rfc6265bis), sections 4.1 and 4.2; layered-cookies for `__Http-`,
`__Host-Http-`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from coatcheck.errors import ConfigurationError, InvalidValue, Malformed

SameSite = Literal["Strict", "Lax", "None"]

SESSION_COOKIE: Final = "__Host-session"
MAX_PAIR: Final = 4096  # octets of name and value together (6265bis 5.6, step 5)
MAX_ATTRIBUTE: Final = 1024  # octets of one attribute's value (6265bis 5.6)
MAX_COOKIE_HEADER: Final = 65536  # octets of a request's Cookie headers; servers stop at 8 to 64 KiB
MAX_LIFETIME: Final = timedelta(days=400)  # 6265bis 5.5: browsers shorten whatever is longer

PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    # A name that begins so, in any case, promises this. `__Host-Http-` is caught by two rows, which agree.
    {
        "__secure-": ("Secure",),
        "__host-": ("Secure", "Path=/", "no Domain"),
        "__http-": ("Secure", "HttpOnly"),
        "__host-http-": ("Secure", "HttpOnly", "Path=/", "no Domain"),
    }
)

_WHITE = b" \t"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[!#-+\--:<-\[\]-~]*")
# The grammar would allow spaces in a path, but a user agent trims them and no request path contains one.
_PATH = re.compile(r"/[!-:<-~]*")
_LABEL = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SAME_SITE: Final = ("Strict", "Lax", "None")

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Cookie:
    """One kind of cookie: its name and attributes, checked once, here.

    Given a name only, it is the strictest that works everywhere: Secure, HttpOnly, SameSite=Lax, Path=/, no
    Domain, and no lifetime of its own, which makes it a session cookie (C7).

    Args:
        name: a token (RFC 9110, 5.6.2). The prefixes `__Secure-`, `__Host-`, `__Http-` and `__Host-Http-`
            are matched in any case, and what they promise must be true (C8).
        path: begins with "/".
        domain: a host name without a leading dot, or None for this host only.
        secure: sent over https only; SameSite=None and Partitioned demand it (C10, C11).
        http_only: hidden from scripts.
        same_site: "Strict", "Lax" or "None"; always written, for browsers disagree on the default.
        partitioned: kept apart for each top-level site (CHIPS).
        max_age: a second or more; more than 400 days is shortened to that, with a warning (C4).

    Raises:
        ConfigurationError: the attributes cannot be sent, or a browser would drop the cookie.

    Not checked: that `domain` covers the host that answers, and that it is not a public suffix.
    """

    name: str
    _: KW_ONLY
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    http_only: bool = True
    same_site: SameSite = "Lax"
    partitioned: bool = False
    max_age: timedelta | None = None
    _head: bytes = field(init=False, repr=False, compare=False)
    _tail: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_text("name", self.name, _TOKEN, MAX_PAIR)
        _check_text("path", self.path, _PATH, MAX_ATTRIBUTE)
        if self.domain is not None:
            _check_text("domain", self.domain, _DOMAIN, 253)
        _check_promises(self)
        if self.max_age is not None:
            object.__setattr__(self, "max_age", _configured_age(self.max_age))
        object.__setattr__(self, "_head", self.name.encode("ascii") + b"=")
        object.__setattr__(self, "_tail", _attributes(self).encode("ascii"))

    def header(self, value: str | bytes, *, now: int, max_age: timedelta | None = None) -> bytes:
        """Return the value of a Set-Cookie header that stores `value` (6265bis 4.1.1).

        Args:
            value: cookie-octets: ASCII without controls, space, quote, comma, semicolon and backslash.
            now: milliseconds since the epoch, for Expires.
            max_age: a lifetime for this one, shortened to 400 days; None takes the kind's own.

        Raises:
            InvalidValue: the value or lifetime cannot be sent, or name and value exceed 4096 octets (C1, C3).
        """
        raw = _octets(value)
        if len(self._head) - 1 + len(raw) > MAX_PAIR:
            raise InvalidValue(f"cookie {self.name}: name and value exceed {MAX_PAIR} octets")
        seconds = self._seconds(max_age)
        if seconds is None:
            return self._head + raw + self._tail
        return self._head + raw + _lifetime(seconds, now + seconds * 1000) + self._tail

    def deletion(self, *, now: int) -> bytes:
        """Return the value of a Set-Cookie header that makes the browser forget this cookie (C6).

        It repeats name, Domain, Path and every flag: a browser looks the cookie up by the first three and by
        whether it is Partitioned, and refuses the line if a flag that the prefix promises is missing.

        Args:
            now: milliseconds since the epoch.
        """
        # Max-Age=0 decides. Expires lies back by the longest lifetime, in the past for a slow clock too.
        past = now - MAX_LIFETIME // timedelta(milliseconds=1)
        return self._head + _lifetime(0, past) + self._tail

    def expires_at(self, *, now: int, max_age: timedelta | None = None) -> int | None:
        """Return when a cookie sent at `now` dies, in milliseconds since the epoch; None: with the browser.

        Args:
            now: milliseconds since the epoch.
            max_age: as given to `header`; 400 days is the most, however much was asked for (C4).

        Raises:
            InvalidValue: the lifetime is less than a second.
        """
        seconds = self._seconds(max_age)
        return None if seconds is None else now + seconds * 1000

    def _seconds(self, max_age: timedelta | None) -> int | None:
        age = self.max_age if max_age is None else max_age
        if age is None:
            return None
        if age < _SECOND:
            raise InvalidValue("a cookie's lifetime is at least one second; to end it, send its deletion")
        return min(age, MAX_LIFETIME) // _SECOND


def parse_cookies(headers: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the (name, value) pairs of some Cookie headers, in the order sent, duplicates included (C12).

    Never raises, whatever the bytes. SP and HTAB are trimmed around names and values and nothing else is,
    quotes stay part of the value, and nothing is decoded. A pair without "=" is a nameless cookie: its name
    is empty, as a browser sends it (6265bis 5.8.3, step 4). Names are bytes to be compared case-sensitively
    (C9).

    Args:
        headers: the values of all Cookie headers; HTTP/2 and HTTP/3 may split one into several.
    """
    return [pair for header in headers for pair in _pairs(header)]


def find_cookie(headers: Iterable[bytes], name: bytes) -> bytes | None:
    """Return the value of the cookie called exactly `name`, or None: what `parse_cookies` says, but fast.

    Args:
        headers: the values of all Cookie headers of one request.
        name: a cookie name of ours: a token, in the exact case (C9).

    Raises:
        Malformed: two cookies have that name, whatever their values and order: one of them was tossed in
            from a sibling path or domain, and nothing tells which (C13; 6265bis 8.6). Or the headers exceed
            65536 octets.
    """
    found: list[bytes] = []
    total = 0
    for header in headers:
        total += len(header)
        if total > MAX_COOKIE_HEADER:
            raise Malformed(f"Cookie headers exceed {MAX_COOKIE_HEADER} octets")
        start = header.find(name)
        if start >= 0:
            found += _values(header, name, start)
    if len(found) > 1:
        raise Malformed("two cookies of one name")
    return found[0] if found else None


def plain_text(raw: bytes) -> str:
    """Return a plain cookie's value as text, if it is one that could have been sent.

    Args:
        raw: the value, as it was received.

    Raises:
        Malformed: it has octets that no cookie-octets are (6265bis 4.1.1).

    Not checked: who wrote it; anybody can, who has the browser or a script in the page.
    """
    if not _VALUE.fullmatch(raw):
        raise Malformed("the value is not made of cookie-octets")
    return raw.decode("ascii")


def unmet_promise(name: str, met: Mapping[str, bool]) -> str | None:
    """Return the first thing that the prefix of `name` promises and `met` does not have, or None (C8).

    Args:
        name: a cookie name, in any case.
        met: for each word in `PREFIXES`' rows, whether it is so.
    """
    lowered = name.lower()
    for prefix, demands in PREFIXES.items():
        if lowered.startswith(prefix):
            for demand in demands:
                if not met[demand]:
                    return demand
    return None


def imf_fixdate(moment: int) -> str:
    """Return a time in milliseconds since the epoch as an IMF-fixdate (RFC 9110, 5.6.7), in whole seconds."""
    # Not strftime: its names of days and months follow the process's locale.
    at = _EPOCH + timedelta(seconds=moment // 1000)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


def _pairs(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    for part in header.split(b";"):
        name, equals, value = part.partition(b"=")
        if not equals:
            name, value = b"", part
        name, value = name.strip(_WHITE), value.strip(_WHITE)
        if name or value:
            yield name, value


def _values(header: bytes, name: bytes, start: int) -> list[bytes]:
    # What browsers send is found by position; whatever looks different, or occurs twice, is read in full.
    end = start + len(name)
    plain = (not start or header[start - 2 : start] == b"; ") and header[end : end + 1] == b"="
    if not plain or header.find(name, end) >= 0:
        return [value for found, value in _pairs(header) if found == name]
    return [header[end + 1 :].partition(b";")[0].strip(_WHITE)]


def _octets(value: str | bytes) -> bytes:
    try:
        raw = value.encode("ascii") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise InvalidValue("a cookie's value is ASCII") from None
    if not _VALUE.fullmatch(raw):
        raise InvalidValue("a cookie's value has no controls, space, quote, comma, semicolon or backslash")
    return raw


def _lifetime(seconds: int, expires: int) -> bytes:
    return f"; Max-Age={seconds}; Expires={imf_fixdate(expires)}".encode("ascii")


def _attributes(cookie: Cookie) -> str:
    return "".join(
        (
            f"; Path={cookie.path}",
            "" if cookie.domain is None else f"; Domain={cookie.domain}",
            "; Secure" if cookie.secure else "",
            "; HttpOnly" if cookie.http_only else "",
            f"; SameSite={cookie.same_site}",
            "; Partitioned" if cookie.partitioned else "",
        )
    )


def _check_text(what: str, text: object, shape: re.Pattern[str], limit: int) -> None:
    # An object, for whoever does not check types: bytes would be written as "b'sid'", which is a token.
    if not isinstance(text, str) or not shape.fullmatch(text):
        raise ConfigurationError(f"the cookie's {what} cannot be sent in a Set-Cookie header")
    if len(text) > limit:
        raise ConfigurationError(f"the cookie's {what} exceeds {limit} octets")


def _check_promises(cookie: Cookie) -> None:
    if cookie.same_site not in _SAME_SITE:
        raise ConfigurationError(f"same_site is one of {', '.join(_SAME_SITE)}")
    if cookie.same_site == "None" and not cookie.secure:
        raise ConfigurationError("SameSite=None demands Secure: browsers drop the cookie otherwise")
    if cookie.partitioned and not cookie.secure:
        raise ConfigurationError("Partitioned demands Secure: browsers drop the cookie otherwise")
    met = {
        "Secure": cookie.secure,
        "HttpOnly": cookie.http_only,
        "Path=/": cookie.path == "/",
        "no Domain": cookie.domain is None,
    }
    if (unmet := unmet_promise(cookie.name, met)) is not None:
        raise ConfigurationError(f"the prefix of {cookie.name} demands {unmet}")


def _configured_age(age: timedelta) -> timedelta:
    if age < _SECOND:
        raise ConfigurationError("a cookie's max_age is at least one second")
    if age > MAX_LIFETIME:
        # Levels: here, __post_init__, the generated __init__, whoever constructs the cookie.
        warnings.warn("browsers keep a cookie for 400 days at most: max_age is shortened", stacklevel=4)
        return MAX_LIFETIME
    return age
