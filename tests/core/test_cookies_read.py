"""Reading Cookie headers: as bytes, only SP and HTAB are white space, nothing is unquoted or decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.cookies import Cookie, find_cookie, parse_cookies
from coatcheck.errors import Malformed

PARSED: list[tuple[list[bytes], list[tuple[bytes, bytes]]]] = [
    ([], []),
    ([b""], []),
    ([b"a=1"], [(b"a", b"1")]),
    ([b"a=1; b=2"], [(b"a", b"1"), (b"b", b"2")]),
    ([b"a=1;b=2"], [(b"a", b"1"), (b"b", b"2")]),
    ([b"a=1", b"b=2; c=3", b"a=4"], [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"a", b"4")]),
    ([b"a=1; a=1; a=2"], [(b"a", b"1"), (b"a", b"1"), (b"a", b"2")]),
    ([b" \ta\t = \t1 \t"], [(b"a", b"1")]),
    ([b"a=b=c=="], [(b"a", b"b=c==")]),
    ([b"a="], [(b"a", b"")]),
    ([b"foo"], [(b"", b"foo")]),
    ([b"=foo"], [(b"", b"foo")]),
    ([b"a=1; foo; b=2"], [(b"a", b"1"), (b"", b"foo"), (b"b", b"2")]),
    ([b"; ;;a=1; ; =;"], [(b"a", b"1")]),
    ([b'a="1"'], [(b"a", b'"1"')]),
    ([b'a="1; b=2"'], [(b"a", b'"1'), (b"b", b'2"')]),
    ([b"a=%41"], [(b"a", b"%41")]),
    ([b"a=1,b=2"], [(b"a", b"1,b=2")]),
    ([b"a=1 2"], [(b"a", b"1 2")]),
    ([b"a=\xff\xfe"], [(b"a", b"\xff\xfe")]),
    ([b"$Version=1; a=1; $Path=/"], [(b"$Version", b"1"), (b"a", b"1"), (b"$Path", b"/")]),
    ([b"\x0ba=1\x0b"], [(b"\x0ba", b"1\x0b")]),
    ([b"\x00a=\r\n"], [(b"\x00a", b"\r\n")]),
]


@pytest.mark.parametrize(("headers", "pairs"), PARSED)
def test_c12_cookie_headers_are_read_as_sent(headers: list[bytes], pairs: list[tuple[bytes, bytes]]) -> None:
    """Several headers, any order, duplicates, nameless cookies; quotes and escapes stay as they are (C12)."""
    assert parse_cookies(headers) == pairs


@given(st.lists(st.binary()))
def test_c12_parsing_never_raises(headers: list[bytes]) -> None:
    """Any bytes give a list of pairs of bytes, none of them empty on both sides (C12)."""
    for name, value in parse_cookies(headers):
        assert name or value
        assert b";" not in name + value
        assert b"=" not in name
        assert name == name.strip(b" \t")
        assert value == value.strip(b" \t")


header_like = st.lists(
    st.sampled_from(
        [
            b"sid",
            b"sid=",
            b"xsid=",
            b"sidx=",
            b"=",
            b";",
            b"; ",
            b" ",
            b"\t",
            b"a=b",
            b"\x0b",
            b'"',
            b"\xa0",
            b"SID=",
            b"v",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(st.lists(header_like, max_size=3))
def test_c13_finding_agrees_with_parsing(headers: list[bytes]) -> None:
    """The fast way gives what the full parser gives: none, the one, or a refusal of two (C12, C13)."""
    values = [value for name, value in parse_cookies(headers) if name == b"sid"]
    if len(values) > 1:
        with pytest.raises(Malformed):
            find_cookie(headers, b"sid")
    else:
        assert find_cookie(headers, b"sid") == (values[0] if values else None)


FOUND: list[tuple[bytes, bytes | None]] = [
    (b"__Host-session=v", b"v"),
    (b"a=1; __Host-session=v; b=2", b"v"),
    (b"a=1;__Host-session=v;b=2", b"v"),
    (b"__Host-session = v ", b"v"),
    (b"__Host-session= v\t; a=1", b"v"),
    (b"__Host-session=", b""),
    (b"__Host-session=a=b", b"a=b"),
    (b'__Host-session="v"', b'"v"'),
    (b"x=__Host-session=v", None),
    (b"x=__Host-session; __Host-session=v", b"v"),
    (b"__Host-session", None),
    (b"__Host-session2=v", None),
    (b"x__Host-session=v", None),
    (b"a=1,__Host-session=v", None),
    (b"a=1 __Host-session=v", None),
    (b"", None),
]


@pytest.mark.parametrize(("header", "value"), FOUND)
def test_c12_only_a_whole_name_is_found(header: bytes, value: bytes | None) -> None:
    """The name is found between separators only, never inside a value or another name (C12)."""
    assert find_cookie([b"z=0", header], b"__Host-session") == value


@pytest.mark.parametrize("name", [b"__host-session", b"__HOST-SESSION", b"__Host-Session"])
def test_c9_names_are_read_case_sensitively(name: bytes) -> None:
    """A browser enforces the prefix in any case, but only the exact name is ours (C9)."""
    assert find_cookie([name + b"=attacker"], b"__Host-session") is None
    assert find_cookie([name + b"=attacker; __Host-session=ours"], b"__Host-session") == b"ours"


LOOK_ALIKES = [b"\x0b", b"\x0c", b"\r", b"\n", b"\x1c", b"\x1f", b"\x85", b"\xa0", b"\x00"] + [
    character.encode("utf-8") for character in "\u0085\u00a0\u1680\u2000\u2003\u2028\u202f\u205f\u3000\ufeff\u200b"
]


@pytest.mark.parametrize("white", LOOK_ALIKES)
def test_c9_a_look_alike_with_other_white_space_is_another_name(white: bytes) -> None:
    """Only SP and HTAB are trimmed: what `str.strip` takes never becomes our name ("cookie chaos")."""
    for pair in (
        white + b"__Host-session=evil",
        b"__Host-session" + white + b"=evil",
        b" " + white + b" __Host-session=evil",
    ):
        assert find_cookie([pair], b"__Host-session") is None
        assert find_cookie([pair + b"; __Host-session=ours"], b"__Host-session") == b"ours"
        assert parse_cookies([pair])[0][0] != b"__Host-session"


@pytest.mark.parametrize(
    "headers",
    [
        [b"__Host-session=attacker; __Host-session=victim"],
        [b"__Host-session=victim; __Host-session=attacker"],
        [b"__Host-session=attacker", b"__Host-session=victim"],
        [b"__Host-session=victim", b"a=1; __Host-session=attacker"],
        [b"__Host-session=same; __Host-session=same"],
        [b"__Host-session=victim; __Host-session \t=attacker"],
        [b"__Host-session=; __Host-session=victim"],
    ],
)
def test_c13_a_duplicate_is_refused_in_either_order(headers: list[bytes]) -> None:
    """Never "first wins", never "last wins": two cookies of our name are a refusal (C13)."""
    with pytest.raises(Malformed, match="two cookies"):
        find_cookie(headers, b"__Host-session")


def test_c13_a_duplicate_of_another_name_is_not_ours_to_refuse() -> None:
    """Other cookies may be doubled; they are handed out in order (C12)."""
    assert find_cookie([b"a=1; a=2; sid=v"], b"sid") == b"v"


def test_p9_cookie_headers_over_the_limit_are_refused_by_name() -> None:
    """64 KiB in all headers together; the error names the limit (P9)."""
    half = b"a=" + b"x" * 32766
    assert find_cookie([half, half], b"sid") is None
    with pytest.raises(Malformed, match="65536 octets"):
        find_cookie([half, half, b"x"], b"sid")


@given(st.from_regex(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,60}", fullmatch=True))
def test_c12_what_is_sent_comes_back(value: bytes) -> None:
    """A value that a header carries is the value that a Cookie header gives back."""
    header = Cookie("__Host-session").header(value, now=0)
    sent_back = header.partition(b"; ")[0]
    assert find_cookie([b"a=1; " + sent_back + b"; b=2"], b"__Host-session") == value
