"""Credentials: what a request presents, in one order, and what cannot be read is a refusal."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core import base64url
from coatcheck.core.cookies import Cookie
from coatcheck.core.credentials import (
    AccessToken,
    CookieNames,
    Presented,
    RefreshToken,
    SessionCookie,
    read,
    read_refresh,
    valid_session_id,
)
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed

NAMES = CookieNames()
SESSION = SessionCookie(base64url.encode(bytes(range(16))), bytes(range(100, 132)))
TICKET = SESSION.value.encode()
ids = st.binary(min_size=16, max_size=16).map(base64url.encode)


def cookie(*pairs: bytes) -> tuple[bytes, bytes]:
    return b"cookie", b"; ".join(pairs)


def bearer(value: bytes) -> tuple[bytes, bytes]:
    return b"authorization", value


# --- the order

PRECEDENCE: list[tuple[str, list[tuple[bytes, bytes]], Presented | None]] = [
    ("nothing", [], None),
    ("other-headers", [(b"host", b"a.test"), (b"x-authorization", b"Bearer t")], None),
    ("foreign-cookies", [cookie(b"a=1", b"session=" + TICKET)], None),
    ("bearer", [bearer(b"Bearer t.o.k")], AccessToken("t.o.k")),
    ("session", [cookie(b"a=1", b"__Host-session=" + TICKET)], SESSION),
    ("access-cookie", [cookie(b"__Host-access=t.o.k")], AccessToken("t.o.k", ambient=True)),
    ("bearer-before-session", [cookie(b"__Host-session=" + TICKET), bearer(b"Bearer t")], AccessToken("t")),
    ("bearer-before-a-bad-session", [cookie(b"__Host-session=bad"), bearer(b"Bearer t")], AccessToken("t")),
    ("session-before-access", [cookie(b"__Host-access=t", b"__Host-session=" + TICKET)], SESSION),
    ("basic-is-not-ours", [bearer(b"Basic dTpw")], None),
    ("basic-then-cookie", [bearer(b"Basic dTpw"), cookie(b"__Host-session=" + TICKET)], SESSION),
    ("negotiate-alone-then-cookie", [bearer(b"Negotiate"), cookie(b"__Host-access=t")], AccessToken("t", ambient=True)),
    ("bearers-is-another-scheme", [bearer(b"Bearers t")], None),
    ("the-refresh-cookie-signs-nobody-in", [cookie(b"__Host-refresh=" + b"A" * 76)], None),
    ("split-cookie-headers", [cookie(b"a=1"), cookie(b"__Host-session=" + TICKET), cookie(b"b=2")], SESSION),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "expected"), [pytest.param(*row[1:], id=row[0]) for row in PRECEDENCE])
def test_the_first_credential_of_the_order_counts(
    headers: list[tuple[bytes, bytes]], expected: Presented | None
) -> None:
    """Authorization: Bearer, then the session cookie, then the access cookie; other schemes pass by."""
    assert read(headers, NAMES) == expected
    assert read(iter(headers), NAMES) == expected


REFUSED: list[tuple[str, list[tuple[bytes, bytes]]]] = [
    ("bearer-empty", [bearer(b"Bearer")]),
    ("bearer-space", [bearer(b"Bearer ")]),
    ("bearer-two-tokens", [bearer(b"Bearer a b")]),
    ("bearer-list", [bearer(b"Bearer a,b")]),
    ("bearer-two-credentials", [bearer(b"Bearer a, Basic dTpw")]),
    ("bearer-parameters", [bearer(b'Bearer token="a"')]),
    ("bearer-tab", [bearer(b"Bearer\ta")]),
    ("bearer-quoted", [bearer(b'Bearer "a"')]),
    ("bearer-padding-alone", [bearer(b"Bearer ===")]),
    ("bearer-padding-inside", [bearer(b"Bearer a=b")]),
    ("bearer-non-ascii", [bearer(b"Bearer \xc3\xa9")]),
    ("bearer-nul", [bearer(b"Bearer a\x00")]),
    ("bearer-newline", [bearer(b"Bearer a\n")]),
    ("bearer-nbsp", [bearer(b"Bearer\xa0a")]),
    ("bearer-comma", [bearer(b"Bearer,a")]),
    ("authorization-empty", [bearer(b"")]),
    ("authorization-blank", [bearer(b" \t")]),
    ("authorization-garbage", [bearer(b"\xff\xfe")]),
    ("two-bearers", [bearer(b"Bearer a"), bearer(b"Bearer a")]),
    ("bearer-and-basic", [bearer(b"Bearer a"), bearer(b"Basic dTpw")]),
    ("two-basics", [bearer(b"Basic dTpw"), bearer(b"Basic dTpw")]),
    ("bad-bearer-good-session", [bearer(b"Bearer \xff"), cookie(b"__Host-session=" + TICKET)]),
    ("bad-session-good-access", [cookie(b"__Host-session=bad", b"__Host-access=t")]),
    ("empty-session", [cookie(b"__Host-session=")]),
    ("quoted-session", [cookie(b'__Host-session="' + TICKET + b'"')]),
    ("session-twice", [cookie(b"__Host-session=" + TICKET, b"__Host-session=" + TICKET)]),
    ("session-twice-in-two-headers", [cookie(b"__Host-session=" + TICKET), cookie(b"__Host-session=x")]),
    ("session-joined-by-a-comma", [cookie(b"__Host-session=" + TICKET + b",__Host-session=" + TICKET)]),
    ("access-twice", [cookie(b"__Host-access=a", b"__Host-access=b")]),
    ("access-empty", [cookie(b"__Host-access=")]),
    ("access-with-a-space", [cookie(b"__Host-access=a b")]),
]  # fmt: skip


@pytest.mark.parametrize("headers", [pytest.param(row[1], id=row[0]) for row in REFUSED])
def test_a_credential_that_cannot_be_read_is_a_refusal(headers: list[tuple[bytes, bytes]]) -> None:
    """Presented but bad: Malformed, never "anonymous" and never the next kind (house rule 8, C13)."""
    with pytest.raises(Malformed):
        read(headers, NAMES)


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_the_scheme_is_in_any_case(scheme: bytes) -> None:
    """Authentication schemes are case-insensitive (RFC 9110, 11.1)."""
    assert read([bearer(b" " + scheme + b"   a-._~+/9== \t")], NAMES) == AccessToken("a-._~+/9==")


def test_p9_a_token_over_8_kib_is_refused_by_name() -> None:
    """8192 octets pass, one more does not, and the error names the limit (P9)."""
    assert read([bearer(b"Bearer " + b"a" * 8192)], NAMES) == AccessToken("a" * 8192)
    with pytest.raises(Malformed, match="8192 octets"):
        read([bearer(b"Bearer " + b"a" * 8193)], NAMES)


header_names = st.sampled_from([b"cookie", b"authorization", b"host"])
header_values = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [b"__Host-session", b"__Host-access", b"=", b"; ", TICKET, b"a.b", b"Bearer", b" ", b"Basic", b"\t", b","]
        ),
        max_size=8,
    ).map(b"".join),
)


@given(st.lists(st.tuples(header_names, header_values), max_size=4))
def test_any_headers_give_a_credential_or_malformed(headers: list[tuple[bytes, bytes]]) -> None:
    """No headers make anything else than a credential, nothing, or Malformed."""
    try:
        presented = read(headers, NAMES)
    except Malformed:
        return
    assert presented is None or isinstance(presented, SessionCookie | AccessToken)


@pytest.mark.parametrize("white", [b"\x0b", b"\x0c", b"\x85", b"\xa0", "\u2000".encode()])
def test_c9_a_look_alike_of_the_session_cookie_is_not_it(white: bytes) -> None:
    """Other white space before our name makes another name ("cookie chaos"); the genuine one counts."""
    fake = white + b"__Host-session=" + TICKET
    assert read([cookie(fake)], NAMES) is None
    assert read([cookie(fake, b"__Host-session=" + TICKET)], NAMES) == SESSION


# --- names


def test_names_are_those_of_the_house_unless_given() -> None:
    """Three `__Host-` names by default; others are used when given, and then only they."""
    assert (NAMES.session, NAMES.access, NAMES.refresh) == (b"__Host-session", b"__Host-access", b"__Host-refresh")
    mine = CookieNames(session=b"sid")
    assert read([cookie(b"sid=" + TICKET)], mine) == SESSION
    assert read([cookie(b"__Host-session=" + TICKET)], mine) is None


@pytest.mark.parametrize(
    "names", [{"session": b""}, {"access": b"a b"}, {"refresh": b"a="}, {"session": b"__Host-access"}]
)
def test_names_are_tokens(names: dict[str, Any]) -> None:
    """A name that could not be searched for, or two that are one, are refused."""
    with pytest.raises(ConfigurationError):
        CookieNames(**names)


def test_the_refresh_cookie_is_read_by_its_own_name() -> None:
    """`read_refresh` gives the text, or None; two of them are a refusal (C13)."""
    assert read_refresh([cookie(b"a=1", b"__Host-refresh=abc")], NAMES) == b"abc"
    assert read_refresh([cookie(b"__Host-session=" + TICKET)], NAMES) is None
    with pytest.raises(Malformed):
        read_refresh([cookie(b"__Host-refresh=a"), cookie(b"__Host-refresh=a")], NAMES)


# --- the session cookie


@given(ids, st.binary(min_size=32, max_size=32))
def test_c16_a_session_cookie_comes_back_as_it_was(id_: str, secret: bytes) -> None:
    """ "1", 22 characters of id, ".", 43 of secret; opaque, and sendable as a cookie (C16)."""
    ticket = SessionCookie(id_, secret)
    assert ticket.value == f"1{id_}.{base64url.encode(secret)}"
    assert len(ticket.value) == 67
    assert SessionCookie.parse(ticket.value.encode()) == ticket
    assert Cookie("__Host-session").header(ticket.value, now=0).startswith(b"__Host-session=1")


BAD_TICKETS = [
    b"",
    b"1",
    TICKET[:-1],
    TICKET + b"A",
    TICKET + b"=",
    TICKET + b"\n",
    b" " + TICKET,
    b"0" + TICKET[1:],
    b"2" + TICKET[1:],
    TICKET[1:],
    TICKET.replace(b".", b"-"),
    TICKET.replace(b".", b"..")[:67],
    TICKET.replace(b".", b":"),
    TICKET[:22] + b"B" + TICKET[23:],  # unused bits of the id
    TICKET[:-1] + b"B",  # unused bits of the secret
    TICKET[:5] + b"+" + TICKET[6:],
    TICKET[:5] + b"/" + TICKET[6:],
    TICKET[:5] + b"%" + TICKET[6:],
    TICKET[:5] + b"\xff" + TICKET[6:],
    TICKET[:5] + b"\x00" + TICKET[6:],
    TICKET * 2,
]


@pytest.mark.parametrize("raw", BAD_TICKETS)
def test_a_session_cookie_has_one_spelling(raw: bytes) -> None:
    """Another version, length, alphabet or unused bits: Malformed, and the message shows nothing of it."""
    with pytest.raises(Malformed) as caught:
        SessionCookie.parse(raw)
    assert str(caught.value) == "the session cookie cannot be read"


@given(st.binary(max_size=80) | st.binary(min_size=66, max_size=66).map(b"1".__add__))
def test_any_bytes_are_a_session_cookie_or_malformed(raw: bytes) -> None:
    """What is read is written back as the same bytes: there is one spelling only."""
    try:
        ticket = SessionCookie.parse(raw)
    except Malformed:
        return
    assert ticket.value.encode() == raw


@given(ids)
def test_a_session_id_is_sixteen_octets_in_base64url(id_: str) -> None:
    """Every encoding of 16 octets is a session id."""
    assert valid_session_id(id_)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A" * 21,
        "A" * 23,
        "A" * 21 + "B",
        "A" * 21 + "=",
        "A" * 20 + "+A",
        "A" * 21 + "A\n",
        " " + "A" * 21,
        "Ａ" * 22,
    ],
)
def test_other_text_is_no_session_id(text: str) -> None:
    """Wrong length, alphabet, unused bits, white space, wide letters."""
    assert not valid_session_id(text)


@given(st.text(alphabet="AQgwB-_=.", min_size=20, max_size=24))
def test_a_session_id_is_exactly_what_decodes_to_sixteen_octets(text: str) -> None:
    """The shape and the strict decoder agree."""
    try:
        decodes = len(base64url.decode(text)) == 16
    except Malformed:
        decodes = False
    assert valid_session_id(text) == decodes


# --- the refresh token

KEY, OLD_KEY = b"k" * 32, b"o" * 32


@given(ids, st.integers(0, 2**64 - 1))
def test_a_refresh_token_comes_back_as_it_was(sid: str, generation: int) -> None:
    """76 characters, under the key that sealed them, as text or bytes."""
    token = RefreshToken(sid, generation)
    text = token.seal(KEY)
    assert len(text) == 76
    assert RefreshToken.parse(text, [KEY]) == token
    assert RefreshToken.parse(text.encode(), [OLD_KEY, KEY]) == token


def test_the_refresh_tokens_format() -> None:
    """0x01, 16 octets of sid, 8 of generation, HMAC-SHA256 over these 25 (house decision 7)."""
    body = b"\x01" + bytes(range(16)) + b"\0\0\0\0\0\0\x01\x02"
    expected = base64url.encode(body + hmac.new(KEY, body, hashlib.sha256).digest())
    assert RefreshToken(SESSION.id, 0x102).seal(KEY) == expected


@pytest.mark.parametrize("keys", [[], [OLD_KEY], [OLD_KEY, b"x" * 32], [KEY[:-1]]])
def test_a_refresh_token_under_another_key_is_not_ours(keys: list[bytes]) -> None:
    """None of the keys sealed it: BadSignature."""
    with pytest.raises(BadSignature):
        RefreshToken.parse(RefreshToken(SESSION.id, 1).seal(KEY), keys)


@given(position=st.integers(1, 56), flip=st.integers(1, 255))
def test_a_changed_refresh_token_is_not_ours(position: int, flip: int) -> None:
    """Session, generation and MAC are all covered: nobody advances his own generation."""
    raw = bytearray(base64url.decode(RefreshToken(SESSION.id, 1).seal(KEY)))
    raw[position] ^= flip
    with pytest.raises(BadSignature):
        RefreshToken.parse(base64url.encode(bytes(raw)), [KEY])


@given(
    st.text() | st.binary() | st.binary(min_size=57, max_size=57).filter(lambda raw: raw[0] != 1).map(base64url.encode)
)
def test_other_text_is_no_refresh_token(text: str | bytes) -> None:
    """Another length, alphabet or version: Malformed, before any key is used."""
    with pytest.raises(Malformed):
        RefreshToken.parse(text, [KEY])


@pytest.mark.parametrize("other", [5, None, {}, ["A"] * 76])
def test_what_a_clients_json_may_have_in_its_place_is_no_refresh_token(other: Any) -> None:
    with pytest.raises(Malformed):
        RefreshToken.parse(other, [KEY])


@pytest.mark.parametrize("change", [lambda t: t + "=", lambda t: t[:-1], lambda t: t + "A", lambda t: t[:-1] + "\n"])
def test_a_refresh_token_has_one_spelling(change: Any) -> None:
    """No padding, no truncation, no white space."""
    with pytest.raises(Malformed):
        RefreshToken.parse(change(RefreshToken(SESSION.id, 1).seal(KEY)), [KEY])


@pytest.mark.parametrize(
    ("sid", "generation"), [("", 1), ("short", 1), (SESSION.id + "A", 1), (SESSION.id, -1), (SESSION.id, 2**64)]
)
def test_what_does_not_fit_is_not_sealed(sid: str, generation: int) -> None:
    """A session id and 8 octets of generation, or InvalidValue."""
    with pytest.raises(InvalidValue):
        RefreshToken(sid, generation).seal(KEY)


# --- nothing leaks


def test_s17_reprs_show_no_secret() -> None:
    """repr, str and format show the id at most, and rich's own hook the same (S17)."""
    secret = secrets.token_bytes(32)
    ticket, token = SessionCookie(SESSION.id, secret), AccessToken("S3CRET")
    for shown in (repr(ticket), str(ticket), f"{ticket}", repr(ticket.__rich_repr__()), repr([ticket])):
        assert SESSION.id in shown
        assert repr(secret) not in shown
        assert base64url.encode(secret) not in shown
    for shown in (repr(token), str(token), f"{token}", repr(token.__rich_repr__())):
        assert "S3CRET" not in shown
    assert repr(RefreshToken("sid", 7)) == "RefreshToken(sid='sid', generation=7)"


@pytest.mark.parametrize(
    "headers",
    [
        [bearer(b"Bearer S3CRET S3CRET")],
        [bearer(b"S3CRET/S3CRET")],
        [bearer(b"Bearer " + b"S3CRET" * 2000)],
        [bearer(b"Bearer S3CRET"), bearer(b"Bearer S3CRET")],
        [cookie(b"__Host-session=S3CRET")],
        [cookie(b"__Host-session=S3CRET", b"__Host-session=S3CRET")],
        [cookie(b"__Host-access=S3CRET S3CRET")],
    ],
)
def test_s17_errors_show_no_credential(headers: list[tuple[bytes, bytes]]) -> None:
    """No message has a part of what was presented, and no cause with one is attached (S17)."""
    with pytest.raises(Malformed) as caught:
        read(headers, NAMES)
    assert "S3CRET" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("credential", [SESSION, AccessToken("t"), RefreshToken(SESSION.id, 1)])
def test_credentials_are_frozen(credential: Any) -> None:
    """What was read cannot be changed on the way to whoever judges it."""
    with pytest.raises(AttributeError):
        setattr(credential, credential.__struct_fields__[0], "other")
