"""Token Status List: the vectors of the draft, a second implementation, and one bad list per clause."""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core import base64url, jws, status_list
from coatcheck.core.keys import Key, Keyring
from coatcheck.core.status_list import (
    INVALID,
    MAX_OCTETS,
    SUSPENDED,
    VALID,
    StatusList,
    StatusListToken,
)
from coatcheck.errors import (
    BadSignature,
    ConfigurationError,
    CredentialError,
    Expired,
    InvalidValue,
    Malformed,
    WrongClaim,
)

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "status_lists.json").read_text("utf-8"))
URI = "https://auth.example.com/status/1"
NOW = 1_795_000_000
RING = Keyring.generate("Ed25519")
ONE = {3: INVALID, 5: SUSPENDED}
GOOD: dict[str, Any] = {
    "sub": URI,
    "iat": NOW,
    "exp": NOW + 3600,
    "ttl": 300,
    "status_list": {"bits": 2, "lst": status_list.compress(status_list.pack(ONE, bits=2, entries=16))},
}


def bits_of(octets: bytes) -> str:
    """The list as one row of bits, lowest first: as the draft draws it, and not as we compute it."""
    return "".join(f"{octet:08b}"[::-1] for octet in octets)


def read_by_hand(lst: str, bits: int) -> list[int]:
    row = bits_of(zlib.decompress(base64.urlsafe_b64decode(lst + "=" * (-len(lst) % 4))))
    return [int(row[place : place + bits][::-1], 2) for place in range(0, len(row), bits)]


def judged(members: dict[str, Any], *, now: float = NOW, leeway: int = 0) -> StatusListToken:
    return status_list.judge(json.dumps(members).encode(), uri=URI, now=now, leeway=leeway)


def with_list(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "status_list": {**GOOD["status_list"], **changes}}


def squeezed(octets: bytes) -> str:
    return base64url.encode(zlib.compress(octets, 9))


# -- the bitmap


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_r1_the_vectors_of_the_draft_are_read_and_written(vector: dict[str, Any]) -> None:
    """R1: each named entry has its status, every other is 0, and our own list is the same, octet for octet."""
    bits, entries = vector["bits"], vector["entries"]
    statuses = {int(index): status for index, status in vector["statuses"].items()}
    found = status_list.decompress(vector["lst"], bits)
    assert len(found) == entries
    assert {index: found.status(index) for index in statuses} == statuses
    assert bits_of(found.octets).count("1") == sum(status.bit_count() for status in statuses.values())
    ours = status_list.pack(statuses, bits=bits, entries=entries)
    assert ours == found
    assert status_list.decompress(status_list.compress(ours), bits) == ours
    # Another zlib than the one of the draft may write it otherwise, but hardly longer.
    assert len(status_list.compress(ours)) <= len(vector["lst"]) * 1.1 + 8


lists = st.sampled_from([1, 2, 4, 8]).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=200))
)


@settings(max_examples=100, deadline=None)
@given(lists)
def test_r1_any_list_is_what_a_second_implementation_reads(drawn: tuple[Any, list[int]]) -> None:
    bits, statuses = drawn
    packed = status_list.pack(dict(enumerate(statuses)), bits=bits, entries=len(statuses))
    lst = status_list.compress(packed)
    by_hand = read_by_hand(lst, bits)
    assert by_hand[: len(statuses)] == statuses
    assert set(by_hand[len(statuses) :]) <= {VALID}
    found = status_list.decompress(lst, bits)
    assert [found.status(index) for index in range(len(found))] == by_hand


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.binary(max_size=40).map(zlib.compress), st.sampled_from([1, 2, 4, 8]))
def test_r3_any_octets_are_a_list_or_refused(octets: bytes, bits: Any) -> None:
    with suppress(Malformed):
        assert len(status_list.decompress(base64url.encode(octets), bits).octets) > 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_r3_an_index_out_of_range_is_refused(bits: Any) -> None:
    statuses = StatusList(bits, b"\xff\xff")
    assert statuses.status(len(statuses) - 1) == (1 << bits) - 1
    for index in (-1, len(statuses), 2**40):
        with pytest.raises(WrongClaim) as caught:
            statuses.status(index)
        assert caught.value.claim == "status"


@pytest.mark.parametrize(
    ("statuses", "bits", "entries"),
    [
        ({16: 1}, 1, 16),
        ({-1: 1}, 1, 16),
        ({0: 2}, 1, 16),
        ({0: -1}, 8, 16),
        ({0: 256}, 8, 16),
        ({}, 3, 16),
        ({}, 0, 16),
        ({}, 1, 0),
        ({}, 8, MAX_OCTETS + 1),
    ],
)
def test_a_list_that_cannot_be_is_not_made(statuses: dict[int, int], bits: Any, entries: int) -> None:
    with pytest.raises(InvalidValue):
        status_list.pack(statuses, bits=bits, entries=entries)


# -- decompression


def test_r3_a_zlib_bomb_is_refused_before_it_has_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of zeros in some 16 kB is never asked for: the reader is told where to stop."""
    asked: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.inner = decompressobj()

        def decompress(self, data: bytes, max_length: int = 0) -> bytes:
            asked.append(max_length)
            return self.inner.decompress(data, max_length)

        eof = property(lambda self: self.inner.eof)
        unused_data = property(lambda self: self.inner.unused_data)

    decompressobj = zlib.decompressobj
    writer = zlib.compressobj(9)
    bomb = b"".join(writer.compress(bytes(MAX_OCTETS)) for _ in range(16)) + writer.flush()
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(Malformed, match="at most"):
        judged(with_list(lst=base64url.encode(bomb)))
    assert asked == [MAX_OCTETS + 1]


def test_r3_the_largest_list_is_read_and_one_octet_more_is_refused() -> None:
    assert len(status_list.decompress(squeezed(bytes(MAX_OCTETS)), 8)) == MAX_OCTETS
    with pytest.raises(Malformed):
        status_list.decompress(squeezed(bytes(MAX_OCTETS + 1)), 8)


WHOLE = zlib.compress(b"\xb9\xa3", 9)


@pytest.mark.parametrize(
    "lst",
    [
        "",
        "eNrbuRgAAhcBXQ==",
        "eNrbuRgAAhcBXR",
        "eNrb uRgAAhcBXQ",
        base64url.encode(WHOLE[:-1]),
        base64url.encode(WHOLE[:-4] + b"\0\0\0\0"),
        base64url.encode(WHOLE + b"\0"),
        base64url.encode(WHOLE + WHOLE),
        base64url.encode(WHOLE[2:-4]),
        squeezed(b""),
    ],
    ids=[
        "empty",
        "padded",
        "loose bits",
        "space",
        "cut off",
        "wrong sum",
        "more",
        "twice",
        "raw deflate",
        "of nothing",
    ],
)
def test_r3_what_is_not_exactly_one_list_is_refused(lst: str) -> None:
    assert status_list.decompress("eNrbuRgAAhcBXQ", 1).octets == b"\xb9\xa3"
    with pytest.raises(Malformed):
        judged(with_list(lst=lst))


# -- the token


def test_r2_what_we_build_has_these_claims_and_is_judged_good() -> None:
    statuses = status_list.pack(ONE, bits=2, entries=16)
    payload = status_list.build(statuses, uri=URI, issued_at=NOW, lifetime=3600, ttl=300)
    assert json.loads(payload) == GOOD
    found = judged(GOOD)
    assert (found.uri, found.statuses, found.issued_at, found.expires_at) == (URI, statuses, NOW, NOW + 3600)


@pytest.mark.parametrize(
    "changes", [{"uri": ""}, {"uri": "x" * 4000}, {"lifetime": 0}, {"ttl": 0}, {"issued_at": -1}, {"issued_at": 2**60}]
)
def test_what_would_be_refused_elsewhere_is_not_built(changes: dict[str, Any]) -> None:
    statuses = status_list.pack(ONE, bits=2, entries=16)
    arguments: dict[str, Any] = {"uri": URI, "issued_at": NOW, "lifetime": 3600, "ttl": 300}
    assert status_list.build(statuses, **arguments)
    with pytest.raises(InvalidValue):
        status_list.build(statuses, **{**arguments, **changes})
    with pytest.raises(InvalidValue):
        status_list.build(StatusList(1, b""), **arguments)


def test_r2_a_signed_list_is_of_its_own_kind_and_of_its_signer() -> None:
    payload = json.dumps(GOOD).encode()
    signed = status_list.sign(payload, RING.signing_key())
    arguments: dict[str, Any] = {"uri": URI, "now": NOW, "leeway": 0}
    assert jws.parse(signed).header["typ"] == "statuslist+jwt"
    assert status_list.verify(signed, RING, **arguments) == judged(GOOD)
    with pytest.raises(BadSignature):
        status_list.verify(status_list.sign(payload, Key.generate("Ed25519")), RING, **arguments)
    for typ in ("at+jwt", "JWT", "secevent+jwt"):
        with pytest.raises(WrongClaim) as caught:
            status_list.verify(jws.sign(payload, RING.signing_key(), typ=typ), RING, **arguments)
        assert caught.value.claim == "typ"


BROKEN: dict[str, tuple[type[CredentialError], str, dict[str, Any]]] = {
    "another list": (WrongClaim, "sub", {**GOOD, "sub": URI + "/"}),
    "from the future": (WrongClaim, "iat", {**GOOD, "iat": NOW + 1}),
    "expired": (Expired, "", {**GOOD, "exp": NOW}),
    "a ttl of nothing": (WrongClaim, "ttl", {**GOOD, "ttl": 0}),
    "a ttl of no fraction": (WrongClaim, "ttl", {**GOOD, "ttl": 0.0}),
    "a ttl before now": (WrongClaim, "ttl", {**GOOD, "ttl": -1}),
    "a ttl that is text": (WrongClaim, "ttl", {**GOOD, "ttl": "300"}),
    "a ttl that is null": (WrongClaim, "ttl", {**GOOD, "ttl": None}),
    "an exp that is true": (WrongClaim, "exp", {**GOOD, "exp": True}),
    "three bits": (WrongClaim, "status_list", with_list(bits=3)),
    "sixteen bits": (WrongClaim, "status_list", with_list(bits=16)),
    "bits that are text": (WrongClaim, "status_list", with_list(bits="2")),
    "bits that are true": (WrongClaim, "status_list", with_list(bits=True)),
    "a list that is a number": (WrongClaim, "status_list", with_list(lst=1)),
    "no bits": (WrongClaim, "status_list", {**GOOD, "status_list": {"lst": GOOD["status_list"]["lst"]}}),
    "no list": (WrongClaim, "status_list", {**GOOD, "status_list": {"bits": 2}}),
    "no base64url": (Malformed, "", with_list(lst="+/+/")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_r3_a_list_with_one_broken_clause_is_refused_for_that_clause(name: str) -> None:
    kind, claim, members = BROKEN[name]
    assert judged(GOOD).uri == URI
    with pytest.raises(kind) as caught:
        judged(members)
    assert getattr(caught.value, "claim", "") == claim


@pytest.mark.parametrize("name", ["sub", "iat", "exp", "status_list"])
def test_r3_a_required_claim_cannot_be_missing_or_null(name: str) -> None:
    for members in ({k: v for k, v in GOOD.items() if k != name}, {**GOOD, name: None}):
        with pytest.raises(WrongClaim) as caught:
            judged(members)
        assert caught.value.claim == name


def test_members_that_nobody_knows_are_ignored() -> None:
    assert judged({**with_list(aggregation_uri="https://auth.example.com/status"), "iss": "x"}) == judged(GOOD)


def test_j15_a_member_named_twice_is_refused() -> None:
    with pytest.raises(Malformed):
        status_list.judge(
            json.dumps(GOOD).encode().replace(b'"bits"', b'"bits": 1, "bits"'), uri=URI, now=NOW, leeway=0
        )


@pytest.mark.parametrize("leeway", [-1, 61])
def test_j13_a_leeway_out_of_bounds_is_a_mistake_of_the_caller(leeway: int) -> None:
    with pytest.raises(ConfigurationError):
        judged(GOOD, leeway=leeway)


def test_the_leeway_is_granted_to_its_end() -> None:
    assert judged(GOOD, now=NOW - 60, leeway=60).issued_at == NOW
    assert judged({**GOOD, "exp": NOW - 59}, leeway=60).fresh_until == NOW + 1
    for now, exp in ((NOW - 61, NOW + 3600), (NOW, NOW - 60), (float("nan"), NOW + 3600)):
        with pytest.raises((WrongClaim, Expired)):
            judged({**GOOD, "exp": exp}, now=now, leeway=60)
