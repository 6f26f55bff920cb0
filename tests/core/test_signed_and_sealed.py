"""Signed and sealed cookies: what we made comes back until it ends, and nothing else ever does (C17)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck import BadSignature, Cookie, CredentialError, Expired, InvalidValue, Keyring, Malformed
from coatcheck.core.cookies import plain_text
from coatcheck.core.own_cookies import ProtectedCookie, SealedCookie, SignedCookie
from coatcheck.errors import ConfigurationError

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SECRET = bytes.fromhex("2d3a9c41f0be5576c1d28a0f6e93b7ad84515bc0e9f7421d6a8803cd5f3e7b19")
(NEW, OLD) = Keyring(None, secret=SECRET, retired_secrets=[SECRET[::-1]]).derive("signed cookies")
NONCE = bytes(range(12))
NOW, END = 1_800_000_000_000, 1_800_000_060_000
KINDS: tuple[type[SignedCookie | SealedCookie], ...] = (SignedCookie, SealedCookie)
each_kind = pytest.mark.parametrize("kind", KINDS)


def made(
    kind: type[ProtectedCookie], text: str = "dark", *, key: bytes = NEW, name: str = "theme", end: int = END
) -> bytes:
    cookie = kind(name, max_age=timedelta(minutes=1))
    return cookie.protect(text, keys=[key], expires_at=end, nonce=NONCE).encode("ascii")


def read(kind: type[ProtectedCookie], raw: bytes, *keys: bytes, name: str = "theme", now: int = NOW) -> str:
    return kind(name, max_age=timedelta(minutes=1)).reveal(raw, keys=keys or [NEW], now=now)


@each_kind
@unhurried
@given(text=st.text(max_size=300))
def test_any_text_comes_back(kind: type[ProtectedCookie], text: str) -> None:
    raw = made(kind, text)
    assert read(kind, raw) == text
    # Made of cookie-octets, whatever the text is (C1).
    assert Cookie("theme").header(raw, now=NOW).startswith(b"theme=" + raw)


def test_a_signed_value_is_what_is_written_down() -> None:
    """Values that are in browsers must stay readable: the format is fixed (P8)."""
    signed = b"1." + base64.urlsafe_b64encode(b"dark").rstrip(b"=") + b".1800000060000"
    mac = hmac.digest(NEW, b"\x00\x00\x00\x05theme" + signed, hashlib.sha256)
    assert made(SignedCookie) == signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")


def test_a_sealed_value_does_not_show_its_text() -> None:
    raw = made(SealedCookie, "the name of somebody")
    assert b"somebody" not in base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))


@each_kind
def test_c17_no_letter_can_be_changed_dropped_or_added(kind: type[ProtectedCookie]) -> None:
    """Not one of them, nor the end that the value gives itself."""
    raw = made(kind)
    for place in range(len(raw)):
        for letter in (b"A", b"B", b"0", b"9", b".", b""):
            changed = raw[:place] + letter + raw[place + 1 :]
            if changed != raw:
                with pytest.raises(CredentialError):
                    read(kind, changed)
    for more in (raw + b"A", raw + b".", b"A" + raw, raw + b"=", raw + b"\n", raw.replace(b".", b"..", 1) + b"x"):
        with pytest.raises(CredentialError):
            read(kind, more)


@each_kind
@pytest.mark.parametrize("name", ["Theme", "theme2", "them", "__Host-theme"])
def test_c17_a_value_of_another_cookie_is_refused(kind: type[ProtectedCookie], name: str) -> None:
    with pytest.raises(BadSignature):
        read(kind, made(kind), name=name)


def test_c17_the_name_ends_where_the_value_begins() -> None:
    """Letters moved from the value into the name make another value, not the same one."""
    mac = hmac.digest(NEW, b"\x00\x00\x00\x06theme1" + b"..1800000060000", hashlib.sha256)
    with pytest.raises(CredentialError):
        read(SignedCookie, b"1..1800000060000." + base64.urlsafe_b64encode(mac).rstrip(b"="))


@pytest.mark.parametrize(("one", "other"), [KINDS, KINDS[::-1]])
def test_one_kind_is_never_taken_for_the_other(one: type[ProtectedCookie], other: type[ProtectedCookie]) -> None:
    with pytest.raises(Malformed):
        read(other, made(one))
    assert one.key_purpose != other.key_purpose


@each_kind
def test_c17_a_retired_key_still_reads_and_a_dropped_one_does_not(kind: type[ProtectedCookie]) -> None:
    assert read(kind, made(kind, key=OLD), NEW, OLD) == "dark"
    with pytest.raises(BadSignature):
        read(kind, made(kind, key=OLD), NEW)


@each_kind
def test_a_value_ends_by_itself(kind: type[ProtectedCookie]) -> None:
    """What a browser or a thief keeps for longer is dead all the same."""
    raw = made(kind)
    assert read(kind, raw, now=END - 1) == "dark"
    for now in (END, END + 1, END * 2):
        with pytest.raises(Expired):
            read(kind, raw, now=now)


@each_kind
@unhurried
@given(raw=st.one_of(st.binary(max_size=200), st.from_regex(rb"1\.[\w-]*\.[0-9]{1,20}\.[\w-]{43}", fullmatch=True)))
def test_whatever_else_is_presented_is_refused_by_an_error_of_ours(kind: type[ProtectedCookie], raw: bytes) -> None:
    with pytest.raises((Malformed, BadSignature)):
        read(kind, raw)


@each_kind
def test_c3_an_oversized_value_is_refused_unread(kind: type[ProtectedCookie]) -> None:
    with pytest.raises(Malformed):
        read(kind, made(kind)[:-43] + b"A" * 5000)


@each_kind
def test_c4_the_end_is_where_the_browser_forgets_it_and_400_days_away_at_most(kind: type[ProtectedCookie]) -> None:
    assert kind("a", max_age=timedelta(hours=1)).expires_at(now=NOW) == NOW + 3_600_000
    assert kind("a", max_age=timedelta(hours=1)).expires_at(now=NOW, max_age=timedelta(seconds=5)) == NOW + 5_000
    with pytest.warns(UserWarning, match="400 days") as warned:
        long = kind("a", max_age=timedelta(days=500))
    assert warned[0].filename == __file__
    assert long.expires_at(now=NOW) == NOW + 400 * 86_400_000
    with pytest.raises(InvalidValue):
        long.expires_at(now=NOW, max_age=timedelta(0))


@each_kind
def test_without_an_end_there_is_no_such_kind(kind: Any) -> None:
    with pytest.raises(TypeError, match="max_age"):
        kind("theme")
    with pytest.raises(ConfigurationError, match="max_age"):
        kind("theme", max_age=None).expires_at(now=NOW)


@each_kind
@pytest.mark.parametrize("text", ["\ud800", b"dark", 7, None])
def test_what_is_no_text_is_refused(kind: type[ProtectedCookie], text: Any) -> None:
    with pytest.raises(InvalidValue):
        made(kind, text)


@each_kind
def test_a_kind_like_another_has_its_attributes(kind: type[ProtectedCookie]) -> None:
    model = Cookie("__Secure-x", path="/p", domain="shop.example", same_site="Strict", http_only=False)
    like = kind.like(model, max_age=timedelta(minutes=1))
    assert like.header("v", now=NOW).replace(b"; Max-Age=60; Expires=Fri, 15 Jan 2027 08:01:00 GMT", b"") == (
        model.header("v", now=NOW)
    )


@pytest.mark.parametrize("raw", [b"a b", b'"a"', b"a,b", b"a\\b", b"a\x00", b"caf\xc3\xa9", b"a;b"])
def test_a_plain_value_that_could_not_have_been_sent_is_none(raw: bytes) -> None:
    with pytest.raises(Malformed) as raised:
        plain_text(raw)
    assert repr(raw)[2:-1] not in str(raised.value)


def test_a_plain_value_comes_back() -> None:
    assert plain_text(b"") == ""
    assert plain_text(b"dark=1&size=2%20") == "dark=1&size=2%20"
