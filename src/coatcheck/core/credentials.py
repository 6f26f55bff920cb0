"""Credentials: what a request presents, read from its headers and not yet judged.

The order in which they count is one table, `_PRECEDENCE`. A credential that is present and cannot be read
is a refusal, never a reason to try the next kind. No repr shows a secret, and no error message a part of one.
"""

from __future__ import annotations

import hmac
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

import msgspec

from coatcheck.core import base64url
from coatcheck.core.cookies import SESSION_COOKIE, find_cookie
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed

MAX_TOKEN: Final = 8192  # octets of an access token

_SESSION_VERSION: Final = "1"
_REFRESH_VERSION: Final = b"\x01"
_REFRESH_SIZE: Final = 1 + 16 + 8 + 32

# Canonical base64url (J7): the last letter of 16 or 32 octets carries 4 or 2 unused bits, which are zero.
_ID = r"[0-9A-Za-z_-]{21}[AQgw]"
_SESSION_ID = re.compile(_ID)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_SESSION = re.compile(rf"{_SESSION_VERSION}({_ID})\.([0-9A-Za-z_-]{{42}}[AEIMQUYcgkosw048])".encode("ascii"))
_AUTHORIZATION = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?: +(.*))?", re.DOTALL)  # RFC 9110, 11.4
_B64TOKEN = re.compile(rb"[0-9A-Za-z\-._~+/]+=*")  # RFC 6750, 2.1
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_SECRETS = ("secret", "text")


class _Redacted(msgspec.Struct, frozen=True):
    # `rich` prints a Struct through __rich_repr__, not __repr__: both must hold their tongue.
    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, "[redacted]" if name in _SECRETS else getattr(self, name)) for name in self.__struct_fields__]


class SessionCookie(_Redacted, frozen=True):
    """The session's ticket: an `id` that is safe to log and show, and a `secret` of 32 octets that is not."""

    id: str
    secret: bytes

    @property
    def value(self) -> str:
        """The cookie's value: "1", the id, ".", and the secret in base64url: 67 characters."""
        return f"{_SESSION_VERSION}{self.id}.{base64url.encode(self.secret)}"

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the session cookie that a Cookie header carried.

        Args:
            raw: the cookie's value.

        Raises:
            Malformed: it is not of the one form that `value` writes.

        Not checked: that such a session exists, or that the secret is its own.
        """
        match = _SESSION.fullmatch(raw)
        if match is None:
            raise Malformed("the session cookie cannot be read")
        id, secret = match.groups()
        return cls(id.decode("ascii"), a2b_base64(secret.translate(_STANDARD) + b"="))  # canonical, says the pattern


class AccessToken(_Redacted, frozen=True):
    """An access token as it was presented; nothing in it is verified.

    `ambient` says that it came in a cookie, which browsers add by themselves, whoever had them send the request.
    """

    text: str
    ambient: bool = False

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return the token that an Authorization header or a cookie carried.

        Args:
            raw: the token alone.

        Raises:
            Malformed: it is no b64token (RFC 6750, 2.1), or exceeds 8192 octets.
        """
        if len(raw) > MAX_TOKEN:
            raise Malformed(f"the access token exceeds {MAX_TOKEN} octets")
        if not _B64TOKEN.fullmatch(raw):
            raise Malformed("the access token cannot be read")
        return cls(raw.decode("ascii"))


class RefreshToken(_Redacted, frozen=True):
    """One refresh of the session `sid`, the one numbered `generation`; worth nothing until it is sealed."""

    sid: str
    generation: int

    def seal(self, key: bytes) -> str:
        """Return the token to hand out: 76 characters of base64url, authentic under `key`.

        Args:
            key: 32 secret octets, for this purpose only.

        Raises:
            InvalidValue: `sid` is no session id, or `generation` does not fit in 8 octets.
        """
        if not valid_session_id(self.sid) or not 0 <= self.generation < 2**64:
            raise InvalidValue("a refresh token takes a session id and a generation below 2**64")
        body = _REFRESH_VERSION + base64url.decode(self.sid) + self.generation.to_bytes(8, "big")
        return base64url.encode(body + hmac.digest(key, body, "sha256"))

    @classmethod
    def parse(cls, text: str | bytes, keys: Sequence[bytes]) -> Self:
        """Return the refresh token sealed in `text`.

        Args:
            text: what the client presented.
            keys: every key that may have sealed it; each is tried, in constant time.

        Raises:
            Malformed: it is not of the form that `seal` writes.
            BadSignature: none of the keys sealed it.

        Not checked: that the session lives, or that this generation may still be used.
        """
        raw = base64url.decode(text) if len(text) == _REFRESH_SIZE * 4 // 3 else b""
        if not raw.startswith(_REFRESH_VERSION):
            raise Malformed("the refresh token cannot be read")
        body, mac = raw[:25], raw[25:]
        matches = [hmac.compare_digest(hmac.digest(key, body, "sha256"), mac) for key in keys]
        if not any(matches):
            raise BadSignature("the refresh token is not ours")
        return cls(base64url.encode(body[1:17]), int.from_bytes(body[17:], "big"))


Presented = SessionCookie | AccessToken


class CookieNames(msgspec.Struct, frozen=True):
    """The names of our three cookies, as octets to search Cookie headers for.

    Raises:
        ConfigurationError: one is not a token, or two are the same.
    """

    session: bytes = SESSION_COOKIE.encode("ascii")
    access: bytes = b"__Host-access"
    refresh: bytes = b"__Host-refresh"

    def __post_init__(self) -> None:
        names = (self.session, self.access, self.refresh)
        if not all(_NAME.fullmatch(name) for name in names):
            raise ConfigurationError("a cookie's name is a token (RFC 9110, 5.6.2)")
        if len(set(names)) != len(names):
            raise ConfigurationError("the session, access and refresh cookies have three names")


def read(headers: Iterable[tuple[bytes, bytes]], names: CookieNames) -> Presented | None:
    """Return the credential that a request presents, or None if it presents none of ours.

    The first of these that is there counts, and the others are not looked at: `Authorization: Bearer`, the
    session cookie, the access-token cookie. Another scheme, like Basic, is somebody else's and passes by.

    Args:
        headers: (name, value) pairs, the names in lower case, as ASGI has them.
        names: the names of our cookies.

    Raises:
        Malformed: what counts cannot be read, or is there twice; or there are two Authorization headers.

    Not checked: whether the credential is genuine, alive, or ours at all.
    """
    authorizations: list[bytes] = []
    cookies: list[bytes] = []
    for name, value in headers:
        if name == b"cookie":
            cookies.append(value)
        elif name == b"authorization":
            authorizations.append(value)
    for find, parse in _PRECEDENCE:
        raw = find(authorizations, cookies, names)
        if raw is not None:
            return parse(raw)
    return None


def read_refresh(headers: Iterable[tuple[bytes, bytes]], names: CookieNames) -> bytes | None:
    """Return the text of the refresh cookie, for `RefreshToken.parse`, or None if there is none.

    Args:
        headers: (name, value) pairs, the names in lower case.
        names: the names of our cookies.

    Raises:
        Malformed: there are two.
    """
    return find_cookie((value for name, value in headers if name == b"cookie"), names.refresh)


def valid_session_id(text: str) -> bool:
    """Return whether `text` has the form of a session id: 16 octets in canonical base64url, 22 characters."""
    return _SESSION_ID.fullmatch(text) is not None


def _bearer(authorizations: list[bytes], _cookies: list[bytes], _names: CookieNames) -> bytes | None:
    if not authorizations:
        return None
    if len(authorizations) > 1:
        raise Malformed("two Authorization headers")
    match = _AUTHORIZATION.fullmatch(authorizations[0].strip(b" \t"))
    if match is None:
        raise Malformed("the Authorization header cannot be read")
    scheme, rest = match.groups()
    return (rest or b"") if scheme.lower() == b"bearer" else None


def _session_cookie(_authorizations: list[bytes], cookies: list[bytes], names: CookieNames) -> bytes | None:
    return find_cookie(cookies, names.session)


def _access_cookie(_authorizations: list[bytes], cookies: list[bytes], names: CookieNames) -> bytes | None:
    return find_cookie(cookies, names.access)


def _ambient_token(raw: bytes) -> AccessToken:
    return msgspec.structs.replace(AccessToken.parse(raw), ambient=True)


_PRECEDENCE: Final[
    tuple[tuple[Callable[[list[bytes], list[bytes], CookieNames], bytes | None], Callable[[bytes], Presented]], ...]
] = ((_bearer, AccessToken.parse), (_session_cookie, SessionCookie.parse), (_access_cookie, _ambient_token))
