"""Token Status List: from a token to its status, and which index a token is given."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from typing import Any

import pytest

from coatcheck.core import jws, status_list
from coatcheck.core.claims import Claims
from coatcheck.core.keys import Key
from coatcheck.core.status_list import (
    INVALID,
    LEAST_OCTETS,
    MAX_OCTETS,
    SUSPENDED,
    Reference,
    StatusList,
    StatusListToken,
)
from coatcheck.errors import Expired, InvalidValue, Revoked, WrongClaim

URI = "https://auth.example.com/status/1"
NOW = 1_795_000_000
KEY = b"k" * 32
GOOD: dict[str, Any] = {
    "sub": URI,
    "iat": NOW,
    "exp": NOW + 3600,
    "ttl": 300,
    "status_list": {"bits": 2, "lst": status_list.compress(status_list.pack({3: INVALID}, bits=2, entries=16))},
}


def judged(members: dict[str, Any], *, now: float = NOW) -> StatusListToken:
    return status_list.judge(json.dumps(members).encode(), uri=URI, now=now, leeway=0)


# -- the referenced token


def claims(extra: dict[str, Any]) -> Claims:
    return Claims(iss="i", sub="alice", aud="a", jti="t", client_id="c", sid="s", exp=NOW + 900, iat=NOW, extra=extra)


def test_r3_a_reference_is_taken_from_judged_claims_only() -> None:
    found = status_list.reference(claims({"status": {"status_list": {"idx": 3, "uri": URI}}}))
    assert found == Reference(3, URI)
    assert status_list.reference(claims({})) is None
    assert status_list.reference(claims({"status": {"another_way": {}}})) is None


@pytest.mark.parametrize(
    "status",
    [
        None,
        "revoked",
        [],
        {"status_list": None},
        {"status_list": {"uri": URI}},
        {"status_list": {"idx": 3}},
        {"status_list": {"idx": -1, "uri": URI}},
        {"status_list": {"idx": 2**40, "uri": URI}},
        {"status_list": {"idx": "3", "uri": URI}},
        {"status_list": {"idx": True, "uri": URI}},
        {"status_list": {"idx": 3, "uri": ""}},
    ],
)
def test_r3_a_reference_that_cannot_be_read_is_refused(status: Any) -> None:
    with pytest.raises(WrongClaim) as caught:
        status_list.reference(claims({"status": status}))
    assert caught.value.claim == "status"


def test_r3_only_valid_is_valid() -> None:
    """What is not VALID is refused, known or not; and so is what cannot be decided."""
    every = status_list.pack({1: INVALID, 2: SUSPENDED, 3: 3}, bits=2, entries=4)
    found = judged({**GOOD, "status_list": {"bits": 2, "lst": status_list.compress(every)}})
    found.require_valid(Reference(0, URI), now=NOW)
    for index in (1, 2, 3):
        with pytest.raises(Revoked):
            found.require_valid(Reference(index, URI), now=NOW)
    with pytest.raises(WrongClaim):
        found.require_valid(Reference(4, URI), now=NOW)
    with pytest.raises(WrongClaim):
        found.require_valid(Reference(0, URI + "2"), now=NOW)


@pytest.mark.parametrize(
    ("members", "last"),
    [
        (GOOD, NOW + 300),
        ({**GOOD, "ttl": 7200}, NOW + 3600),
        ({**GOOD, "ttl": 0.5}, NOW + 0.5),
        ({k: v for k, v in GOOD.items() if k != "ttl"}, NOW + 3600),
    ],
)
def test_r3_a_list_is_used_no_longer_than_ttl_and_exp(members: dict[str, Any], last: float) -> None:
    found = judged(members)
    found.require_valid(Reference(0, URI), now=last - 0.25)
    for late in (last, last + 1, float("nan")):
        with pytest.raises(Expired):
            found.require_valid(Reference(0, URI), now=late)


# -- indexes


def test_r4_no_index_comes_twice_and_they_show_no_order() -> None:
    """Of 10 000, no two are the same; half of the steps go up, and neighbours are far apart."""
    entries = status_list.room(10_000, 1)
    found = [status_list.nth_index(KEY, n, entries) for n in range(10_000)]
    assert len(set(found)) == len(found)
    assert 0 <= min(found) < max(found) < entries
    steps = [after - before for before, after in pairwise(found)]
    assert 0.47 < sum(step > 0 for step in steps) / len(steps) < 0.53
    assert len(set(steps)) > 9_000
    assert sum(map(abs, steps)) / len(steps) == pytest.approx(entries / 3, rel=0.05)
    assert found[:50] != [status_list.nth_index(b"l" * 32, n, entries) for n in range(50)]


@pytest.mark.parametrize("width", range(2, 12))
def test_r4_every_index_of_a_list_comes_exactly_once(width: int) -> None:
    entries = 1 << width
    assert sorted(status_list.nth_index(KEY, n, entries) for n in range(entries)) == list(range(entries))


@pytest.mark.parametrize("width", [12, 13])
def test_r4_no_bit_of_an_index_says_whether_a_token_is_early_or_late(width: int) -> None:
    """Each bit is set in about half of the indexes of the first half of the tokens, as in those of the second."""
    entries = 1 << width
    early = [status_list.nth_index(KEY, n, entries) for n in range(entries // 2)]
    for bit in range(width):
        assert 0.45 < sum(index >> bit & 1 for index in early) / len(early) < 0.55


@pytest.mark.parametrize(("n", "entries"), [(-1, 16), (16, 16), (0, 0), (0, 2), (0, 12), (0, -16)])
def test_r4_a_full_list_has_no_index_left(n: int, entries: int) -> None:
    with pytest.raises(InvalidValue):
        status_list.nth_index(KEY, n, entries)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_r4_a_list_is_never_small_and_has_room(bits: Any) -> None:
    least = LEAST_OCTETS * 8 // bits
    most = MAX_OCTETS * 8 // bits
    sizes = {0: least, 1: least, least: least, least + 1: 2 * least, 2 * least + 1: 4 * least, most: most}
    assert {entries: status_list.room(entries, bits) for entries in sizes} == sizes
    with pytest.raises(InvalidValue):
        status_list.room(most + 1, bits)
    with pytest.raises(InvalidValue):
        status_list.room(1, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["RS256", "Ed25519"])
def test_a_list_of_the_least_size_fits_into_a_token_whatever_it_says(algorithm: str) -> None:
    """No zlib makes noise smaller; noise here is a keystream, so that every run has the same."""
    noise = b"".join(status_list.nth_index(KEY, n, 1 << 32).to_bytes(4, "big") for n in range(LEAST_OCTETS // 4))
    assert len(zlib.compress(noise, 9)) > LEAST_OCTETS
    uri = "https://auth.example.com/" + "s" * 200
    payload = status_list.build(StatusList(1, noise), uri=uri, issued_at=NOW, lifetime=3600, ttl=300)
    assert len(status_list.sign(payload, Key.generate(algorithm))) <= jws.MAX_TOKEN
