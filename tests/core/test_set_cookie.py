"""The user agent's side: Set-Cookie lines read as 6265bis says, each case under the rule it proves (C22)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.cookies import Cookie, imf_fixdate
from coatcheck.core.set_cookie import EARLIEST, StoredCookie, parse_cookie_date, parse_set_cookie

NOW = 1_795_000_000_123
DAYS_400 = 34_560_000_000
FUTURE = b"Wed, 18 Nov 2026 12:06:40 GMT"
FUTURE_MS = 1_795_003_600_000
PAST = b"Thu, 01 Jan 2026 00:00:00 GMT"


def kept(name: bytes, value: bytes, **fields: Any) -> StoredCookie:
    plain: dict[str, Any] = {
        "domain": None,
        "path": None,
        "secure": False,
        "http_only": False,
        "same_site": "Default",
        "partitioned": False,
        "expires_at": None,
    }
    return StoredCookie(name, value, **(plain | fields))


# id: <section>-<rule>; a line; what is stored, or None where the line is ignored. Derived from the text.
CASES: list[tuple[str, bytes, StoredCookie | None]] = [
    # 5.6, step 1: controls
    ("5.6-nul", b"a=1\x00", None),
    ("5.6-cr", b"a=1\r; Path=/", None),
    ("5.6-del-in-attribute", b"a=1; x=\x7f", None),
    ("5.6-us-in-name", b"a\x1f=1", None),
    ("5.6-inner-tab-is-no-control", b"a=1\t2", kept(b"a", b"1\t2")),
    # 5.6, steps 2 to 4: the pair
    ("5.6-pair", b"a=1", kept(b"a", b"1")),
    ("5.6-pair-ends-at-first-semicolon", b'a="1;2"', kept(b"a", b'"1')),
    ("5.6-name-ends-at-first-equals", b"a=b=c", kept(b"a", b"b=c")),
    ("5.6-no-equals-is-nameless", b"foo", kept(b"", b"foo")),
    ("5.6-no-equals-with-attributes", b"foo; Secure", kept(b"", b"foo", secure=True)),
    ("5.6-empty-name", b"=foo", kept(b"", b"foo")),
    ("5.6-empty-name-with-equals-in-value", b"==a", kept(b"", b"=a")),
    ("5.6-empty-value", b"a=", kept(b"a", b"")),
    ("5.6-white-space-around", b" \ta \t=\t 1 2 \t", kept(b"a", b"1 2")),
    ("5.6-only-sp-and-htab-are-white", b"\xa0a\xa0=\xc2\x851\xa0", kept(b"\xa0a\xa0", b"\xc2\x851\xa0")),
    ("5.6-quotes-are-kept", b'a="1"', kept(b"a", b'"1"')),
    ("5.6-comma-is-not-special", b"a=1,b=2", kept(b"a", b"1,b=2")),
    ("5.6-high-octets-are-kept", b"\xff=\xfe", kept(b"\xff", b"\xfe")),
    # 5.6, step 5: the limit
    ("5.6-pair-of-4096", b"a=" + b"v" * 4095, kept(b"a", b"v" * 4095)),
    ("5.6-pair-of-4097", b"a=" + b"v" * 4096, None),
    ("5.6-limit-after-trimming", b"a=" + b"v" * 4095 + b"  ", kept(b"a", b"v" * 4095)),
    # 5.6: attributes
    ("5.6-attributes-any-case", b"a=1; sEcUrE; HTTPONLY; pAtH=/p",
     kept(b"a", b"1", secure=True, http_only=True, path=b"/p")),
    ("5.6-flag-with-a-value", b"a=1; Secure=no; HttpOnly=false",
     kept(b"a", b"1", secure=True, http_only=True)),
    ("5.6-attribute-white-space", b"a=1;\tPath \t= /p\t;", kept(b"a", b"1", path=b"/p")),
    ("5.6-empty-attributes", b"a=1;;; ; =;=x;Secure", kept(b"a", b"1", secure=True)),
    ("5.6-unknown-attributes", b"a=1; Comment=x; Version=1; Priority=High", kept(b"a", b"1")),
    ("5.6-attribute-of-1024", b"a=1; Path=/" + b"p" * 1023, kept(b"a", b"1", path=b"/" + b"p" * 1023)),
    ("5.6-attribute-of-1025", b"a=1; Path=/" + b"p" * 1024, kept(b"a", b"1")),
    ("5.6-too-long-leaves-the-earlier", b"a=1; Path=/p; Path=/" + b"p" * 1024,
     kept(b"a", b"1", path=b"/p")),
    # 5.6.1: Expires
    ("5.6.1-expires", b"a=1; Expires=" + FUTURE, kept(b"a", b"1", expires_at=FUTURE_MS)),
    ("5.6.1-past", b"a=1; expires=" + PAST, kept(b"a", b"1", expires_at=1_767_225_600_000)),
    ("5.6.1-no-date-is-ignored", b"a=1; Expires=tomorrow", kept(b"a", b"1")),
    ("5.6.1-no-date-leaves-the-earlier", b"a=1; Expires=" + FUTURE + b"; Expires=0",
     kept(b"a", b"1", expires_at=FUTURE_MS)),
    ("5.6.1-last-wins", b"a=1; Expires=" + PAST + b"; Expires=" + FUTURE,
     kept(b"a", b"1", expires_at=FUTURE_MS)),
    ("5.6.1-cap-of-400-days", b"a=1; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
     kept(b"a", b"1", expires_at=NOW + DAYS_400)),
    # 5.6.2: Max-Age
    ("5.6.2-seconds", b"a=1; Max-Age=60", kept(b"a", b"1", expires_at=NOW + 60_000)),
    ("5.6.2-leading-zeros", b"a=1; Max-Age=0060", kept(b"a", b"1", expires_at=NOW + 60_000)),
    ("5.6.2-zero", b"a=1; Max-Age=0", kept(b"a", b"1", expires_at=EARLIEST)),
    ("5.6.2-minus-zero", b"a=1; Max-Age=-0", kept(b"a", b"1", expires_at=EARLIEST)),
    ("5.6.2-negative", b"a=1; Max-Age=-5", kept(b"a", b"1", expires_at=EARLIEST)),
    ("5.6.2-minus-alone", b"a=1; Max-Age=-", kept(b"a", b"1")),
    ("5.6.2-plus-is-ignored", b"a=1; Max-Age=+5", kept(b"a", b"1")),
    ("5.6.2-fraction-is-ignored", b"a=1; Max-Age=1.5", kept(b"a", b"1")),
    ("5.6.2-empty-is-ignored", b"a=1; Max-Age=", kept(b"a", b"1")),
    ("5.6.2-quotes-are-ignored", b'a=1; Max-Age="5"', kept(b"a", b"1")),
    ("5.6.2-ignored-leaves-expires", b"a=1; Max-Age=x; Expires=" + FUTURE,
     kept(b"a", b"1", expires_at=FUTURE_MS)),
    ("5.6.2-cap-of-400-days", b"a=1; Max-Age=34560001", kept(b"a", b"1", expires_at=NOW + DAYS_400)),
    ("5.6.2-a-thousand-digits", b"a=1; Max-Age=" + b"9" * 1000,
     kept(b"a", b"1", expires_at=NOW + DAYS_400)),
    ("5.6.2-last-wins", b"a=1; Max-Age=0; Max-Age=60", kept(b"a", b"1", expires_at=NOW + 60_000)),
    ("5.7-max-age-beats-expires", b"a=1; Max-Age=60; Expires=" + PAST,
     kept(b"a", b"1", expires_at=NOW + 60_000)),
    # 5.6.3: Domain
    ("5.6.3-domain", b"a=1; Domain=Example.TEST", kept(b"a", b"1", domain="example.test")),
    ("5.6.3-leading-dot", b"a=1; Domain=.example.test", kept(b"a", b"1", domain="example.test")),
    ("5.6.3-one-dot-only", b"a=1; Domain=..example.test", kept(b"a", b"1", domain=".example.test")),
    ("5.6.3-empty-is-host-only", b"a=1; Domain=", kept(b"a", b"1")),
    ("5.6.3-last-wins", b"a=1; Domain=a.test; Domain=", kept(b"a", b"1")),
    ("5.7-domain-not-ascii", b"a=1; Domain=\xc3\xa9.test", None),
    # 5.6.4: Path
    ("5.6.4-path", b"a=1; Path=/a/b", kept(b"a", b"1", path=b"/a/b")),
    ("5.6.4-relative-is-the-default", b"a=1; Path=a", kept(b"a", b"1")),
    ("5.6.4-empty-is-the-default", b"a=1; Path=/a; Path=", kept(b"a", b"1")),
    ("5.6.4-quoted-is-the-default", b'a=1; Path="/"', kept(b"a", b"1")),
    # 5.6.7 and 5.7: SameSite
    ("5.6.7-strict", b"a=1; SameSite=strict", kept(b"a", b"1", same_site="Strict")),
    ("5.6.7-lax", b"a=1; samesite=LAX", kept(b"a", b"1", same_site="Lax")),
    ("5.6.7-none", b"a=1; SameSite=None; Secure", kept(b"a", b"1", same_site="None", secure=True)),
    ("5.6.7-unknown-is-the-default", b"a=1; SameSite=Stern", kept(b"a", b"1")),
    ("5.6.7-last-wins", b"a=1; SameSite=Strict; SameSite=Stern", kept(b"a", b"1")),
    ("5.7-none-without-secure", b"a=1; SameSite=None", None),
    # 5.7: the rest of the storage model
    ("5.7-empty-line", b"", None),
    ("5.7-nothing-but-equals", b" = ", None),
    ("5.7-nothing-but-attributes", b"; Secure", None),
    ("chips-partitioned", b"a=1; Secure; Partitioned", kept(b"a", b"1", secure=True, partitioned=True)),
    ("chips-partitioned-without-secure", b"a=1; Partitioned", None),
    ("5.7-nameless-with-secure-prefix", b"=__Secure-a=1; Secure; Path=/", None),
    ("5.7-nameless-with-host-prefix", b"__HOST-a; Secure; Path=/", None),
    ("5.7-nameless-with-http-prefix", b"=__http-a; Secure; HttpOnly; Path=/", None),
    ("5.7-nameless-with-other-prefix", b"=__Hosta=1", kept(b"", b"__Hosta=1")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), [pytest.param(line, stored, id=rule) for rule, line, stored in CASES])
def test_c22_set_cookie_follows_the_algorithm(line: bytes, expected: StoredCookie | None) -> None:
    """Each line is stored, or ignored, as its section says (C22)."""
    assert parse_set_cookie(line, now=NOW) == expected


# The attributes of a line, and which of the four prefixes a browser then accepts.
PREFIX_LINES: list[tuple[bytes, set[str]]] = [
    (b"; Secure; HttpOnly; Path=/", {"__Secure-", "__Host-", "__Http-", "__Host-Http-"}),
    (b"; Secure; Path=/", {"__Secure-", "__Host-"}),
    (b"; Secure; HttpOnly", {"__Secure-", "__Http-"}),
    (b"; Secure; HttpOnly; Path=", {"__Secure-", "__Http-"}),
    (b"; Secure; HttpOnly; Path=/p", {"__Secure-", "__Http-"}),
    (b"; Secure; HttpOnly; Path=/; Domain=example.test", {"__Secure-", "__Http-"}),
    (b"; Secure; HttpOnly; Path=/; Domain=", {"__Secure-", "__Host-", "__Http-", "__Host-Http-"}),
    (b"; HttpOnly; Path=/", set()),
    (b"", set()),
]


@pytest.mark.parametrize("prefix", ["__Secure-", "__Host-", "__Http-", "__Host-Http-"])
@pytest.mark.parametrize(("attributes", "accepted"), PREFIX_LINES)
def test_c8_prefixes_are_enforced_in_any_case(prefix: str, attributes: bytes, accepted: set[str]) -> None:
    """The promise of a prefix is kept or the line is ignored, however the prefix is spelled (C8)."""
    for spelling in (prefix, prefix.upper(), prefix.lower(), prefix.swapcase()):
        stored = parse_set_cookie(spelling.encode() + b"a=1" + attributes, now=NOW)
        assert (stored is not None) == (prefix in accepted)


DATES: list[tuple[bytes, int | None]] = [
    (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
    (b"Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777_000),
    (b"Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777_000),
    (b"Sun Nov  6 08:49:37 1994", 784_111_777_000),
    (b"06 nov 1994 08:49:37", 784_111_777_000),
    (b"1994 NOVEMBER 6 8:49:37", 784_111_777_000),
    (b"8:49:37 6th november 1994", 784_111_777_000),
    (b"08:49:37Z 6 Nov 94x", 784_111_777_000),
    (b"6 Nov 1994 08:49:37 +0100", 784_111_777_000),
    (b"6 Nov 1994 08:49:37 7 Dec 2001 01:01:01", 784_111_777_000),
    (b"6 Nov 70 00:00:00", 26_697_600_000),
    (b"6 Nov 69 00:00:00", 3_150_921_600_000),
    (b"6 Nov 00 00:00:00", 973_468_800_000),
    (b"1 Jan 1601 00:00:00", EARLIEST),
    (b"31 Dec 1600 23:59:59", None),
    (b"29 Feb 2000 00:00:00", 951_782_400_000),
    (b"29 Feb 1900 00:00:00", None),
    (b"31 Apr 2026 00:00:00", None),
    (b"0 Jan 2026 00:00:00", None),
    (b"32 Jan 2026 00:00:00", None),
    (b"1 Jan 2026 24:00:00", None),
    (b"1 Jan 2026 00:60:00", None),
    (b"1 Jan 2026 00:00:60", None),
    (b"1 Jan 2026", None),
    (b"1 Jan 00:00:00", None),
    (b"1 2026 00:00:00", None),
    (b"Jan 2026 00:00:00", None),
    (b"1 Jan 12026 00:00:00", None),
    (b"1 Jan 2026 00:00", None),
    (b"1 Jan 2026 000:00:00", None),
    (b"1\xa0Jan 2026 00:00:00", None),
    (b"", None),
    (b"\xff\xfe", None),
]


@pytest.mark.parametrize(("text", "moment"), DATES)
def test_c22_cookie_dates_follow_the_algorithm(text: bytes, moment: int | None) -> None:
    """Tokens in any order, the first of a kind counts, two-digit years, dates that exist (6265bis 5.1.1)."""
    assert parse_cookie_date(text) == moment


@given(st.integers(EARLIEST // 1000, 253_402_300_799))
def test_c22_what_we_write_as_a_date_we_read_back(seconds: int) -> None:
    """IMF-fixdate is among the forms that the algorithm reads."""
    assert parse_cookie_date(imf_fixdate(seconds * 1000).encode()) == seconds * 1000


line_like = st.lists(
    st.sampled_from(
        [b"a", b"=", b";", b" ", b"\t", b"Max-Age", b"-", b"9", b"Expires", FUTURE, b"Secure", b"Path", b"/"]
    )
    | st.binary(max_size=3)
).map(b"".join)


@given(st.binary() | line_like)
def test_c22_any_line_is_stored_or_ignored(line: bytes) -> None:
    """No line raises, and what is stored holds to the limits."""
    stored = parse_set_cookie(line, now=NOW)
    if stored is not None:
        assert stored.name or stored.value
        assert stored.expires_at is None or EARLIEST <= stored.expires_at <= NOW + DAYS_400


@given(
    name=st.sampled_from(["sid", "__Host-a", "__Http-a", "__Host-Http-a"]),
    value=st.text(alphabet="azAZ09-_.=", max_size=20),
    same_site=st.sampled_from(["Strict", "Lax", "None"]),
    partitioned=st.booleans(),
    max_age=st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=4000)),
)
def test_c6_what_we_send_is_stored_and_its_deletion_ends_it(
    *, name: str, value: str, same_site: Any, partitioned: bool, max_age: timedelta | None
) -> None:
    """A cookie is kept until `expires_at`; its deletion is the same cookie, ended (C4, C6)."""
    kind = Cookie(name, same_site=same_site, partitioned=partitioned)
    expected = kept(
        name.encode(),
        value.encode(),
        path=b"/",
        secure=True,
        http_only=True,
        same_site=same_site,
        partitioned=partitioned,
        expires_at=kind.expires_at(now=NOW, max_age=max_age),
    )
    assert parse_set_cookie(kind.header(value, now=NOW, max_age=max_age), now=NOW) == expected
    gone = parse_set_cookie(kind.deletion(now=NOW), now=NOW)
    assert gone is not None
    assert gone.expires_at == EARLIEST
    assert (gone.name, gone.path, gone.domain, gone.partitioned) == (name.encode(), b"/", None, partitioned)


def test_the_value_is_not_in_the_repr() -> None:
    """A stored cookie may be a credential, and reprs end up in logs."""
    assert "S3CRET" not in repr(parse_set_cookie(b"a=S3CRET", now=NOW))
