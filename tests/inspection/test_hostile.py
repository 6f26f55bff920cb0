"""Whatever a stranger's text is, it is looked at in bounded time, and never ends in a traceback (J17)."""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.set_cookie import parse_set_cookie
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import inspect, keys_of

NOW = 1_800_000_000_000
MEGABYTE = 1_000_000
# Of processor time: each takes less than one; what grows with the square of the length takes minutes.
BOUND_SECONDS = 20.0


def _pem(label: str, octets: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(octets).decode()}\n-----END {label}-----\n".encode()


def _ssh_strings(*octets: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in octets)


LARGE: dict[str, bytes] = {
    "dots": b"." * MEGABYTE,
    "letters": b"a" * MEGABYTE,
    "digits": b"2" * MEGABYTE,
    "parts": b"a." * (MEGABYTE // 2),
    "NUL": bytes(MEGABYTE),
    "not UTF-8": b"\xff\xfe" * (MEGABYTE // 2),
    "deep lists": b"[" * MEGABYTE,
    "deep objects": b'{"a":' * (MEGABYTE // 5),
    "a deep header": base64.b64encode(b'{"alg":' * 20_000) + b".e30.e30",
    "a long payload": b"eyJhbGciOiJub25lIn0." + b"A" * MEGABYTE + b".",
    "many keys": b'{"keys":[' + b'{"kty":"RSA"},' * 20_000 + b"{}]}",
    "a long number": b'{"kty":"RSA","n":"' + b"_" * MEGABYTE + b'","e":"AQAB"}',
    "many cookies": b"a=b;" * (MEGABYTE // 4),
    "many attributes": b"a=b" + b";path=/" * (MEGABYTE // 7),
    "many headers": b"A: b\n" * (MEGABYTE // 5),
    "many Set-Cookie lines": b"Set-Cookie: a=b\n" * (MEGABYTE // 16),
    "many parameters": b"https://h/?" + b"a=b&" * (MEGABYTE // 4),
    "many path segments": b"https://h" + b"/;a=b" * (MEGABYTE // 5),
    "spaces": b"Set-Cookie" + b" " * MEGABYTE + b"x",
    "colons": b"a:" * (MEGABYTE // 2),
    "a bomb": b"." + base64.urlsafe_b64encode(zlib.compress(b"{}" * 5_000_000)) + b".awivHA." + b"a" * 27,
    "a long PEM": b"-----BEGIN RSA PRIVATE KEY-----\n" + b"A" * 32_000 + b"\n-----END RSA PRIVATE KEY-----",
    "many lines of curl": b"HTTP/1.1 200 OK\n" * (MEGABYTE // 16),
    "many tokens": b"eyJhbGciOiJub25lIn0.e30. " * (MEGABYTE // 25),
    "too much": b"a" * 3 * MEGABYTE,
    "tokens in tokens": b"Bearer " * 1000 + b"a",
}


@pytest.mark.parametrize("name", LARGE)
def test_a_megabyte_is_looked_at_in_bounded_time(name: str) -> None:
    start = time.process_time()
    report = inspect(LARGE[name], now=NOW)
    assert report.kind
    assert time.process_time() - start < BOUND_SECONDS
    assert len(repr(report)) < 400_000


@given(st.binary(max_size=300))
def test_any_octets_have_a_report(octets: bytes) -> None:
    assert inspect(octets, now=NOW).kind


WORDS = st.sampled_from(
    ["Set-Cookie: ", "Cookie: ", "Bearer ", "Basic ", "a=b", "sid=", "; ", "Path=/", "Secure", "Max-Age=", "-1",
     "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "__Host-", "=", "eyJhbGciOiJIUzI1NiJ9", ".", "{", "}", '"keys":[', "]",
     "9" * 5000, '"kty":', '"RSA"', ",", "https://h/", "?", "#", "@", "[", ":", "%", "\x00", "\n", "\u00e9",
     "1AAAA", "s:", "gAAAA"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=12).map("".join))
def test_any_mixture_has_a_report(text: str) -> None:
    assert inspect(text.encode(), now=NOW).kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "ES256", "none", "dir"]) | JSON},
    optional=dict.fromkeys(("kid", "crit", "jwk", "enc", "zip", "p2c", "b64"), JSON)
    | {"typ": st.sampled_from(["at+jwt", "dpop+jwt", "logout+jwt", "JWT"]) | JSON},
)
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "auth_time", "amr", "jti", "events", "cnf", "sid"]), JSON
)


@given(HEADERS, CLAIMS | JSON, st.sampled_from([3, 5]))
def test_any_token_has_a_report(header: dict[str, Any], claims: Any, parts: int) -> None:
    segments = [_segment(header), _segment(claims), *["AAAA"] * (parts - 2)]
    assert inspect(".".join(segments).encode(), now=NOW).kind


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d", "k"]),
        st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "ES256", "sig", "AQAB", "A" * 43, ""]) | JSON,
    )
)
def test_any_key_has_a_report(members: dict[str, Any]) -> None:
    text = json.dumps(members).encode()
    assert inspect(text, now=NOW).kind
    assert inspect(b'{"keys":[' + text + b"]}", now=NOW).kind == "JWKS"
    for document in (text, b'{"keys":[' + text + b"]}"):
        try:
            assert keys_of(document)
        except ConfigurationError as error:
            assert "JWKS" in str(error)


# Octets of keys that the readers below us fall over.
UNREADABLE = {
    "an SSH key with a compressed point": _pem(
        "OPENSSH PRIVATE KEY",
        b"openssh-key-v1\0" + _ssh_strings(b"none", b"none", b"") + b"\0\0\0\1"
        + _ssh_strings(
            _ssh_strings(b"ecdsa-sha2-nistp256", b"nistp256", b"\2" + bytes(32)),
            bytes(8) + _ssh_strings(b"ecdsa-sha2-nistp256", b"nistp256", b"\2" + bytes(32), b"\1", b"") + b"\1\2\3",
        ),
    ),
    "an Ed448 key as long as one of Ed25519": _pem(
        "PRIVATE KEY", bytes.fromhex("302e020100300506032b657104220420") + bytes(32)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_key_that_no_reader_takes_has_a_report(name: str) -> None:
    assert inspect(UNREADABLE[name], now=NOW).facts["key"] == "it cannot be read here"


LONE = st.text(st.sampled_from("a=;.: \ud800\udfff\udc80"), max_size=12)
BEGINNINGS = st.sampled_from(
    ["", "Set-Cookie: a=b", "a=b; Path=/", "{", "s:", "e30.aaaaaa.", "-----BEGIN PUBLIC KEY-----"]
)


@given(BEGINNINGS, LONE, st.sampled_from(["", "." + "A" * 43, "." + "a" * 27]))
def test_lone_surrogates_in_json_have_a_report(begin: str, lone: str, end: str) -> None:
    """JSON may name what no octets are."""
    text = json.dumps({"access_token": begin + lone + end}).encode()
    assert inspect(text, now=NOW).kind


NAMES = st.sampled_from(["sid", "", "__Host-a", "__secure-a", "__Http-a", "a b", "\u00e9", "x" * 4090])
ATTRIBUTES = st.sampled_from(
    ["Secure", "HttpOnly", "Path=/", "Path=x", "Domain=a.example", "Domain=\u00e9", "Domain=", "Domain=.",
     "SameSite=None", "SameSite=Lax", "SameSite=?", "Partitioned", "Max-Age=0", "Max-Age=x",
     "Max-Age=999999999", "Max-Age=-1",
     "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Expires=never",
     "Path=/" + "x" * 1024, "Secure=" + "x" * 1025, "\x07", ""]
)  # fmt: skip
DROPPED = {"cookie-control", "cookie-empty", "cookie-size", "cookie-domain", "cookie-prefix", "cookie-none-insecure",
           "cookie-partitioned-insecure"}  # fmt: skip


@given(NAMES, st.sampled_from(["", "v", "__Host-b", "a\tb", "\u00e9" * 5]), st.lists(ATTRIBUTES, max_size=6))
def test_c22_a_line_that_browsers_ignore_is_one_for_which_a_reason_is_given(
    name: str, value: str, attributes: list[str]
) -> None:
    line = "; ".join([f"{name}={value}", *attributes])
    report = inspect(f"Set-Cookie: {line}".encode(), now=NOW)
    stored = parse_set_cookie(line.strip().encode(), now=NOW)
    assert (stored is None) == bool(DROPPED & {found.id for found in report.findings})
    if stored is not None:
        assert ("deletion" in report.kind) == (stored.expires_at is not None and stored.expires_at <= NOW)


def _segment(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
