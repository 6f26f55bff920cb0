"""Cross-site requests: what the browser says about the sender, and the signed token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core import base64url, csrf
from coatcheck.core.csrf import issue_token, judge, judge_token, origin_of, trusted_origins
from coatcheck.errors import ConfigurationError, CrossSite, InvalidValue

OURS = "https://a.example.test"
LISTED = frozenset({"https://b.example.test", "https://partner.test:8443"})
SAFE = ("GET", "HEAD", "OPTIONS")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "get", "")


def passes(
    method: str = "POST",
    *,
    site: bytes | None = None,
    origin: bytes | None = None,
    referer: bytes | None = None,
    target: str = OURS,
) -> bool:
    try:
        judge(method, sec_fetch_site=site, origin=origin, referer=referer, target=target, trusted=LISTED)
    except CrossSite:
        return False
    return True


# Sec-Fetch-Site; passes on an unsafe method from an origin that is not listed, and from one that is.
SITES: list[tuple[bytes, bool, bool]] = [
    (b"same-origin", True, True),
    (b"none", True, True),
    (b"same-site", False, True),
    (b"cross-site", False, True),
    (b"", False, False),
    (b"Same-Origin", False, False),
    (b"same-origin ", False, False),
    (b"same-origin, same-origin", False, False),
    (b"future-value", False, False),
    (b"\xff", False, False),
]


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(("site", "unlisted", "listed"), SITES)
def test_f1_fetch_metadata_decides_on_unsafe_methods(*, method: str, site: bytes, unlisted: bool, listed: bool) -> None:
    """Our own pages pass, others only from a listed origin, unknown values never (F1)."""
    assert passes(method, site=site) == unlisted
    assert passes(method, site=site, origin=b"https://evil.test") == unlisted
    assert passes(method, site=site, origin=b"null") == unlisted
    assert passes(method, site=site, origin=b"https://b.example.test") == listed


@pytest.mark.parametrize("site", [b"same-site", b"cross-site"])
def test_f1_our_own_origin_is_no_excuse_for_a_cross_site_request(site: bytes) -> None:
    """Browser and Origin contradict each other: refused, and a Referer does not help either (F1)."""
    assert not passes(site=site, origin=OURS.encode())
    assert not passes(site=site, referer=OURS.encode() + b"/")
    assert not passes(site=site, referer=b"https://b.example.test/")


@pytest.mark.parametrize("method", SAFE)
@pytest.mark.parametrize("site", [None, *(row[0] for row in SITES)])
def test_f4_f9_safe_methods_pass_whoever_sends_them(method: str, site: bytes | None) -> None:
    """Links, prefetch and prerender are GETs; they pass because they change nothing (F4, F9)."""
    assert passes(method, site=site, origin=b"https://evil.test", referer=b"https://evil.test/")


# Origin; whether it passes for OURS as the target when the browser sends no Sec-Fetch-Site.
ORIGINS: list[tuple[bytes, bool]] = [
    (b"https://a.example.test", True),
    (b"https://b.example.test", True),
    (b"https://partner.test:8443", True),
    (b"null", False),
    (b"", False),
    (b"https://partner.test", False),
    (b"https://partner.test:8444", False),
    (b"http://a.example.test", False),
    (b"https://a.example.test:444", False),
    (b"https://a.example.test:443", False),
    (b"https://A.example.test", False),
    (b"https://a.example.test/", False),
    (b"https://a.example.test.", False),
    (b"https://a.example.test.evil.test", False),
    (b"https://evila.example.test", False),
    (b"https://example.test", False),
    (b"https://sub.a.example.test", False),
    (b"https://a.example.test https://evil.test", False),
    (b"https://a.example.test, https://a.example.test", False),
    (b" https://a.example.test", False),
    (b"https://a.example.test@evil.test", False),
    (b"a.example.test", False),
    (b"https://evil.test", False),
    (b"https://\xff", False),
]


@pytest.mark.parametrize(("origin", "expected"), ORIGINS)
def test_f2_without_fetch_metadata_the_origin_is_exact(*, origin: bytes, expected: bool) -> None:
    """Old browsers: Origin equals ours or a listed one, character by character; "null" never (F2)."""
    assert passes(origin=origin) == expected


@pytest.mark.parametrize("origin", [b"null", b"https://evil.test"])
def test_f2_a_good_referer_does_not_mend_a_bad_origin(origin: bytes) -> None:
    """Referer counts only where there is no Origin (F2)."""
    assert not passes(origin=origin, referer=OURS.encode() + b"/form")


REFERERS: list[tuple[bytes, bool]] = [
    (b"https://a.example.test/form?x=1#y", True),
    (b"https://a.example.test", True),
    (b"https://a.example.test:443/form", True),
    (b"https://b.example.test/", True),
    (b"https://partner.test:8443/x", True),
    (b"https://a.example.test/?q=\\", True),
    (b"http://a.example.test/form", False),
    (b"https://evil.test/https://a.example.test/", False),
    (b"https://evil.test/?https://a.example.test", False),
    (b"https://a.example.test.evil.test/", False),
    (b"https://a.example.test@evil.test/", False),
    (b"https://a.example.test:pw@evil.test/", False),
    (b"https://evil.test\\@a.example.test/", False),
    (b"https://a.example.test\\.evil.test/", False),
    (b"https://a.example.test:/", False),
    (b"//a.example.test/", False),
    (b"/form", False),
    (b"about:blank", False),
    (b"", False),
    (b"https://a.example.test/\xc3\xa9", False),
    (b"https://a.example.test/ x", False),
    (b"\nhttps://a.example.test/", False),
]


@pytest.mark.parametrize(("referer", "expected"), REFERERS)
def test_f2_without_an_origin_the_referers_origin_counts(*, referer: bytes, expected: bool) -> None:
    """The Referer's origin, read strictly, equals ours or a listed one (F2)."""
    assert passes(referer=referer) == expected


def test_f2_no_browser_no_victim() -> None:
    """None of the three headers: not a browser, so nobody's cookies are borrowed."""
    assert passes()


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("same-origin", b"http://shop.internal"),
        ("same-site", b"http://b.internal"),
        ("cross-site", b"http://evil.test"),
        ("cross-site", b"null"),
    ],
)
@pytest.mark.parametrize("method", SAFE + UNSAFE)
def test_f3_plain_http_without_fetch_metadata_gets_the_same_verdicts(method: str, site: str, origin: bytes) -> None:
    """Browsers send no Sec-Fetch-Site over plain http: Origin alone gives what F1 would have given (F3)."""
    target = "http://shop.internal"
    assert passes(method, origin=origin, target=target) == passes(
        method, site=site.encode(), origin=origin, target=target
    )


@pytest.mark.parametrize(
    ("target", "origin", "expected"),
    [
        ("https://A.Example.TEST", b"https://a.example.test", True),
        ("https://a.example.test:443", b"https://a.example.test", True),
        ("http://a.example.test:80", b"http://a.example.test", True),
        ("https://a.example.test:80", b"https://a.example.test", False),
        ("http://localhost:8000", b"http://localhost:8000", True),
        ("http://localhost:8000", b"http://localhost:8001", False),
        ("http://[::1]:8000", b"http://[::1]:8000", True),
        ("null", b"null", False),
        ("", b"", False),
        ("a.example.test", b"a.example.test", False),
        ("https://a.example.test@evil.test", b"https://a.example.test@evil.test", False),
    ],
)
def test_f2_the_target_is_normalised_and_a_doubtful_one_matches_nothing(
    *, target: str, origin: bytes, expected: bool
) -> None:
    """Our own origin may come with upper case or a default port; if it cannot be read, nobody passes (F2)."""
    assert passes(origin=origin, target=target) == expected


def test_f6_sign_in_is_judged_without_any_session() -> None:
    """The verdict needs no session and no cookie, so it protects sign-in as well (F6)."""
    assert not passes(site=b"cross-site", origin=b"https://evil.test")


def test_f8_a_sibling_subdomain_is_refused_although_it_is_same_site() -> None:
    """A page of c.example.test posts to a.example.test with Lax cookies attached: refused (F8)."""
    assert not passes(site=b"same-site", origin=b"https://c.example.test")
    assert not passes(origin=b"https://c.example.test")


def test_f9_the_answer_varies_with_what_decides() -> None:
    """The names for Vary are those of the headers judged (F9)."""
    assert csrf.VARY == ("Sec-Fetch-Site", "Origin")


header = st.none() | st.binary() | st.sampled_from([row[0] for row in SITES + ORIGINS + REFERERS])


@given(method=st.text() | st.sampled_from(UNSAFE), site=header, origin=header, referer=header, target=st.text())
def test_f1_every_request_gets_a_verdict(
    method: str, site: bytes | None, origin: bytes | None, referer: bytes | None, target: str
) -> None:
    """Whatever the headers: it passes, or it is CrossSite; nothing else is raised."""
    assert passes(method, site=site, origin=origin, referer=referer, target=target) in (True, False)


def test_the_refusal_is_a_403_that_repeats_nothing() -> None:
    """CrossSite is 403 and does not echo what the client sent."""
    with pytest.raises(CrossSite) as caught:
        judge("POST", sec_fetch_site=None, origin=b"https://evil.test", referer=None, target=OURS, trusted=LISTED)
    assert caught.value.status == 403
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("url", [
    "", "null", "*", "a.test", "//a.test", "ftp://a.test", "https:a.test", "https:///a.test", "https://", "https://:443",
    "https://a.test:", "https://a.test:65536", "https://a.test:0443", "https://a.test:+1", "https://a.test:1a",
    "https://u@a.test", "https://u:p@a.test", "https://a.test\\b", "https://a test", "https://a.test/\n", "https://a.test\n",
    "https://ä.test", "https://a.test/ä", "https://a%2etest", "https://[::1", "https://[::g]", " https://a.test",
    "http\u017f://a.test", "https://\u212aa.test",
])  # fmt: skip
def test_f2_an_origin_in_doubt_is_none(url: str) -> None:
    """What two parsers could read in two ways has no origin."""
    assert origin_of(url) is None


@given(st.text() | st.from_regex(r"https?://[ -~]{0,20}", fullmatch=True))
def test_f2_an_origin_is_its_own_origin(url: str) -> None:
    """`origin_of` is idempotent: what it returns is a serialized origin."""
    origin = origin_of(url)
    assert origin is None or origin_of(origin) == origin


@pytest.mark.parametrize(
    "origin", ["https://A.test", "https://a.test/", "https://a.test:443", "http://a.test:80", "*", "null", "a.test", ""]
)
def test_f1_a_listed_origin_is_spelled_as_browsers_send_it(origin: str) -> None:
    """An origin that could never match is refused when it is configured."""
    with pytest.raises(ConfigurationError, match="not an origin"):
        trusted_origins(["https://fine.test", origin])


def test_f1_listed_origins_are_kept_as_they_are() -> None:
    """What is well spelled is listed unchanged."""
    assert trusted_origins(sorted(LISTED)) == LISTED


# --- F5: the signed token

KEY, OLD_KEY, OTHER_KEY = b"k" * 32, b"o" * 32, b"x" * 32
NONCE = bytes(range(16))
BEFORE, AFTER = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAQ"


def token_passes(token: str, session_id: str = BEFORE, key: bytes = KEY, retired: tuple[bytes, ...] = ()) -> bool:
    try:
        judge_token(key, session_id, token, retired=retired)
    except CrossSite:
        return False
    return True


def test_f5_a_token_is_good_for_its_session_and_no_other() -> None:
    """Another session's token is refused, and so is the one from before sign-in (F5)."""
    token = issue_token(KEY, BEFORE, NONCE)
    assert token_passes(token)
    assert not token_passes(token, AFTER)
    assert not token_passes(token, "")


def test_f5_a_retired_key_still_judges_and_a_strange_one_never_did() -> None:
    """Rotation of keys does not spoil open forms; any other key is refused (F5, P8)."""
    token = issue_token(OLD_KEY, BEFORE, NONCE)
    assert token_passes(token, retired=(OTHER_KEY, OLD_KEY))
    assert not token_passes(token)
    assert not token_passes(token, retired=(OTHER_KEY,))


def test_f5_the_token_is_the_hmac_of_length_prefixed_parts() -> None:
    """0x01, the nonce, and HMAC-SHA256 over version, session id and nonce, each under its length (F5)."""
    message = b"\0\0\0\x01\x01" + b"\0\0\0\x16" + BEFORE.encode() + b"\0\0\0\x10" + NONCE
    mac = hmac.new(KEY, message, hashlib.sha256).digest()
    token = issue_token(KEY, BEFORE, NONCE)
    assert base64url.decode(token) == b"\x01" + NONCE + mac
    assert len(token) == 66


def test_f5_tokens_of_two_nonces_differ() -> None:
    """The token is another one on each page, and both are good."""
    one, two = issue_token(KEY, BEFORE, NONCE), issue_token(KEY, BEFORE, NONCE[::-1])
    assert one != two
    assert token_passes(one)
    assert token_passes(two)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_f5_a_nonce_of_another_size_is_refused(size: int) -> None:
    """16 octets, so that the parts of the token are where they belong."""
    with pytest.raises(InvalidValue, match="16 octets"):
        issue_token(KEY, BEFORE, b"n" * size)


def test_f5_the_naive_pattern_is_refused() -> None:
    """A value that merely equals its copy in a cookie, unsigned, is worth nothing (F5)."""
    assert not token_passes(base64url.encode(b"\x01" + NONCE + b"\0" * 32))
    assert not token_passes("same-in-cookie-and-form")


@given(position=st.integers(0, 48), flip=st.integers(1, 255))
def test_f5_a_changed_octet_is_refused(position: int, flip: int) -> None:
    """Version, nonce and MAC are all covered (F5)."""
    raw = bytearray(base64url.decode(issue_token(KEY, BEFORE, NONCE)))
    raw[position] ^= flip
    assert not token_passes(base64url.encode(bytes(raw)))


@given(st.text() | st.binary().map(base64url.encode))
def test_f5_any_other_text_is_refused(token: str) -> None:
    """Whatever the form carries: refused as CrossSite, never another error."""
    assert not token_passes(token)


@pytest.mark.parametrize(
    "change", [lambda t: t + "=", lambda t: t[:-1], lambda t: t + "A", lambda t: " " + t, str.swapcase]
)
def test_f5_a_token_has_one_spelling(change: Callable[[str], str]) -> None:
    """No padding, no white space, no truncation."""
    assert not token_passes(change(issue_token(KEY, BEFORE, NONCE)))


@pytest.mark.parametrize("other", [5, object(), ["a"], b"A" * 66])
def test_f5_what_is_no_text_is_no_token(other: Any) -> None:
    """A form's field may hold a file, and JSON anything; neither is an error of the program."""
    assert not token_passes(other)
