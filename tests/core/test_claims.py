"""The claims of an access token: built by RFC 9068, judged claim by claim, and never half right."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck.core import claims, strict_json
from coatcheck.core.claims import Claims, Principal, build_access_token, judge
from coatcheck.errors import (
    ConfigurationError,
    CredentialError,
    Expired,
    InvalidValue,
    Malformed,
    WrongClaim,
)

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ISSUER, AUDIENCE = "https://auth.example.com", "https://api.example.com"
NOW = 1_795_000_000
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "user-1",
    "aud": AUDIENCE,
    "exp": NOW + 900,
    "iat": NOW,
    "jti": "token-1",
    "client_id": "first-party",
    "sid": "session-1",
}
REFUSALS = (WrongClaim, Malformed, Expired)


def judged(members: dict[str, Any] | bytes, *, now: float = NOW, leeway: int = 0) -> Claims:
    payload = members if isinstance(members, bytes) else json.dumps(members).encode()
    return judge(payload, issuer=ISSUER, audience=AUDIENCE, now=now, leeway=leeway)


def built(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "subject": "user-1",
        "client_id": "first-party",
        "session_id": "session-1",
        "token_id": "token-1",
        "issued_at": NOW,
        "lifetime": 900,
    }
    return build_access_token(**{**arguments, **changes})


def test_j20_what_we_build_has_every_claim_of_rfc_9068_and_is_judged_good() -> None:
    payload = built(
        scope="read write", auth_time=NOW - 60, amr=["pwd", "otp"], acr="aal2", confirmation={"jkt": "thumb"}
    )
    assert set(json.loads(payload)) == {*GOOD, "scope", "auth_time", "amr", "acr", "cnf"}
    found = judged(payload)
    assert (found.iss, found.sub, found.aud, found.exp, found.iat) == (ISSUER, "user-1", AUDIENCE, NOW + 900, NOW)
    assert (found.jti, found.client_id, found.sid, found.acr) == ("token-1", "first-party", "session-1", "aal2")
    assert found.principal() == Principal(
        subject="user-1",
        session_id="session-1",
        scopes=("read", "write"),
        auth_time=NOW - 60,
        amr=("pwd", "otp"),
        confirmation={"jkt": "thumb"},
    )


def test_a_plain_token_has_the_required_claims_only() -> None:
    assert json.loads(built()) == GOOD
    assert judged(built()).principal() == Principal(subject="user-1", session_id="session-1")


def test_what_we_build_is_read_without_a_second_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own tokens take the short way, or verifying would cost twice as much; foreign spellings do not."""
    calls: list[bytes] = []

    def counted(data: bytes) -> dict[str, Any]:
        calls.append(data)
        return loads(data)

    loads = strict_json.loads
    monkeypatch.setattr(strict_json, "loads", counted)
    full = built(scope="a", auth_time=NOW, amr=["pwd"], acr="x", confirmation={"jkt": "x"}, audience=[AUDIENCE, "b"])
    judged(built())
    judged(full)
    assert calls == []
    judged(full + b" ")
    assert calls == [full + b" "]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_j20_a_required_claim_cannot_be_missing_or_null(name: str) -> None:
    """One claim missing per line; `sid` is our own demand."""
    for members in ({k: v for k, v in GOOD.items() if k != name}, {**GOOD, name: None}):
        with pytest.raises(WrongClaim) as caught:
            judged(members)
        assert caught.value.claim == name


@pytest.mark.parametrize("name", ["scope", "auth_time", "amr", "acr", "cnf", "nbf"])
def test_an_optional_claim_may_be_missing_but_not_null(name: str) -> None:
    with pytest.raises(WrongClaim) as caught:
        judged({**GOOD, name: None})
    assert caught.value.claim == name


@pytest.mark.parametrize(
    "issuer",
    [ISSUER + "/", ISSUER[:-1], ISSUER.upper(), "https://auth.example.com:443", "", " " + ISSUER, [ISSUER], 5, {}],
)
def test_j12_iss_is_the_very_string(issuer: Any) -> None:
    with pytest.raises(WrongClaim) as caught:
        judged({**GOOD, "iss": issuer})
    assert caught.value.claim == "iss"


@pytest.mark.parametrize(
    "audience",
    [
        AUDIENCE + "/",
        AUDIENCE[:-1],
        AUDIENCE.upper(),
        "",
        [],
        [AUDIENCE + "/"],
        [[AUDIENCE]],
        [AUDIENCE, 5],
        5,
        {AUDIENCE: 1},
    ],
)
def test_j12_aud_is_the_very_string_or_a_list_that_holds_it(audience: Any) -> None:
    with pytest.raises(WrongClaim) as caught:
        judged({**GOOD, "aud": audience})
    assert caught.value.claim == "aud"


def test_j12_aud_may_be_a_list() -> None:
    assert judged({**GOOD, "aud": ["other", AUDIENCE]}).aud == ("other", AUDIENCE)
    assert judged(built(audience=["other", AUDIENCE])).aud == ("other", AUDIENCE)


@pytest.mark.parametrize("name", ["sub", "client_id", "jti", "sid"])
@pytest.mark.parametrize("value", ["", "x" * 256, 5, True, ["a"], {"a": "b"}])
def test_j12_names_are_strings_of_1_to_255_characters(name: str, value: Any) -> None:
    with pytest.raises(WrongClaim) as caught:
        judged({**GOOD, name: value})
    assert caught.value.claim == name
    judged({**GOOD, name: "x" * 255})


TIMES = ["exp", "iat", "nbf", "auth_time"]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "value",
    [b'"1795000900"', b"true", b"false", b"[1]", b"{}", b"-1", b"-0.5", b"1e300", b"253402300800", b"9" * 40,
     b"9" * 5000, b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x10", b"01", b"1.", b"+1"],
)  # fmt: skip
def test_j13_times_are_numbers_within_bounds(name: str, value: bytes) -> None:
    """Strings, booleans, NaN, infinities, negative and absurd numbers are refused for every time."""
    text = json.dumps({k: v for k, v in GOOD.items() if k != name}).encode()[:-1]
    with pytest.raises(REFUSALS):
        judged(text + b',"' + name.encode() + b'":' + value + b"}")


def test_j13_fractions_and_exponents_are_numbers_too() -> None:
    found = judged({**GOOD, "exp": NOW + 0.5, "iat": NOW - 0.5, "auth_time": NOW - 1.5})
    assert found.principal().auth_time == NOW - 2
    judged(json.dumps(GOOD).encode().replace(str(NOW + 900).encode(), b"1.7950009e9"))


@pytest.mark.parametrize("leeway", [0, 1, 30, 60])
def test_j13_both_sides_of_every_limit_are_exact(leeway: int) -> None:
    """A token dies at `exp` + leeway, lives from `nbf` - leeway, and may be issued up to leeway ahead."""
    judged(GOOD, now=NOW + 899 + leeway, leeway=leeway)
    for now in (NOW + 900 + leeway, NOW + 901 + leeway):
        with pytest.raises(Expired):
            judged(GOOD, now=now, leeway=leeway)
    for name, error in (("nbf", Expired), ("iat", WrongClaim), ("auth_time", WrongClaim)):
        judged({**GOOD, name: NOW + leeway}, leeway=leeway)
        with pytest.raises(error):
            judged({**GOOD, name: NOW + leeway + 1}, leeway=leeway)


@pytest.mark.parametrize("leeway", [-1, 61, 3600])
def test_j13_a_leeway_over_a_minute_is_a_mistake_of_the_caller(leeway: int) -> None:
    with pytest.raises(ConfigurationError):
        judged(GOOD, leeway=leeway)


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_j13_a_broken_clock_refuses(now: float) -> None:
    with pytest.raises(CredentialError):
        judged(GOOD, now=now)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scope", ["read"]), ("scope", 5), ("amr", "pwd"), ("amr", [1]), ("acr", 2), ("acr", ["a"]),
        ("cnf", "thumb"), ("cnf", {}), ("cnf", {"jwk": {"kty": "EC"}}), ("cnf", [1]),
    ],
)  # fmt: skip
def test_types_of_optional_claims_are_strict(name: str, value: Any) -> None:
    """An empty `cnf` would be bound to nothing, and one with a whole key is none that we make."""
    with pytest.raises(WrongClaim) as caught:
        judged({**GOOD, name: value})
    assert caught.value.claim == name


def test_further_claims_are_kept_in_extra() -> None:
    assert judged({**GOOD, "roles": ["a"], "extra": 5}).extra == {"roles": ["a"], "extra": 5}
    assert judged(built(extra={"roles": ["a"], "deep": {"a": [1]}})).extra == {"roles": ["a"], "deep": {"a": [1]}}
    assert judged({**GOOD, "": {}}).extra == {"": {}}
    assert judged(GOOD).extra == {}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_j15_a_claim_that_comes_twice_is_refused(name: str) -> None:
    """Whichever comes first, the same value or another, plain or escaped: parsers would disagree."""
    text = built()
    member = f'"{name}":{json.dumps(GOOD[name])}'.encode()
    escaped = f'"\\u{ord(name[0]):04x}{name[1:]}":{json.dumps(GOOD[name])}'.encode()
    for extra in (member, escaped, f'"{name}":1'.encode(), f'"{name}":"x"'.encode()):
        for doubled in (text[:-1] + b"," + extra + b"}", b"{" + extra + b"," + text[1:]):
            with pytest.raises(REFUSALS):
                judged(doubled)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", b"[]", b"null", b"5", b'"text"', b"{", b"{}{}", b"\x00",
        b"\xef\xbb\xbf" + built(),
        built().decode().encode("utf-16"),
        built()[:-1] + b',"a":"\xff"}',
        built()[:-1] + b',"a":"\\ud800"}',
        built()[:-1] + b',"\\udc00":1}',
        built()[:-1] + b',"a":"\xed\xa0\x80"}',
        built()[:-1] + b',"a":NaN}',
        built()[:-1] + b',"a":1e999}',
        built()[:-1] + b',"a":{"b":1,"b":2}}',
        built()[:-1] + b',"a":[{"b":1,"b":2}]}',
        built()[:-1] + b',"a":' + b"[" * 17 + b"]" * 17 + b"}",
        built()[:-1] + b',"a":' + b"[" * 9000 + b"]" * 9000 + b"}",
        built()[:-1] + b',"a":' + b'{"a":' * 9000,
        built()[:-1] + b',"a":' + b"9" * 5000 + b"}",
        built() + b" " * 70_000,
        built()[:-1] + b",}",
        built().replace(b'"', b"'"),
    ],
)  # fmt: skip
def test_j15_a_payload_is_one_strict_json_object(text: bytes) -> None:
    """UTF-8 without a mark, no NaN, nothing twice at any depth, bounded depth and size, an object."""
    with pytest.raises(REFUSALS):
        judged(text)


def test_white_space_and_order_do_not_matter() -> None:
    judged(json.dumps(dict(reversed(GOOD.items())), indent=3).encode() + b"\n")


def test_j22_a_subject_is_never_the_client_itself() -> None:
    with pytest.raises(InvalidValue, match="J22"):
        built(subject="first-party")


def test_j20_the_audience_is_never_the_client_itself() -> None:
    for audience in ("first-party", [AUDIENCE, "first-party"]):
        with pytest.raises(InvalidValue, match="J20"):
            built(audience=audience)


@pytest.mark.parametrize(
    "change",
    [
        {"subject": ""}, {"subject": "x" * 256}, {"subject": None}, {"subject": 5}, {"subject": "\ud800"},
        {"issuer": ""}, {"audience": ""}, {"audience": []}, {"audience": [AUDIENCE, ""]}, {"audience": [5]},
        {"session_id": ""}, {"token_id": ""}, {"client_id": ""}, {"client_id": "x" * 256},
        {"lifetime": 0}, {"lifetime": -5}, {"issued_at": -1000}, {"issued_at": 10**15},
        {"scope": " a"}, {"scope": "a  b"}, {"scope": "a\nb"}, {"scope": 'a"b'}, {"scope": "é"},
        {"amr": [5]}, {"acr": 5}, {"confirmation": {}}, {"confirmation": {"jkt": 5}}, {"auth_time": -1},
        {"extra": {"sub": "other"}}, {"extra": {"scope": "more"}}, {"extra": {"a": object()}},
        {"extra": {"a": "\ud800"}},
        {"extra": {"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}, {"extra": {"": {"a": 1}}},
    ],
)  # fmt: skip
def test_j20_what_cannot_be_judged_good_is_not_built(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        built(**change)


def test_j14_the_kinds_of_token_have_different_names() -> None:
    names = [name.lower() for name in claims.TYPES.values()]
    assert len(set(names)) == len(names)
    assert {"at+jwt", "logout+jwt", "dpop+jwt", "dbsc+jwt", "secevent+jwt", "statuslist+jwt"} <= set(names)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = [*GOOD, *claims.__dict__["_FIELDS"], "", "extra", "other"]


@unhurried
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3), st.sets(st.sampled_from(NAMES), max_size=1))
def test_j17_any_claims_are_judged_good_or_give_our_error(change: dict[str, Any], drop: set[str]) -> None:
    """What passes satisfies every rule of the table, checked here a second time."""
    members = {name: value for name, value in {**GOOD, **change}.items() if name not in drop}
    try:
        found = judged(members)
    except REFUSALS:
        return
    assert found.iss == ISSUER
    assert found.aud == AUDIENCE or AUDIENCE in found.aud
    for name in ("sub", "jti", "client_id", "sid"):
        assert isinstance(members[name], str)
        assert 1 <= len(members[name]) <= 255
    for name in set(TIMES) & members.keys():
        assert type(members[name]) in (int, float)
    assert found.exp > NOW
    assert max(found.iat, found.nbf or 0, found.auth_time or 0) <= NOW


@unhurried
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_j17_any_bytes_as_payload_give_our_error(data: bytes) -> None:
    with pytest.raises(REFUSALS):
        judged(data)


# -- strict_json


@unhurried
@given(JSON)
def test_strict_json_agrees_with_the_standard_library(value: Any) -> None:
    text = json.dumps({"value": value})
    try:
        found = strict_json.loads(text.encode("utf-8", "surrogatepass"))
    except Malformed:
        assert "NaN" in text or "Infinity" in text
    else:
        assert found == json.loads(text)


@unhurried
@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 9)), min_size=1, max_size=5), st.booleans())
def test_j15_strict_json_takes_an_object_exactly_if_its_names_differ(
    pairs: list[tuple[str, int]], escaped: bool
) -> None:
    """Escaped or not, short way or long way, at the top or inside."""
    names = [name for name, _ in pairs]
    inner = "{" + ",".join(f"{json.dumps(name, ensure_ascii=escaped)}:{value}" for name, value in pairs) + "}"
    for text in (inner, f'{{"a":[{inner}]}}'):
        try:
            strict_json.loads(text.encode("utf-8", "surrogatepass"))
        except Malformed:
            assert len(set(names)) < len(names)
        else:
            assert len(set(names)) == len(names)


@unhurried
@given(st.binary())
def test_j17_strict_json_gives_an_object_or_our_error(data: bytes) -> None:
    with suppress(Malformed):
        assert isinstance(strict_json.loads(data), dict)
