"""Credentials: what a request presents, read from its headers and not yet judged.

The order in which they count is that of `read`. A credential that is present and cannot be read is a refusal, never a
reason to try the next kind. No repr shows a secret, and no error message a part of one.
"""

from __future__ import annotations

import hmac
import re
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

import msgspec

from coatcheck.core import base64url
from coatcheck.core.cookies import SESSION_COOKIE, find_cookie
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed

MAX_TOKEN: Final = 8192  # octets of an access token
# Of a sealed session. Two such cookies leave 1 KiB of the 8 KiB that nginx, Apache, gunicorn and aiohttp take as one
# header, and each stays below what a browser keeps (C3).
MAX_PARTS: Final = 2
PART_SIZE: Final = 3584  # characters of the box in each cookie

_SESSION_VERSION: Final = "1"
_BOX_VERSION: Final = b"2"
_BOX_HEADS: Final = {b"2%d." % parts: parts for parts in range(1, MAX_PARTS + 1)}
_WHOLE_BOX: Final = b"21."  # it has all of it, and nothing of the others belongs to it
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

_SECRETS = ("secret", "text", "note")


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
    def values(self) -> tuple[str, ...]:
        """The values of its cookies: there is one."""
        return (self.value,)

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
        return cls(id.decode(), a2b_base64(secret.translate(_STANDARD) + b"="))  # canonical, says the pattern


class SessionBox(_Redacted, frozen=True):
    """A session that its browser keeps itself, sealed: what is in it `coatcheck.core.sealed_record` tells.

    Args:
        text: the sealed record.
        note: when it was last seen, sealed as well; "" if that is in the record.
    """

    text: str
    note: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """The values of its cookies, in order: the first one says how many there are."""
        parts = [self.text[start : start + PART_SIZE] for start in range(0, len(self.text), PART_SIZE)]
        return (f"2{len(parts)}.{parts[0]}", *parts[1:])

    @property
    def value(self) -> str:
        """The value of its only cookie.

        Raises:
            InvalidValue: it takes more than one; see `values`.
        """
        if len(self.text) > PART_SIZE:
            raise InvalidValue("this session takes more than one cookie")
        return self.values[0]

    @classmethod
    def parse(cls, first: bytes, more: Sequence[bytes | None] = (), note: bytes | None = None) -> Self:
        """Return the box that some cookies carried.

        Args:
            first: the value of the session cookie.
            more: those of the cookies that it may take besides, in order; None for each that was not sent. What two
                answers at once have left over, and nothing belongs to any more, is not looked at.
            note: the value of the cookie that says when it was last seen, or None.

        Raises:
            Malformed: the first one does not say how many there are, or they are not those.

        Not checked: their letters and size, that the parts belong together, and that we sealed them.
        """
        parts = _BOX_HEADS.get(first[:3], 0)
        rest = [part for part in more[: parts - 1] if part is not None] if parts > 1 else []
        if len(rest) != parts - 1:
            raise Malformed("the session cookies cannot be read, or not all of them are there")
        whole = b"".join((first[3:], *rest)) if rest else first[3:]
        return cls(whole.decode("latin-1"), note.decode("latin-1") if note else "")


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
        raw = _sized(text)
        if not raw.startswith(_REFRESH_VERSION):
            raise Malformed("the refresh token cannot be read")
        body, mac = raw[:25], raw[25:]
        matches = [hmac.compare_digest(hmac.digest(key, body, "sha256"), mac) for key in keys]
        if not any(matches):
            raise BadSignature("the refresh token is not ours")
        return cls(base64url.encode(body[1:17]), int.from_bytes(body[17:], "big"))


Ticket = SessionCookie | SessionBox
"""What the session cookie carries: where the session is to be found, or all of it."""

Presented = Ticket | AccessToken


class CookieNames(msgspec.Struct, frozen=True):
    """The names of our cookies, as octets to search Cookie headers for.

    Args:
        session, access, refresh: of what they carry.
        more: of what a sealed session takes besides the first.
        seen: of the note that says when a sealed session was last seen.

    Raises:
        ConfigurationError: one is not a token, or two are the same.
    """

    session: bytes = SESSION_COOKIE.encode("ascii")
    access: bytes = b"__Host-access"
    refresh: bytes = b"__Host-refresh"
    more: tuple[bytes, ...] = (b"__Host-session-2",)
    seen: bytes = b"__Host-seen"

    def __post_init__(self) -> None:
        names = (self.session, self.access, self.refresh, self.seen, *self.more)
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
    bearer = _bearer(authorizations) if authorizations else None
    if bearer is not None or not cookies:
        return bearer
    return _session_cookie(cookies, names) or _access_cookie(cookies, names)


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


def _sized(text: object) -> bytes:
    # An object, for whoever does not check types, and passes on what was in a client's JSON.
    if isinstance(text, str | bytes) and len(text) == _REFRESH_SIZE * 4 // 3:
        return base64url.decode(text)
    return b""


def _bearer(authorizations: list[bytes]) -> AccessToken | None:
    if len(authorizations) > 1:
        raise Malformed("two Authorization headers")
    match = _AUTHORIZATION.fullmatch(authorizations[0].strip(b" \t"))
    if match is None:
        raise Malformed("the Authorization header cannot be read")
    scheme, rest = match.groups()
    return AccessToken.parse(rest or b"") if scheme.lower() == b"bearer" else None


def _session_cookie(cookies: list[bytes], names: CookieNames) -> Ticket | None:
    raw = find_cookie(cookies, names.session)
    if raw is None:
        return None
    if not raw.startswith(_BOX_VERSION):
        return SessionCookie.parse(raw)
    more = () if raw.startswith(_WHOLE_BOX) else [find_cookie(cookies, name) for name in names.more]
    return SessionBox.parse(raw, more, find_cookie(cookies, names.seen))


def _access_cookie(cookies: list[bytes], names: CookieNames) -> AccessToken | None:
    raw = find_cookie(cookies, names.access)
    return None if raw is None else msgspec.structs.replace(AccessToken.parse(raw), ambient=True)
