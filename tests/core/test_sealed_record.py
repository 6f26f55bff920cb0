"""Sealed records: what is in the box comes back as it was, for its own cookie only, or not at all."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.cookies import MAX_PAIR, Cookie
from coatcheck.core.credentials import (
    MAX_PARTS,
    PART_SIZE,
    CookieNames,
    SessionBox,
    SessionCookie,
    read,
    valid_session_id,
)
from coatcheck.core.policy import Policy
from coatcheck.core.record import Device, Record, pack
from coatcheck.core.seal import NONCE_SIZE, seal
from coatcheck.core.sealed_record import (
    MAX_RECORD,
    MAX_TEXT,
    encode_record,
    line_of,
    open_record,
    read_note,
    seal_record,
    write_note,
)
from coatcheck.errors import BadSignature, CredentialError, InvalidValue, Malformed, StoreUnavailable

NAME = "__Host-session"
KEYS = (b"k" * 32, b"o" * 32)
RECORD = Record.begin(
    SessionCookie("A" * 22, b"s" * 32),
    "ann",
    now=2_000,
    began_at=1_000,
    idle=60_000,
    absolute=600_000,
    amr=("pwd",),
    scopes=("notes",),
    persistent=True,
    device=Device("a browser", "192.0.2.1"),
    data={"theme": pack("dark")},
)


def sealed(record: Record = RECORD, *, keys: Any = KEYS, name: str = NAME) -> SessionBox:
    return seal_record(encode_record(record), keys=keys, name=name, nonce=secrets.token_bytes(NONCE_SIZE))


def holding(octets: int) -> Record:
    """Return a record whose encoded form takes so many octets, the digest left out."""
    empty = msgspec.structs.replace(RECORD, digest=b"", data={"x": b""})
    filled = msgspec.structs.replace(empty, data={"x": b"." * (octets - len(empty.encode()))})
    surplus = len(filled.encode()) - octets
    return msgspec.structs.replace(filled, data={"x": filled.data["x"][surplus:]})


def request(box: SessionBox, *more: str) -> list[tuple[bytes, bytes]]:
    names = [NAME, *(f"{NAME}-{part}" for part in range(2, MAX_PARTS + 1))]
    pairs = [f"{name}={value}" for name, value in zip(names, box.values, strict=False)]
    return [(b"cookie", "; ".join([*pairs, *more]).encode())]


def test_a_box_gives_the_record_back_but_for_most_of_the_digest() -> None:
    """There is no secret besides the box, and so none whose digest it would have to hold; the line is in its place."""
    found = open_record(sealed(), keys=KEYS, name=NAME)
    assert found == msgspec.structs.replace(RECORD, digest=RECORD.digest[:16])
    assert line_of(found) == line_of(RECORD) != RECORD.id
    assert valid_session_id(line_of(found))


def test_c17_a_box_is_for_one_cookie_only() -> None:
    """A box under another name, or sealed for another purpose with the same key, opens nothing."""
    with pytest.raises(BadSignature):
        open_record(sealed(name="other"), keys=KEYS, name=NAME)
    text = seal(RECORD.encode(), keys=KEYS, purpose="cookie", name=NAME, nonce=b"n" * NONCE_SIZE)
    with pytest.raises(BadSignature):
        open_record(SessionBox(text), keys=KEYS, name=NAME)


def test_p8_a_retired_key_opens_and_the_current_one_seals() -> None:
    old = sealed(keys=KEYS[1:])
    assert open_record(old, keys=KEYS, name=NAME).subject == "ann"
    with pytest.raises(BadSignature):
        open_record(old, keys=KEYS[:1], name=NAME)
    assert open_record(sealed(), keys=KEYS[:1], name=NAME).subject == "ann"


@given(st.data())
def test_c17_a_changed_letter_is_refused(data: st.DataObject) -> None:
    text = sealed().text
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCXYZabcxyz0189-_"))
    if letter == text[at]:
        return
    with pytest.raises((BadSignature, Malformed)):
        open_record(SessionBox(text[:at] + letter + text[at + 1 :]), keys=KEYS, name=NAME)


def test_p8_a_newer_format_signs_nobody_out() -> None:
    """During a roll-out an older process meets boxes of a newer one: 503, and another process will know."""
    text = seal(b"\x02new", keys=KEYS, purpose="session", name=NAME, nonce=b"n" * NONCE_SIZE)
    with pytest.raises(StoreUnavailable):
        open_record(SessionBox(text), keys=KEYS, name=NAME)


def test_c3_the_largest_session_fits_its_cookies_and_one_octet_more_is_refused() -> None:
    """Never cut: each cookie is one that browsers keep, all of them leave room in a header of 8 KiB."""
    box = sealed(holding(MAX_RECORD))
    assert len(box.values) == MAX_PARTS
    assert all(len(f"{NAME}-2={value}") < MAX_PAIR for value in box.values)
    assert len(request(box)[0][1]) < 7.1 * 1024
    found = read(request(box), CookieNames())
    assert isinstance(found, SessionBox)
    assert open_record(found, keys=KEYS, name=NAME).data == holding(MAX_RECORD).data
    with pytest.raises(InvalidValue, match=str(MAX_RECORD)):
        sealed(holding(MAX_RECORD + 1))


@pytest.mark.parametrize("octets", [300, PART_SIZE * 3 // 4 - 33, PART_SIZE * 3 // 4 - 32, MAX_RECORD - 1])
def test_a_box_takes_as_few_cookies_as_it_can(octets: int) -> None:
    box = sealed(holding(octets))
    assert len(box.values) == (1 if len(box.text) <= PART_SIZE else 2)
    assert read(request(box), CookieNames()) == box
    if len(box.values) == 1:
        assert box.value == box.values[0]
    else:
        with pytest.raises(InvalidValue):
            _ = box.value


ONE, TWO, OTHER = sealed(), sealed(holding(4_000)), sealed(holding(4_000))
FIRST, SECOND = TWO.values


@pytest.mark.parametrize(
    "cookies",
    [
        f"{NAME}={FIRST}",
        f"{NAME}={FIRST}; {NAME}-2=",
        f"{NAME}={FIRST}; {NAME}-2={SECOND}; {NAME}-2={SECOND}",
        f"{NAME}={FIRST}; {NAME}={FIRST}; {NAME}-2={SECOND}",
        f"{NAME}={FIRST}; {NAME}-2={OTHER.values[1]}",
        f"{NAME}={SECOND}; {NAME}-2={FIRST}",
        f"{NAME}={FIRST}; {NAME}-2={SECOND[:-4]}",
        f"{NAME}={FIRST}; {NAME}-2={SECOND}AAAA",
        f"{NAME}={FIRST}; {NAME}-2={SECOND}+A=",
        f"{NAME}={FIRST}; {NAME}-2={'A' * (PART_SIZE + 1)}",
        f"{NAME}=21.{FIRST[3:]}; {NAME}-2={SECOND}",
        f"{NAME}=23.{FIRST[3:]}; {NAME}-2={SECOND}",
        f"{NAME}=20.{ONE.text}",
        f"{NAME}=2.{ONE.text}",
        f"{NAME}=2",
        f"{NAME}={ONE.value}; __Host-seen=1; __Host-seen=2",
        f"{NAME}={ONE.value}".replace("=21", '="21') + '"',
        f"{NAME}=2\xb2.{ONE.text}",
    ],
)
def test_c13_parts_that_are_missing_double_or_mixed_are_refused(cookies: str) -> None:
    """What belongs together is there, all of it, or nothing is read."""

    def opened() -> Record:
        found = read([(b"cookie", cookies.encode("latin-1"))], CookieNames())
        assert isinstance(found, SessionBox)
        return open_record(found, keys=KEYS, name=NAME)

    with pytest.raises((Malformed, BadSignature)):
        opened()


def test_a_part_that_is_left_over_does_not_count() -> None:
    """Of two requests at once one may write a second part, and the other, answered later, not know of it."""
    assert read(request(ONE, f"{NAME}-2={SECOND}"), CookieNames()) == ONE
    assert read(request(ONE, f"{NAME}-2={SECOND}", f"{NAME}-2="), CookieNames()) == ONE


def test_c13_of_three_parts_the_middle_one_cannot_be_missing() -> None:
    with pytest.raises(Malformed):
        SessionBox.parse(FIRST.encode(), [None, SECOND.encode()])


@given(st.binary(max_size=200), st.one_of(st.none(), st.binary(max_size=60)), st.one_of(st.none(), st.binary()))
def test_whatever_octets_come_they_are_ours_or_refused(first: bytes, more: bytes | None, note: bytes | None) -> None:
    try:
        box = SessionBox.parse(b"2" + first, [more], note)
        open_record(box, keys=KEYS, name=NAME)
        raise AssertionError("nobody has sealed that")
    except CredentialError:
        pass
    if note is not None:
        assert read_note(note.decode("latin-1"), RECORD.id, keys=KEYS, name=NAME) == 0


def test_a_note_tells_when_a_session_was_seen_and_counts_for_no_other() -> None:
    """Bound to the session's id and to the cookie's name; with a key that is not the box's."""
    note = write_note(RECORD, key=KEYS[0], name=NAME)
    assert read_note(note, RECORD.id, keys=KEYS, name=NAME) == RECORD.seen_at
    assert read_note(note, RECORD.id, keys=KEYS[::-1], name=NAME) == RECORD.seen_at
    assert read_note(note, "B" * 22, keys=KEYS, name=NAME) == 0
    assert read_note(note, RECORD.id, keys=KEYS, name="other") == 0
    assert read_note(note, RECORD.id, keys=(b"x" * 32,), name=NAME) == 0
    assert read_note(note.replace("2000", "2001"), RECORD.id, keys=KEYS, name=NAME) == 0


def test_no_repr_shows_a_box() -> None:
    box = SessionBox("the-text", "the-note")
    assert "the-" not in repr(box)
    assert MAX_TEXT == MAX_PARTS * PART_SIZE


def test_the_cookies_of_a_sealed_session_follow_the_session_cookie() -> None:
    """And are ours: an application cannot set them by itself."""
    policy = Policy(cookie=Cookie("sid", same_site="Strict"))
    assert [cookie.name for cookie in (*policy.session_cookies, policy.seen_cookie)] == ["sid", "sid-2", "sid-seen"]
    assert {cookie.same_site for cookie in (*policy.session_cookies, policy.seen_cookie)} == {"Strict"}
    assert (policy.cookie_names.more, policy.cookie_names.seen) == ((b"sid-2",), b"sid-seen")
    assert all(policy.owns(name) for name in ("sid-2", "sid-seen"))
    assert (Policy().cookie_names.more, Policy().cookie_names.seen) == (CookieNames().more, CookieNames().seen)
