"""The application's own cookies whose values can be trusted: nobody else can have made them (C17).

    SignedCookie    whoever has it can read it
    SealedCookie    nobody but us can read it

A value says itself when it ends, so that a copy which somebody kept dies too, whatever the browser does. It is bound
to the cookie's name: moved to another one it is refused. As text,

    signed    "1." text in base64url "." end in milliseconds "." HMAC-SHA256 of the name and all this, in base64url
    sealed    `seal` of 0x01 | end in milliseconds, 8 octets | text
"""

from __future__ import annotations

import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, ClassVar, Final, Self

from coatcheck.core import base64url
from coatcheck.core.cookies import MAX_PAIR, Cookie
from coatcheck.core.seal import seal, unseal
from coatcheck.errors import BadSignature, ConfigurationError, Expired, InvalidValue, Malformed

_SIGNED = re.compile(rb"(1\.([0-9A-Za-z_-]*)\.([1-9][0-9]{0,15}))\.([0-9A-Za-z_-]{43})")
_LAYOUT: Final = b"\x01"
_PURPOSE: Final = "cookie"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedCookie(Cookie, ABC):
    """A kind of cookie whose values only we can make, and which end by themselves.

    Args:
        max_age: how long a value is good; the browser is told, and the value says so itself. More than 400 days is
            shortened to that (C4). The rest is as in `Cookie`.

    Raises:
        ConfigurationError: as `Cookie` does.
    """

    max_age: timedelta  # pyright: ignore[reportGeneralTypeIssues] - by keyword only, so it may lose its default
    key_purpose: ClassVar[str]
    """What `Keyring.derive` is asked for."""

    @classmethod
    def like(cls, cookie: Cookie, *, max_age: timedelta) -> Self:
        """Return the kind with the name and attributes of another one."""
        attributes: dict[str, Any] = {each.name: getattr(cookie, each.name) for each in fields(cookie) if each.init}
        attributes["max_age"] = max_age
        return cls(**attributes)

    def expires_at(self, *, now: int, max_age: timedelta | None = None) -> int:
        """Return when a value made at `now` ends, in milliseconds since the epoch.

        Args:
            now: milliseconds since the epoch.
            max_age: as given to `header`; None takes the kind's own.

        Raises:
            InvalidValue: the lifetime is less than a second.
            ConfigurationError: there is none, for whoever does not check types.
        """
        ends = Cookie.expires_at(self, now=now, max_age=max_age)
        if ends is None:
            raise ConfigurationError(f"the values of the cookie {self.name} must end: give it a max_age")
        return ends

    @abstractmethod
    def protect(self, text: str, *, keys: Sequence[bytes], expires_at: int, nonce: bytes) -> str:
        """Return what to send for `text`; `header` takes it.

        Args:
            text: any text.
            keys: 32 octets each, for this purpose only; the first one counts.
            expires_at: milliseconds since the epoch.
            nonce: 12 random octets, new for every call.

        Raises:
            InvalidValue: it is too long, or no text.
        """

    @abstractmethod
    def reveal(self, raw: bytes, *, keys: Sequence[bytes], now: int) -> str:
        """Return the text that `protect` was given.

        Args:
            raw: the value of the cookie of this name.
            keys: the current key, and the retired ones that still count.
            now: milliseconds since the epoch.

        Raises:
            Malformed: it is no such value.
            BadSignature: none of the keys made it, it was made for another cookie, or it was altered.
            Expired: it has ended.

        Not checked: who carries it, and whether it was seen before: until it ends, a copy is as good.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCookie(ProtectedCookie):
    """A kind of cookie that whoever has it can read, and only we can make.

    With `http_only=False` a script can read it: the text is the second of the parts between full stops, in base64url.
    """

    key_purpose: ClassVar[str] = "signed cookies"

    def protect(
        self,
        text: str,
        *,
        keys: Sequence[bytes],
        expires_at: int,
        nonce: bytes,  # noqa: ARG002 - the sealed kind needs one; a MAC does not
    ) -> str:
        """Sign `text`, as ProtectedCookie says."""
        signed = f"1.{base64url.encode(_octets(text))}.{expires_at}"
        return f"{signed}.{base64url.encode(self._mac(keys[0], signed.encode('ascii')))}"

    def reveal(self, raw: bytes, *, keys: Sequence[bytes], now: int) -> str:
        """Check the signature, as ProtectedCookie says."""
        match = _SIGNED.fullmatch(raw) if len(raw) <= MAX_PAIR else None
        if match is None:
            raise Malformed("not a signed value")
        signed, text, end, mac = match.groups()
        given = base64url.decode(mac)
        matches = [hmac.compare_digest(self._mac(key, signed), given) for key in keys]
        if not any(matches):
            raise BadSignature("not signed with a key of ours for this cookie")
        _require_time(int(end), now)
        return base64url.decode(text).decode("utf-8")

    def _mac(self, key: bytes, signed: bytes) -> bytes:
        name = self.name.encode("ascii")
        # The name under its length, so that no two cookies and values are one string of octets.
        return hmac.digest(key, len(name).to_bytes(4, "big") + name + signed, "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCookie(ProtectedCookie):
    """A kind of cookie that nobody but us can read or make; its length stays visible."""

    key_purpose: ClassVar[str] = "sealed cookies"

    def protect(self, text: str, *, keys: Sequence[bytes], expires_at: int, nonce: bytes) -> str:
        """Seal `text`, as ProtectedCookie says."""
        data = _LAYOUT + expires_at.to_bytes(8, "big") + _octets(text)
        return seal(data, keys=keys, purpose=_PURPOSE, name=self.name, nonce=nonce)

    def reveal(self, raw: bytes, *, keys: Sequence[bytes], now: int) -> str:
        """Unseal a value, as ProtectedCookie says."""
        data = unseal(raw, keys=keys, purpose=_PURPOSE, name=self.name)
        if not data.startswith(_LAYOUT):
            raise Malformed("not a sealed value of this layout")
        _require_time(int.from_bytes(data[1:9], "big"), now)
        return data[9:].decode("utf-8")


def _octets(text: object) -> bytes:
    # An object, for whoever does not check types: bytes would come back as text.
    if not isinstance(text, str):
        raise InvalidValue("a cookie's value is a str")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidValue("a cookie's text has no lone surrogates") from None


def _require_time(end: int, now: int) -> None:
    if now >= end:
        raise Expired("the value has ended")
