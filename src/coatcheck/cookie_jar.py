"""CookieJar: the cookies of one request and its response, those of the session and those of the application alike."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from coatcheck.clock import Clock
from coatcheck.core.cookies import MAX_COOKIE_HEADER, Cookie, find_cookie, parse_cookies, plain_text
from coatcheck.core.keys import Keyring
from coatcheck.core.own_cookies import ProtectedCookie
from coatcheck.core.policy import Policy
from coatcheck.core.seal import NONCE_SIZE
from coatcheck.errors import ConfigurationError, CredentialError, InvalidValue, Malformed
from coatcheck.request_head import Headers, RequestHead

MAX_TOGETHER: Final = 8192  # octets: many servers take no longer header (C15)

_log = logging.getLogger("coatcheck")


@dataclass(frozen=True, slots=True, repr=False)  # without a repr, for in it are secrets
class _Sent:
    """A cookie that the response sends; `text` is None where it is taken back."""

    line: bytes
    text: str | None


class CookieJar:
    """What a request's handler does with cookies of the application's own; found as `exchange.cookies`.

    Args:
        head: the request.
        clock: milliseconds since the epoch.
        keyring: what signed and sealed values are made with.
        policy: which names are ours.
    """

    __slots__ = (
        "_clock", "_cookie_headers", "_head", "_keyring", "_policy", "_received", "_sent", "accessed", "confidential",
    )  # fmt: skip

    def __init__(self, head: RequestHead, clock: Clock, keyring: Keyring, policy: Policy) -> None:
        self._head = head
        self._clock = clock
        self._keyring = keyring
        self._policy = policy
        self._sent: dict[str, _Sent] = {}
        self._cookie_headers: list[bytes] | None = None
        self._received: dict[bytes, list[bytes]] | None = None
        self.accessed = False
        """Whether anybody looked: the response then depends on the cookies (C18)."""
        self.confidential = False
        """Whether a signed or sealed value is sent: no cache may hand it to somebody else (P4)."""

    def __bool__(self) -> bool:
        return bool(self._sent)

    # -- the application's -------------------------------------------------------------------------------------

    def get(self, cookie: Cookie) -> str | None:
        """Return a cookie's value, or None: there is none, there are two, or it is not what `set` could have sent.

        What this response sets or deletes counts already. A signed or sealed value is genuine, of this very cookie
        and has not ended; that somebody else's copy was put into this browser cannot be told.

        Args:
            cookie: the same kind that was set.

        Not checked: who wrote a plain value; whoever has the browser can.

        Raises:
            ConfigurationError: the name is one of coatcheck's own, or the key ring has no secret.
        """
        self._require_own(cookie)
        return self.read(cookie)

    def set(self, cookie: Cookie, value: str, *, max_age: timedelta | None = None) -> None:
        """Send a cookie with the response; of one name the last counts, so a response never sets it twice (C2).

        Args:
            cookie: its name and attributes; a SignedCookie or SealedCookie protects its values.
            value: of a plain cookie cookie-octets: ASCII without controls, space, quote, comma, semicolon and
                backslash. Of the others any text.
            max_age: a lifetime for this one; None takes the kind's own.

        Raises:
            InvalidValue: the value cannot be sent, or is too large: name and value take 4096 octets at most (C3).
            ConfigurationError: the name is one of coatcheck's own, or the key ring has no secret.
        """
        self._require_own(cookie)
        _require_text(value)
        self.send(cookie, value, max_age=max_age)

    def delete(self, cookie: Cookie) -> None:
        """Take a cookie back, whether or not the browser has it.

        Args:
            cookie: of the name, path and domain with which it was set.

        Raises:
            ConfigurationError: the name is one of coatcheck's own.
        """
        self._require_own(cookie)
        self._delete(cookie)

    # -- everybody's -------------------------------------------------------------------------------------------

    def read(self, cookie: Cookie) -> str | None:
        """Return what `get` does, of our own cookies too."""
        self.accessed = True
        if cookie.name in self._sent:
            return self._sent[cookie.name].text
        try:
            raw = self._find(cookie.name.encode("ascii"))
            return None if raw is None else self._text(cookie, raw)
        except CredentialError as reason:
            _log.info("the cookie %s counts as missing: %s", cookie.name, reason)
            return None

    def send(self, cookie: Cookie, value: str, *, max_age: timedelta | None = None) -> None:
        """Do what `set` does, with our own cookies too."""
        now, sent = self._clock(), value
        if isinstance(cookie, ProtectedCookie):
            keys, ends = self._keyring.derive(cookie.key_purpose), cookie.expires_at(now=now, max_age=max_age)
            sent = cookie.protect(value, keys=keys, expires_at=ends, nonce=secrets.token_bytes(NONCE_SIZE))
        self._sent[cookie.name] = _Sent(cookie.header(sent, now=now, max_age=max_age), value)
        self.confidential |= isinstance(cookie, ProtectedCookie)

    def take_back(self, *cookies: Cookie) -> None:
        """Take back those cookies, our own too, that the browser has, as far as the request and this response tell."""
        for cookie in cookies:
            if cookie.name in self._sent or self._is_received(cookie.name.encode("ascii")):
                self._delete(cookie)

    def sizes(self) -> dict[str, int]:
        """Return the names that the browser has once this response is there, each with the octets that it will send."""
        names = {
            name.decode("latin-1"): sum(len(name) + len(value) for value in values)
            for name, values in self._all().items()
        }
        for name, sent in self._sent.items():
            names.pop(name, None)
            if sent.text is not None:
                names[name] = sent.line.index(b";") - len("=")
        return names

    def together(self) -> int:
        """Return how many octets of cookies the browser will send once this response is there, or more than that."""
        at_most = sum(len(header) for header in self._headers())
        at_most += sum(len(sent.line) for sent in self._sent.values())
        if at_most <= MAX_TOGETHER:  # nearly always; the exact sum takes longer
            return at_most
        return sum(size + len("=; ") for size in self.sizes().values())

    def dress(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return a response's headers with the cookies among them, in place of any of the same names."""
        ours = tuple(name.encode("ascii") + b"=" for name in self._sent)
        kept = [
            (name, value)
            for name, value in headers
            if not (ours and name.lower() == b"set-cookie" and value.startswith(ours))
        ]
        together = self.together()
        if together > MAX_TOGETHER:  # all requests of this browser would fail (C15)
            _log.warning("this browser's cookies take %d octets; many servers take %d at most", together, MAX_TOGETHER)
        return kept + [(b"set-cookie", sent.line) for sent in self._sent.values()]

    # -- inside ------------------------------------------------------------------------------------------------

    def _delete(self, cookie: Cookie) -> None:
        self._sent[cookie.name] = _Sent(cookie.deletion(now=self._clock()), None)

    def _text(self, cookie: Cookie, raw: bytes) -> str:
        if isinstance(cookie, ProtectedCookie):
            return cookie.reveal(raw, keys=self._keyring.derive(cookie.key_purpose), now=self._clock())
        return plain_text(raw)

    def _require_own(self, cookie: Cookie) -> None:
        if self._policy.owns(cookie.name):
            raise ConfigurationError(
                f"{cookie.name} is a cookie of coatcheck's own: give the application's another name"
            )

    def _find(self, name: bytes) -> bytes | None:
        """Return what `find_cookie` does; of many names the header is read once (P9)."""
        if self._received is None:
            return find_cookie(self._headers(), name)
        values = self._received.get(name, [])
        if len(values) > 1:
            raise Malformed("two cookies of one name")
        return values[0] if values else None

    def _is_received(self, name: bytes) -> bool:
        # Where the name is in no header, in whatever place, there is no need to take them apart.
        return any(name in header for header in self._headers()) and name in self._all()

    def _headers(self) -> list[bytes]:
        if self._cookie_headers is None:
            self._cookie_headers = self._head.values(b"cookie")
        return self._cookie_headers

    def _all(self) -> dict[bytes, list[bytes]]:
        if self._received is None:
            self._received = {}
            headers = self._headers()
            if sum(len(header) for header in headers) <= MAX_COOKIE_HEADER:  # of more, nothing is believed
                for name, value in parse_cookies(headers):
                    self._received.setdefault(name, []).append(value)
        return self._received


def _require_text(value: object) -> None:
    # For whoever does not check types: bytes would be sent, and come back as text.
    if not isinstance(value, str):
        raise InvalidValue("a cookie's value is a str")
