"""CookieJar: the cookies that one response sends, those of the session and those of the application alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from coatcheck.clock import Clock
from coatcheck.core.cookies import Cookie
from coatcheck.request_head import Headers, RequestHead


class CookieJar:
    """What a request's handler does with cookies; found as `exchange.cookies`.

    Args:
        head: the request.
        clock: milliseconds since the epoch.
    """

    __slots__ = ("_clock", "_head", "_headers")

    def __init__(self, head: RequestHead, clock: Clock) -> None:
        self._head = head
        self._clock = clock
        self._headers: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._headers)

    def set(self, cookie: Cookie, value: str, *, max_age: timedelta | None = None) -> None:
        """Send a cookie with the response; of one name the last counts, so a response never sets it twice (C2).

        Args:
            cookie: its name and attributes.
            value: cookie-octets: ASCII without controls, space, quote, comma, semicolon and backslash.
            max_age: a lifetime for this one; None takes the kind's own.

        Raises:
            InvalidValue: the value cannot be sent, or is too large.
        """
        self._headers[cookie.name] = cookie.header(value, now=self._clock(), max_age=max_age)

    def delete(self, cookie: Cookie) -> None:
        """Take a cookie back."""
        self._headers[cookie.name] = cookie.deletion(now=self._clock())

    def take_back(self, *cookies: Cookie) -> None:
        """Take back those cookies that the browser has, as far as the request and this response tell."""
        for cookie in cookies:
            if cookie.name in self._headers or self._head.presents(cookie.name):
                self.delete(cookie)

    def dress(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return a response's headers with the cookies among them, in place of any of the same names."""
        ours = tuple(name.encode("ascii") + b"=" for name in self._headers)
        kept = [
            (name, value)
            for name, value in headers
            if not (ours and name.lower() == b"set-cookie" and value.startswith(ours))
        ]
        return kept + [(b"set-cookie", header) for header in self._headers.values()]
