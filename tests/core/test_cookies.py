"""Building cookies: checked once at construction, and every header in the strict grammar."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core import cookies
from coatcheck.core.cookies import Cookie, imf_fixdate
from coatcheck.errors import CoatcheckError, ConfigurationError, InvalidValue

NOW = 1_795_000_000_123  # 2026-11-18T11:06:40.123Z
YEAR_400 = timedelta(days=400)

# The server's grammar of 6265bis 4.1.1, spelled out a second time.
OCTET = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]"
MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
DATE = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d " + MONTH + rb" \d{4} \d\d:\d\d:\d\d GMT"
GRAMMAR = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=" + OCTET + rb"*(?:; (?:"
    rb"Max-Age=\d+|Expires=" + DATE + rb"|Path=/[\x20-\x3a\x3c-\x7e]*"
    rb"|Domain=[0-9A-Za-z.-]+|Secure|HttpOnly|SameSite=(?:Strict|Lax|None)|Partitioned))*"
)


def attribute_names(header: bytes) -> list[bytes]:
    return [part.partition(b"=")[0].strip().lower() for part in header.split(b";")[1:]]


def test_c7_the_default_cookie_is_the_strict_one() -> None:
    """Name given, nothing else: Secure, HttpOnly, SameSite=Lax, Path=/, no Domain, no lifetime (C7)."""
    header = Cookie(cookies.SESSION_COOKIE).header("v", now=NOW)
    assert header == b"__Host-session=v; Path=/; Secure; HttpOnly; SameSite=Lax"


GOLDEN: list[tuple[dict[str, Any], bytes]] = [
    ({}, b"sid=v; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ({"same_site": "Strict"}, b"sid=v; Path=/; Secure; HttpOnly; SameSite=Strict"),
    ({"same_site": "None"}, b"sid=v; Path=/; Secure; HttpOnly; SameSite=None"),
    ({"same_site": "None", "partitioned": True}, b"sid=v; Path=/; Secure; HttpOnly; SameSite=None; Partitioned"),
    ({"http_only": False}, b"sid=v; Path=/; Secure; SameSite=Lax"),
    ({"secure": False}, b"sid=v; Path=/; HttpOnly; SameSite=Lax"),
    ({"path": "/app"}, b"sid=v; Path=/app; Secure; HttpOnly; SameSite=Lax"),
    ({"domain": "example.test"}, b"sid=v; Path=/; Domain=example.test; Secure; HttpOnly; SameSite=Lax"),
    (
        {"max_age": timedelta(days=1)},
        (b"sid=v; Max-Age=86400; Expires=Thu, 19 Nov 2026 11:06:40 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"),
    ),
]


@pytest.mark.parametrize(("attributes", "expected"), GOLDEN)
def test_c1_golden_headers(attributes: dict[str, Any], expected: bytes) -> None:
    """Each attribute has one spelling and one place (C1)."""
    assert Cookie("sid", **attributes).header("v", now=NOW) == expected
    assert GRAMMAR.fullmatch(expected)


def test_c5_a_session_cookie_has_no_lifetime_and_a_persistent_one_has_both() -> None:
    """Neither Max-Age nor Expires, or both; never one of them (C5)."""
    session = attribute_names(Cookie("sid").header("v", now=NOW))
    persistent = attribute_names(Cookie("sid").header("v", now=NOW, max_age=timedelta(hours=1)))
    assert not {b"max-age", b"expires"} & set(session)
    assert {b"max-age", b"expires"} <= set(persistent)


def test_c5_a_lifetime_given_for_one_header_replaces_the_kinds_own() -> None:
    """`max_age` of `header` wins over that of the kind, and None leaves the kind's."""
    kind = Cookie("sid", max_age=timedelta(hours=2))
    assert b"Max-Age=7200;" in kind.header("v", now=NOW)
    assert b"Max-Age=60;" in kind.header("v", now=NOW, max_age=timedelta(minutes=1))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),  # the example of RFC 9110, 5.6.7
        (951_827_696_999, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (253_402_300_799_000, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_c5_dates_are_imf_fixdates_in_whole_seconds(moment: int, text: str) -> None:
    """IMF-fixdate with a four-digit year, the fraction cut off towards the past (C5)."""
    assert imf_fixdate(moment) == text


def test_c4_a_kind_of_two_years_is_shortened_with_a_warning() -> None:
    """400 days is the most; asking for more warns where the cookie is constructed (C4)."""
    with pytest.warns(UserWarning, match="400 days") as caught:
        kind = Cookie("sid", max_age=timedelta(days=730))
    assert [warning.filename for warning in caught] == [__file__]
    assert kind.max_age == YEAR_400
    assert b"Max-Age=34560000;" in kind.header("v", now=NOW)


@pytest.mark.filterwarnings("error")
def test_c4_exactly_400_days_is_no_reason_to_warn() -> None:
    """The cap itself is allowed (C4)."""
    assert Cookie("sid", max_age=YEAR_400).max_age == YEAR_400


def test_c4_expires_at_knows_the_cap() -> None:
    """What `expires_at` says and what the header says is one moment, shortened or not (C4)."""
    kind = Cookie("sid")
    assert kind.expires_at(now=NOW) is None
    assert kind.expires_at(now=NOW, max_age=timedelta(minutes=1)) == NOW + 60_000
    long = timedelta(days=4000)
    assert kind.expires_at(now=NOW, max_age=long) == NOW + 34_560_000_000
    assert b"Max-Age=34560000;" in kind.header("v", now=NOW, max_age=long)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=999)])
def test_c5_a_lifetime_below_one_second_is_refused(age: timedelta) -> None:
    """It would be a deletion that does not look like one."""
    with pytest.raises(ConfigurationError, match="one second"):
        Cookie("sid", max_age=age)
    with pytest.raises(InvalidValue, match="deletion"):
        Cookie("sid").header("v", now=NOW, max_age=age)
    with pytest.raises(InvalidValue, match="deletion"):
        Cookie("sid").expires_at(now=NOW, max_age=age)


DELETIONS: list[tuple[Cookie, bytes]] = [
    (Cookie("__Host-session"), b"; Path=/; Secure; HttpOnly; SameSite=Lax"),
    (
        Cookie("__Secure-sid", path="/app", domain="example.test", same_site="Strict"),
        b"; Path=/app; Domain=example.test; Secure; HttpOnly; SameSite=Strict",
    ),
    (
        Cookie("__Host-embedded", same_site="None", partitioned=True),
        b"; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
    ),
    (Cookie("plain", secure=False, http_only=False), b"; Path=/; SameSite=Lax"),
]


@pytest.mark.parametrize(("kind", "tail"), DELETIONS)
def test_c6_deletion_repeats_the_cookie_with_an_end_in_the_past(kind: Cookie, tail: bytes) -> None:
    """Same name, Domain, Path and flags (C6), Partitioned included (C11); Max-Age=0 and a past Expires."""
    past = b"; Max-Age=0; Expires=Tue, 14 Oct 2025 11:06:40 GMT"
    assert kind.deletion(now=NOW) == kind.name.encode() + b"=" + past + tail


def test_c6_a_persistent_cookie_is_deleted_like_a_session_cookie() -> None:
    """The deletion has one Max-Age, of zero, whatever the kind's lifetime (C2, C6)."""
    deletion = Cookie("sid", max_age=timedelta(days=30)).deletion(now=NOW)
    assert deletion == Cookie("sid").deletion(now=NOW)


# The 18 lines of row C8: what each prefix promises, kept and broken. None means that nothing is wrong.
PREFIX_LINES: list[tuple[str, dict[str, Any], str | None]] = [
    ("__Secure-a", {}, None),
    ("__Secure-a", {"domain": "example.test", "path": "/p", "http_only": False}, None),
    ("__Secure-a", {"secure": False}, "Secure"),
    ("__SECURE-a", {"secure": False}, "Secure"),
    ("__Host-a", {}, None),
    ("__Host-a", {"http_only": False}, None),
    ("__Host-a", {"secure": False}, "Secure"),
    ("__Host-a", {"path": "/p"}, "Path=/"),
    ("__Host-a", {"domain": "example.test"}, "no Domain"),
    ("__hOST-a", {"domain": "example.test"}, "no Domain"),
    ("__Http-a", {"domain": "example.test", "path": "/p"}, None),
    ("__Http-a", {"http_only": False}, "HttpOnly"),
    ("__http-a", {"secure": False}, "Secure"),
    ("__Host-Http-a", {}, None),
    ("__Host-Http-a", {"http_only": False}, "HttpOnly"),
    ("__Host-Http-a", {"path": "/p"}, "Path=/"),
    ("__hoST-htTP-a", {"domain": "example.test"}, "no Domain"),
    ("__Hostile", {"domain": "example.test", "path": "/p", "secure": False, "http_only": False}, None),
]


@pytest.mark.parametrize(("name", "attributes", "broken"), PREFIX_LINES)
def test_c8_prefix_rules(name: str, attributes: dict[str, Any], broken: str | None) -> None:
    """What a prefix promises, in any case, is true at construction, or there is no cookie (C8)."""
    if broken is None:
        assert Cookie(name, **attributes).name == name
    else:
        with pytest.raises(ConfigurationError, match=f"demands {broken}$"):
            Cookie(name, **attributes)


@pytest.mark.parametrize("value", ["lax", "STRICT", "none", "Default", "", None])
def test_c10_an_unknown_same_site_is_refused(value: Any) -> None:
    """SameSite is one of three words, in one spelling (C10)."""
    with pytest.raises(ConfigurationError, match="same_site"):
        Cookie("sid", same_site=value)


def test_c10_same_site_none_demands_secure() -> None:
    """SameSite=None without Secure would be dropped by the browser (C10)."""
    with pytest.raises(ConfigurationError, match="SameSite=None demands Secure"):
        Cookie("sid", same_site="None", secure=False)


def test_c11_partitioned_demands_secure() -> None:
    """Partitioned without Secure would be dropped by the browser (C11)."""
    with pytest.raises(ConfigurationError, match="Partitioned demands Secure"):
        Cookie("sid", partitioned=True, secure=False)


def test_c3_name_and_value_of_4096_octets_pass_and_4097_raise() -> None:
    """The limit is on name and value together, without the equals sign (C3)."""
    kind = Cookie("sid")
    assert kind.header("v" * 4093, now=NOW).startswith(b"sid=v")
    with pytest.raises(InvalidValue, match="4096 octets"):
        kind.header("v" * 4094, now=NOW)


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ({"name": "n" * 4097}, "name exceeds 4096"),
        ({"name": "n", "path": "/" + "p" * 1024}, "path exceeds 1024"),
        ({"name": "n", "domain": ".".join(["d" * 63] * 4)}, "domain exceeds 253"),
    ],
)
def test_c3_an_attribute_over_its_limit_is_refused(arguments: dict[str, Any], limit: str) -> None:
    """A browser would drop the cookie, or keep it under another path; the error names the limit (C3)."""
    with pytest.raises(ConfigurationError, match=limit):
        Cookie(**arguments)


def test_c3_attributes_at_their_limits_pass() -> None:
    """A Path of 1024 octets and a Domain of 253 are sent (C3)."""
    domain = ".".join(["d" * 63] * 3 + ["d" * 61])
    assert len(Cookie("n" * 4096, path="/" + "p" * 1023, domain=domain).header("", now=NOW)) > 5300


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nSet-Cookie: a=b", ";", "; Domain=evil.test", "\x7f", "é", " "])
def test_c1_nothing_that_splits_a_header_gets_into_one(bad: str) -> None:
    """Controls, separators and non-ASCII are refused in every part (C1)."""
    for text in (bad, f"x{bad}", f"{bad}x", f"x{bad}x"):
        with pytest.raises(InvalidValue):
            Cookie("sid").header(text, now=NOW)
        with pytest.raises(InvalidValue):
            Cookie("sid").header(text.encode("utf-8"), now=NOW)
        with pytest.raises(ConfigurationError, match="name"):
            Cookie(text)
        with pytest.raises(ConfigurationError, match="path"):
            Cookie("sid", path="/" + text)
        with pytest.raises(ConfigurationError, match="domain"):
            Cookie("sid", domain=text)


@pytest.mark.parametrize("bad", ['"', '"quoted"', ",", "\\", "a b", "a\tb"])
def test_c1_a_value_is_cookie_octets_only(bad: str) -> None:
    """No quotes, commas, backslashes or white space; a value that needs them is to be encoded (C1)."""
    with pytest.raises(InvalidValue):
        Cookie("sid").header(bad, now=NOW)


@pytest.mark.parametrize("name", ["", "a=b", "a b", "a,b", '"a"', "(a)", "a/b", "a:b", "[a]"])
def test_c1_c2_a_name_is_a_token_and_never_empty(name: str) -> None:
    """A nameless cookie is never sent (C2), nor a name with a separator (C1)."""
    with pytest.raises(ConfigurationError, match="name"):
        Cookie(name)


@pytest.mark.parametrize("path", ["", "app", "app/", "//\n", "/a b", "/a;b", "/ä"])
def test_c1_a_path_begins_with_a_slash(path: str) -> None:
    """Anything else makes a browser fall back to the default path."""
    with pytest.raises(ConfigurationError, match="path"):
        Cookie("sid", path=path)


@pytest.mark.parametrize(
    "domain", ["", ".example.test", "example.test.", "a..b", "-a.test", "a-.test", "a_b.test", "*.a"]
)
def test_c1_a_domain_is_a_host_name(domain: str) -> None:
    """No leading dot, no empty label, letters, digits and hyphens only (6265bis 4.1.1, domain-value)."""
    with pytest.raises(ConfigurationError, match="domain"):
        Cookie("sid", domain=domain)


anything = st.one_of(
    st.text(),
    st.binary(),
    st.text(alphabet='azAZ09-_./=;, "\\\r\n\0\x7f\u2000é'),
    st.from_regex(r"[!-~]{0,40}", fullmatch=True),
)


@given(
    name=anything | st.sampled_from(["sid", "__Host-a", "__Http-b"]),
    value=anything,
    path=anything.map(lambda text: "/" + text if isinstance(text, str) else text),
    domain=st.none() | anything | st.just("example.test"),
    same_site=st.sampled_from(["Strict", "Lax", "None"]),
    secure=st.booleans(),
    partitioned=st.booleans(),
    max_age=st.none() | st.timedeltas(timedelta(seconds=1), YEAR_400),
)
def test_c1_every_header_that_leaves_is_in_the_grammar(value: Any, max_age: Any, **attributes: Any) -> None:
    """Any text or bytes: our own error, or a header in the grammar without a repeated attribute (C1, C2)."""
    try:
        kind = Cookie(**attributes)
        headers = [kind.header(value, now=NOW, max_age=max_age), kind.deletion(now=NOW)]
    except (ConfigurationError, InvalidValue):
        return
    for header in headers:
        assert GRAMMAR.fullmatch(header), header
        names = attribute_names(header)
        assert len(names) == len(set(names))


@given(st.text(), st.text() | st.binary())
def test_c1_an_error_never_shows_the_value(name: str, value: str | bytes) -> None:
    """No message contains a secret: the value may be one."""
    secret = "S3CRET" + "\n"
    with pytest.raises(InvalidValue) as caught:
        Cookie("sid").header(value + secret if isinstance(value, str) else value + secret.encode(), now=NOW)
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_kind_is_a_value() -> None:
    """Two kinds of the same attributes are equal, and `dataclasses.replace` checks again."""
    assert Cookie("sid") == Cookie("sid")
    assert Cookie("sid") != Cookie("sid", path="/a")
    strict = dataclasses.replace(Cookie("__Host-a"), same_site="Strict")
    assert strict.header("v", now=NOW).endswith(b"SameSite=Strict")
    with pytest.raises(ConfigurationError):
        dataclasses.replace(Cookie("__Host-a"), path="/a")


def test_errors_are_ours() -> None:
    """Both errors of this module are CoatcheckErrors and ValueErrors."""
    assert issubclass(ConfigurationError, CoatcheckError)
    assert issubclass(InvalidValue, ValueError)
