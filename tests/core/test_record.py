"""Record, Changes and Session: what is stored, how edits replay, and when a session is dead."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.core.credentials import SessionCookie
from coatcheck.core.record import Changes, Device, Record, digest, pack, require_subject, unpack
from coatcheck.core.session import Session
from coatcheck.errors import BadSignature, Expired, InvalidValue, Missing, StoreUnavailable, Superseded

COOKIE = SessionCookie("A" * 22, b"s" * 32)
NOW = 1_800_000_000_000
MINUTE = 60_000

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


def record(**changes: Any) -> Record:
    begun = Record.begin(
        COOKIE,
        "ann",
        now=NOW,
        began_at=NOW,
        idle=30 * MINUTE,
        absolute=600 * MINUTE,
        amr=("pwd",),
        scopes=(),
        persistent=False,
        device=Device("a browser", "::1"),
        data={},
    )
    return msgspec.structs.replace(begun, **changes)


def test_s2_a_dump_of_the_store_signs_nobody_in() -> None:
    """Of the cookie's secret only a hash is stored."""
    stored = record().encode()
    assert COOKIE.secret not in stored
    assert digest(COOKIE.secret) in stored


def test_s6_the_idle_timeout_is_the_servers() -> None:
    """At idle + 1 the session is dead, whatever the cookie says; being seen starts the timeout anew."""
    begun = record()
    begun.judge(COOKIE.secret, NOW + 30 * MINUTE - 1)
    with pytest.raises(Expired):
        begun.judge(COOKIE.secret, NOW + 30 * MINUTE)
    begun.seen(NOW + 20 * MINUTE).judge(COOKIE.secret, NOW + 49 * MINUTE)


def test_s7_the_absolute_timeout_is_not_extended_by_use() -> None:
    """A session seen every minute still dies at its absolute limit."""
    used = record()
    for minute in range(600):
        used.judge(COOKIE.secret, NOW + minute * MINUTE)
        used = used.seen(NOW + minute * MINUTE)
    with pytest.raises(Expired):
        used.judge(COOKIE.secret, NOW + 600 * MINUTE)


def test_s7_reauthentication_resets_both_timeouts() -> None:
    """Proving who you are again starts the absolute and the idle timeout anew."""
    later = NOW + 500 * MINUTE
    again = record().seen(later).reauthenticated(later, 600 * MINUTE, amr=("pwd", "otp"), scopes=(), persistent=False)
    again.seen(NOW + 1090 * MINUTE).judge(COOKIE.secret, NOW + 1099 * MINUTE)
    assert again.amr == ("pwd", "otp")


def test_the_wrong_secret_is_refused_before_anything_else_is_told() -> None:
    """Without the secret nobody learns whether the session has expired."""
    for now in (NOW, NOW + 10_000 * MINUTE):
        with pytest.raises(BadSignature):
            record().judge(b"x" * 32, now)


def test_a_replaced_id_is_dead_at_once() -> None:
    """The stump of a rotation authenticates nobody."""
    with pytest.raises(Superseded):
        record().superseded("B" * 22, NOW + MINUTE).judge(COOKIE.secret, NOW)


def test_the_clock_going_back_moves_nothing_back() -> None:
    """P7: seen_at and expires_at only grow."""
    begun = record()
    assert begun.seen(NOW - MINUTE) == begun


@given(plain)
def test_plain_data_comes_back_as_it_went_in(value: Any) -> None:
    """What `pack` takes, `unpack` returns."""
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        {1, 2},
        datetime.datetime(2026, 1, 1),
        2**64,
        -(2**63) - 1,
        "\ud800",
        [[object()]],
        bytearray(b"x"),
    ],
    ids=lambda value: type(value).__name__,  # a repr may hold an address, and so be another one in each process
)
def test_what_is_not_plain_is_refused(value: Any) -> None:
    """Nothing is stored that would come back as something else."""
    with pytest.raises(InvalidValue):
        pack(value)


def test_objects_that_look_like_data_are_refused() -> None:
    """A dataclass, a str subclass or a bool subclass would come back as another type."""

    @dataclasses.dataclass
    class Point:
        x: int = 1

    class Name(str):
        __slots__ = ()

    for value in (Point(), Name("ann"), [Name("ann")]):
        with pytest.raises(InvalidValue):
            pack(value)


def test_nesting_is_bounded() -> None:
    """P9: a list in a list in a list ... is refused with the limit named, never a RecursionError."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidValue, match="32"):
        pack(value)


@given(st.binary())
def test_any_stored_bytes_are_a_record_or_a_clear_error(stored: bytes) -> None:
    """Damaged storage is 'store damaged', never a foreign exception."""
    for read in (Record.decode, unpack):
        try:
            read(stored)
        except StoreUnavailable as error:
            assert "damaged" in str(error)


def test_the_format_has_a_version_byte() -> None:
    """A record of a newer format is not guessed at."""
    assert Record.decode(record().encode()) == record()
    with pytest.raises(StoreUnavailable):
        Record.decode(b"\x02" + record().encode()[1:])


@given(st.dictionaries(st.text(), st.binary()), st.lists(st.tuples(st.text(max_size=2), st.none() | st.binary())))
def test_changes_replay_like_the_edits_they_record(
    data: dict[str, bytes], edits: list[tuple[str, bytes | None]]
) -> None:
    """Applying recorded changes gives what making the edits one by one gives."""
    changes, expected = Changes(), dict(data)
    for key, value in edits:
        if value is None:
            changes.delete(key)
            expected.pop(key, None)
        else:
            changes.write(key, value)
            expected[key] = value
    assert changes.apply(data) == expected
    assert changes.apply(changes.apply(data)) == expected


def test_p3_what_was_deleted_stays_deleted() -> None:
    """A delete replays onto what somebody else wrote meanwhile; so does clear."""
    changes = Changes()
    changes.delete("a")
    assert changes.apply({"a": b"1", "b": b"2"}) == {"b": b"2"}
    changes.clear()
    changes.write("c", b"3")
    assert changes.apply({"a": b"1", "b": b"2"}) == {"c": b"3"}


class TestSession:
    """The mapping that handlers hold."""

    def session(self, **data: Any) -> Session:
        return Session(record(data={key: pack(value) for key, value in data.items()}))

    def test_reading_changes_nothing(self) -> None:
        """A session that was only read has no edits, however deep its values are."""
        session = self.session(cart=[1, {"a": 2}], n=1)
        assert session["cart"] == [1, {"a": 2}]
        assert dict(session) == {"cart": [1, {"a": 2}], "n": 1}
        assert not session.pending()

    def test_a_value_changed_in_place_counts_as_written(self) -> None:
        """`session["cart"].append(x)` is saved."""
        session = self.session(cart=[1])
        session["cart"].append(2)
        assert unpack(session.pending().written["cart"]) == [1, 2]

    def test_a_value_changed_after_it_was_set_counts_as_written(self) -> None:
        """The list that was put in is the list that is saved."""
        session = self.session()
        cart = [1]
        session["cart"] = cart
        cart.append(2)
        assert unpack(session.pending().written["cart"]) == [1, 2]
        cart.append(3)
        assert unpack(session.pending().written["cart"]) == [1, 2, 3]

    def test_a_value_that_was_replaced_or_removed_counts_no_more(self) -> None:
        """Whoever still holds the list, and appends to it, changes nothing."""
        session = self.session(cart=[1], old=[1])
        carts = [session["cart"], session["old"]]
        session["cart"] = 0
        del session["old"]
        for cart in carts:
            cart.append(2)
        assert dict(session) == {"cart": 0}
        assert session.pending().apply({"cart": pack([1]), "old": pack([1])}) == {"cart": pack(0)}

    def test_a_value_only_read_never_overwrites_what_somebody_else_wrote(self) -> None:
        """After a save that merged another's write, a list read before it is not written back."""
        session = self.session(cart=[1])
        assert session["cart"] == [1]
        session["n"] = 1
        session.pending()
        session.become(record(data={"cart": pack([1, 2]), "n": pack(1)}))
        assert not session.pending()

    def test_asking_for_a_key_counts_as_looking(self) -> None:
        """C18: `in`, `len`, `get` and iteration make the answer depend on the cookie."""
        looks: list[Callable[[Session], object]] = [
            lambda s: "a" in s,
            len,
            list,
            bool,
            lambda s: s.get("a"),
            lambda s: s.setdefault("a", 1),
            lambda s: s.pop("a", None),
        ]
        for look in looks:
            session = self.session()
            assert not session.accessed
            look(session)
            assert session.accessed

    def test_deleting_what_is_not_there_is_a_key_error(self) -> None:
        """It is a mapping like any other."""
        with pytest.raises(KeyError):
            del self.session()["a"]

    def test_keys_are_strings(self) -> None:
        """A key of another type would come back as another key."""
        with pytest.raises(InvalidValue):
            self.session()[1] = 2  # type: ignore[index]

    def test_a_detached_session_refuses_to_be_written(self) -> None:
        """A request that came with a token has no session at hand, and says so instead of losing the write."""
        with pytest.raises(Missing, match="load_session"):
            Session.detached()["a"] = 1

    def test_repr_shows_no_data_and_no_secret(self) -> None:
        """S17: a session in a log line gives nothing away."""
        shown = repr(Session(record(data={"k": pack("top secret")}), COOKIE))
        assert "top secret" not in shown
        assert "sss" not in shown


@pytest.mark.parametrize("subject", ["", "a" * 256, "a\nb", "first-party", "a\x00"])
def test_j22_subjects_that_cannot_be_one(subject: str) -> None:
    """Empty, long, unprintable, or called like the client: refused."""
    with pytest.raises(InvalidValue):
        require_subject(subject, "first-party")


@given(st.integers(-MINUTE, 700 * MINUTE), st.integers(-MINUTE, 700 * MINUTE), st.integers(0, 40 * MINUTE))
def test_an_edit_counts_as_use(seen: int, now: int, longer: int) -> None:
    """Also by a clock that went back, and where somebody has moved the idle timeout further already."""
    seen_at, data = NOW + seen, {"a": pack(1)}
    before = record(seen_at=seen_at, expires_at=seen_at + longer, version=7)
    assert before.edited(data, NOW + now) == msgspec.structs.replace(before.seen(NOW + now), data=data, version=8)


def test_what_is_deleted_while_a_save_is_under_way_stays_deleted() -> None:
    changes = Changes()
    changes.write("mine", pack(1))
    changes.delete("old")
    saved = changes.copy()
    changes.delete("older")
    assert changes.since(saved).apply({"mine": pack(1), "older": pack(2)}) == {"mine": pack(1)}
    changes.delete("mine")
    assert changes.since(saved).apply({"mine": pack(1), "older": pack(2)}) == {}


def test_what_is_cleared_while_a_save_is_under_way_stays_cleared() -> None:
    changes = Changes()
    changes.write("mine", pack(1))
    saved = changes.copy()  # on its way to the store
    changes.clear()
    changes.write("later", pack(2))
    stored = {**saved.apply({}), "others": pack(3)}
    assert changes.since(saved).apply(stored) == {"later": pack(2)}
