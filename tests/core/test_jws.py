"""Compact JWS: one shape, one algorithm for each key, nothing from the header but what it may say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coatcheck
from coatcheck.core import base64url, jws
from coatcheck.core.claims import TYPES
from coatcheck.core.keys import Key, Keyring
from coatcheck.errors import BadSignature, ConfigurationError, CredentialError, InvalidValue, Malformed, WrongClaim

# A slow machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ALGS = ("HS256", "RS256", "ES256", "Ed25519")
KEYS = {alg: Key.generate(alg) for alg in ALGS}
RINGS = {alg: Keyring(key, secret=None) for alg, key in KEYS.items()}
KEY, RING = KEYS["Ed25519"], RINGS["Ed25519"]
PAYLOAD = b'{"sub":"user-1","a":">>>???"}'
HEADER = {"alg": KEY.alg, "kid": KEY.kid, "typ": "at+jwt"}


def fresh() -> Keyring:
    """A ring that has seen no header yet."""
    return Keyring(KEY, secret=None)


def forged(header: dict[str, Any] | bytes, key: Key = KEY, payload: bytes = PAYLOAD) -> str:
    """A token with any header at all, and a signature that fits."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    signed = f"{base64url.encode(text)}.{base64url.encode(payload)}"
    return f"{signed}.{base64url.encode(key.sign(signed.encode()))}"


def verified(token: str | bytes, ring: Keyring | None = None, typ: str = "at+jwt") -> bytes:
    return jws.verify(token, ring or fresh(), typ=typ)


TOKEN = jws.sign(PAYLOAD, KEY, typ="at+jwt")


@pytest.mark.parametrize("alg", ALGS)
def test_what_a_key_signs_its_ring_verifies(alg: str) -> None:
    """As text and as bytes, with a header seen for the first time and again."""
    token = jws.sign(PAYLOAD, KEYS[alg], typ="at+jwt")
    for _ in range(2):
        assert jws.verify(token, RINGS[alg], typ="at+jwt") == PAYLOAD
        assert jws.verify(token.encode(), RINGS[alg], typ="at+jwt") == PAYLOAD
    header = json.loads(base64url.decode(token.split(".")[0]))
    assert header == {"alg": alg, "kid": KEYS[alg].kid, "typ": "at+jwt"}


@unhurried
@given(st.binary(max_size=400))
def test_every_payload_survives(payload: bytes) -> None:
    assert verified(jws.sign(payload, KEY, typ="at+jwt"), RING) == payload


@pytest.mark.parametrize("alg", ALGS)
def test_j17_no_bit_of_a_token_can_be_changed(alg: str) -> None:
    token = jws.sign(b'{"sub":"u"}', KEYS[alg], typ="at+jwt").encode()
    for ring in (RINGS[alg], Keyring(KEYS[alg], secret=None)):
        for place in range(len(token)):
            with pytest.raises((BadSignature, Malformed)):
                jws.verify(token[:place] + bytes([token[place] ^ 1]) + token[place + 1 :], ring, typ="at+jwt")


BAD_ALGS = [
    "none", "None", "noNE", "NONE", "", "HS256", "RS256", "ES256", "ed25519", "eddsa", "EDDSA", "Ed448",
    "Ed25519 ", None, ["Ed25519"], {"a": 1}, 1, True,
]  # fmt: skip


@pytest.mark.parametrize("alg", BAD_ALGS)
def test_j1_the_header_must_name_the_keys_algorithm_exactly(alg: Any) -> None:
    with pytest.raises(BadSignature):
        verified(forged({**HEADER, "alg": alg}))


def test_j1_a_missing_algorithm_is_refused() -> None:
    with pytest.raises(BadSignature):
        verified(forged({"kid": KEY.kid, "typ": "at+jwt"}))


@pytest.mark.parametrize("alg", ALGS)
def test_j1_algorithm_confusion_gets_nowhere(alg: str) -> None:
    """A public key's text as HMAC secret, and every pair of header and key that do not belong together."""
    for other in ALGS:
        if other != alg:
            header = {"alg": other, "kid": KEYS[alg].kid, "typ": "at+jwt"}
            for signer in (KEYS[alg], KEYS[other]):
                with pytest.raises(BadSignature):
                    jws.verify(forged(header, signer), Keyring(KEYS[alg], secret=None), typ="at+jwt")


@pytest.mark.parametrize("alg", ["none", "None", "nOnE"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_j3_an_unsigned_token_is_refused(alg: str, signature: str) -> None:
    for header in ({**HEADER, "alg": alg}, {"alg": alg}, {"alg": alg, "typ": "at+jwt"}):
        unsigned = base64url.encode(json.dumps(header).encode()) + "." + base64url.encode(PAYLOAD) + "."
        with pytest.raises(BadSignature):
            verified(unsigned + signature)


def test_j18_the_older_name_eddsa_is_accepted_and_the_new_one_issued() -> None:
    assert verified(forged({**HEADER, "alg": "EdDSA"})) == PAYLOAD
    assert Key.from_jwk({**KEY.jwk(), "alg": "EdDSA"}).alg == "EdDSA"
    assert KEY.jwk()["alg"] == "Ed25519"


def test_j18_a_key_can_be_told_to_write_the_older_name() -> None:
    """For verifiers like PyJWT 2.15, which know Ed25519 by the name of EdDSA only."""
    key = Key.generate("EdDSA")
    token = jws.sign(PAYLOAD, key, typ="at+jwt")
    assert jws.parse(token).header["alg"] == key.jwk()["alg"] == "EdDSA"
    for ring in (Keyring(key, secret=None), Keyring.from_jwks({"keys": [key.jwk()]})):
        assert jws.verify(token, ring, typ="at+jwt") == PAYLOAD
    assert Key.from_jwk(key.private_jwk()).alg == "EdDSA"


def test_j2_the_older_name_is_of_no_other_key() -> None:
    token = forged({**HEADER, "alg": "EdDSA", "kid": KEYS["ES256"].kid}, KEYS["ES256"])
    with pytest.raises(BadSignature):
        verified(token, RINGS["ES256"])


HEAD, BODY, SIGNATURE = TOKEN.split(".")
SHAPES = [
    "", ".", "..", "...", "....", HEAD, f"{HEAD}.{BODY}", f"{HEAD}.{BODY}.", f".{BODY}.{SIGNATURE}",
    f"{TOKEN}.", f".{TOKEN}", f"{TOKEN}.{SIGNATURE}", f"{TOKEN}.{BODY}.{SIGNATURE}", f"{HEAD}..{SIGNATURE}",
    f"{TOKEN}=", f"{TOKEN}==", f"{HEAD}=.{BODY}.{SIGNATURE}", f"{HEAD}.{BODY}=.{SIGNATURE}",
    f"{TOKEN}\n", f" {TOKEN}", f"{TOKEN} ", f"{HEAD}.{BODY}\n.{SIGNATURE}", f"{HEAD}\t.{BODY}.{SIGNATURE}",
    f"{HEAD}.{BODY}?.{SIGNATURE}", f"{HEAD}.{BODY}.{SIGNATURE}?x=1", f"{TOKEN}\x00", f'{HEAD}.{BODY}".{SIGNATURE}',
    f'{HEAD}.{BODY}","AAAA.{SIGNATURE}', f"{HEAD}.\\u0041{BODY[1:]}.{SIGNATURE}", TOKEN.replace(".", "%2e"),
    f"{HEAD}.{BODY}.{SIGNATURE[:-1]}", f"{HEAD}.{BODY}.{SIGNATURE}A", f"Bearer {TOKEN}",
    f"{TOKEN}é", f"{TOKEN}\ud800", "\ud800", f"{HEAD}.\ud800.{SIGNATURE}",
    json.dumps({"payload": BODY, "protected": HEAD, "signature": SIGNATURE}),
    json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
]  # fmt: skip


@pytest.mark.parametrize("token", SHAPES)
def test_j7_there_is_one_shape_for_a_token(token: str) -> None:
    """Padding, white space, other letters, JSON forms, too few or too many parts: refused, header known or not."""
    for ring in (fresh(), RING):
        jws.verify(TOKEN, RING, typ="at+jwt")
        with pytest.raises((Malformed, BadSignature)):
            verified(token, ring)
        with pytest.raises((Malformed, BadSignature)):
            verified(token.encode("utf-8", "surrogatepass"), ring)


def test_j7_only_malformed_shapes_are_told_apart_before_any_cryptography() -> None:
    """The standard alphabet is not ours, and unused bits are zero, in each of the three parts."""
    token = forged(HEADER, payload=b"\xfb\xef\xff")
    assert "-" in token.split(".")[1]
    for bad in (token.replace("-", "+"), token.replace("_", "/")):
        with pytest.raises(Malformed):
            verified(bad)
    token = forged({**HEADER, "pad": "x"}, payload=b"1")
    for part in range(3):
        pieces = token.split(".")
        last = pieces[part][-1]
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if len(pieces[part]) % 4:
            pieces[part] = pieces[part][:-1] + alphabet[alphabet.index(last) + 1]
            with pytest.raises(Malformed):
                verified(".".join(pieces))


def test_j8_an_encrypted_token_is_not_a_signed_one() -> None:
    """Five parts are refused, and so is a header of a JWE on three."""
    for token in ("a.b.c.d.e", ".".join([HEAD] * 5), f"{HEAD}.{BODY}.{SIGNATURE}.{BODY}.{SIGNATURE}"):
        with pytest.raises(Malformed):
            verified(token)
    for header in ({**HEADER, "enc": "A256GCM"}, {"alg": "dir", "enc": "A128GCM", "kid": KEY.kid}):
        with pytest.raises(Malformed):
            verified(forged(header))


CRITS: list[Any] = [None, "exp", "", [], ["exp"], ["b64"], [1], ["absent"], ["alg"], ["exp", "exp"], {}, True]


@pytest.mark.parametrize("crit", CRITS)
def test_j9_whatever_is_critical_is_refused(crit: Any) -> None:
    with pytest.raises(Malformed):
        verified(forged({**HEADER, "crit": crit, "exp": 1}))


@pytest.mark.parametrize("b64", [False, True, None])
def test_j9_an_unencoded_payload_is_never_a_token(b64: Any) -> None:
    for header in ({**HEADER, "b64": b64}, {**HEADER, "b64": b64, "crit": ["b64"]}):
        with pytest.raises(Malformed):
            verified(forged(header))


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"])
def test_j10_a_key_in_the_header_is_refused(name: str) -> None:
    """Even if it is the very key of the ring; nothing is fetched, for core cannot."""
    values = [KEY.jwk(), "https://keys.example.com/jwks", ["MIIB"], None]
    for value in values:
        with pytest.raises(Malformed):
            verified(forged({**HEADER, name: value}))
    attacker = Key.generate()
    with pytest.raises(Malformed):
        verified(forged({"alg": attacker.alg, "typ": "at+jwt", name: attacker.jwk()}, attacker))


class _CountedKeys(dict[str, Key]):
    """The keys of a ring by kid, counting how often they are asked."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "x" * 128, "\x00", "é", "https://evil.example/k", ""])
def test_j11_an_unknown_kid_costs_one_look_up_in_the_ring(kid: str) -> None:
    ring = fresh()
    counted = _CountedKeys(ring.roles.by_kid)
    object.__setattr__(ring.roles, "by_kid", counted)
    with pytest.raises(BadSignature):
        verified(forged({**HEADER, "kid": kid}), ring)
    assert counted.asked == 1


@pytest.mark.parametrize("kid", ["x" * 129, "x" * 1000, 5, None, ["a"], {}, True])
def test_j11_a_kid_is_a_short_string(kid: Any) -> None:
    with pytest.raises(Malformed):
        verified(forged({**HEADER, "kid": kid}))


def test_j11_a_megabyte_of_kid_is_refused_by_size() -> None:
    with pytest.raises(Malformed):
        verified(forged({**HEADER, "kid": "x" * 1_000_000}))


def test_j11_a_token_without_kid_needs_a_ring_of_one_key() -> None:
    token = forged({"alg": KEY.alg, "typ": "at+jwt"})
    assert verified(token) == PAYLOAD
    assert verified(token, Keyring.from_jwks({"keys": [KEY.jwk()]})) == PAYLOAD
    for ring in (
        Keyring(KEY, upcoming=Key.generate(), secret=None),
        Keyring(Key.generate(), retired=[KEY], secret=None),
        Keyring(None, secret=bytes.fromhex("6f8d1c5b9ae24703fd11c08e5a77b3962e04d9f8136ac5be80f2497d3bc6e15a")),
    ):
        with pytest.raises(BadSignature):
            verified(token, ring)


KINDS = sorted(TYPES.items())


@pytest.mark.parametrize(("kind", "typ"), KINDS)
@pytest.mark.parametrize(("expected", "wanted"), KINDS)
def test_j14_j21_a_token_is_of_one_kind_only(kind: str, typ: str, expected: str, wanted: str) -> None:
    """N kinds x N verifiers: only the diagonal passes, with the header new or known; so too ID and access tokens."""
    token = jws.sign(PAYLOAD, KEY, typ=typ)
    for ring in (fresh(), RING):
        for _ in range(2):
            if kind == expected:
                assert jws.verify(token, ring, typ=wanted) == PAYLOAD
            else:
                with pytest.raises(WrongClaim) as caught:
                    jws.verify(token, ring, typ=wanted)
                assert caught.value.claim == "typ"


@pytest.mark.parametrize("typ", ["AT+JWT", "At+Jwt", "application/at+jwt", "APPLICATION/AT+JWT"])
def test_j14_typ_is_compared_as_a_media_type(typ: str) -> None:
    ring = fresh()
    for _ in range(2):
        assert verified(forged({**HEADER, "typ": typ}), ring) == PAYLOAD


@pytest.mark.parametrize(
    "typ",
    [
        "",
        "JWT",
        "jwt",
        "at",
        "at+jwt;q=1",
        " at+jwt",
        "application/application/at+jwt",
        "text/at+jwt",
        "at+jwt\x00",
        None,
    ],
)
def test_j14_a_wrong_or_missing_typ_is_refused(typ: Any) -> None:
    for header in ({**HEADER, "typ": typ}, {"alg": KEY.alg, "kid": KEY.kid}):
        with pytest.raises(WrongClaim):
            verified(forged(header))


@pytest.mark.parametrize("typ", [5, ["at+jwt"], {"a": 1}, True, "ａｔ+jwt", "at\u212awt"])
def test_j14_a_typ_that_is_no_ascii_string_is_refused(typ: Any) -> None:
    with pytest.raises(Malformed):
        verified(forged({**HEADER, "typ": typ}))


TEXT = json.dumps(HEADER, separators=(",", ":")).encode()
HEADERS = [
    b"", b"{}", b"[]", b"null", b"5", b'"x"', b"{", TEXT + b"x", TEXT + TEXT, b"\xef\xbb\xbf" + TEXT, b"\x00" + TEXT,
    TEXT.decode().encode("utf-16"), TEXT[:-1] + b',"alg":"Ed25519"}', b'{"alg":"none",' + TEXT[1:],
    TEXT[:-1] + b',"\\u0061lg":"Ed25519"}', TEXT[:-1] + b',"kid":"x"}', TEXT[:-1] + b',"typ":"at+jwt"}',
    TEXT[:-1] + b',"x":NaN}', TEXT[:-1] + b',"x":1e999}', TEXT[:-1] + b',"x":Infinity}', TEXT[:-1] + b',"x":"\xff"}',
    TEXT[:-1] + b',"x":"\\ud800"}', TEXT[:-1] + b',"x":{"a":1,"a":1}}',
    TEXT[:-1] + b',"x":' + b"[" * 17 + b"]" * 17 + b"}",
    TEXT[:-1] + b',"x":' + b"[" * 700 + b"]" * 700 + b"}", TEXT[:-1] + b',"x":"' + b"x" * 2000 + b'"}',
    TEXT[:-1] + b',"x":' + b"9" * 1000 + b"}" * 2, TEXT[:-1] + b",}", TEXT.replace(b'"', b"'"),
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_j15_a_header_is_one_strict_json_object(header: bytes) -> None:
    with pytest.raises((Malformed, BadSignature)):
        verified(forged(header))
    if header != b"{}":
        with pytest.raises(Malformed):
            verified(forged(header))


def test_unknown_header_parameters_are_ignored() -> None:
    """RFC 7515, section 4: what is not understood and not critical says nothing."""
    assert verified(forged({**HEADER, "cty": "x", "x-own": {"a": [1, 2]}})) == PAYLOAD
    assert verified(forged(b" " + json.dumps(HEADER, indent=2).encode())) == PAYLOAD


@pytest.mark.parametrize("cty", [None, 5, ["JWT"], True])
def test_a_cty_that_is_no_string_is_refused(cty: Any) -> None:
    with pytest.raises(Malformed):
        verified(forged({**HEADER, "cty": cty}))


def test_j16_hostile_sizes_and_costs_are_refused_before_any_key_is_looked_up() -> None:
    """No work of the sender's choosing: p2c and zip are refused by name, five parts by shape, the rest by length."""
    ring = fresh()
    counted = _CountedKeys(ring.roles.by_kid)
    object.__setattr__(ring.roles, "by_kid", counted)
    hostile = [
        forged({"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA", "kid": KEY.kid}),
        ".".join([base64url.encode(b'{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647}')] * 5),
        forged({**HEADER, "zip": "DEF"}),
        "a" * (jws.MAX_TOKEN + 1),
        "." * 10_000_000,
        TOKEN + "A" * jws.MAX_TOKEN,
    ]
    for token in hostile:
        with pytest.raises(Malformed):
            verified(token, ring)
    assert counted.asked == 0


def test_j16_a_token_over_the_limit_is_not_made() -> None:
    most = jws.MAX_TOKEN - len(jws.sign(b"", KEY, typ="at+jwt"))
    payload = bytes(most // 4 * 3)
    assert verified(jws.sign(payload, KEY, typ="at+jwt")) == payload
    with pytest.raises(InvalidValue):
        jws.sign(payload + bytes(4), KEY, typ="at+jwt")


@pytest.mark.parametrize("typ", ["", "at", "application/at+jwt", "AT+JWT", "none", "a b+jwt", "at+jwt\n"])
def test_sign_takes_a_kind_of_token_only(typ: str) -> None:
    with pytest.raises(InvalidValue):
        jws.sign(PAYLOAD, KEY, typ=typ)


def test_a_public_key_signs_no_token() -> None:
    with pytest.raises(ConfigurationError):
        jws.sign(PAYLOAD, KEY.public(), typ="at+jwt")


def test_a_dropped_key_is_forgotten_with_its_headers() -> None:
    """A header that was seen before must not outlive its key in the ring (P1, P8)."""
    ring = fresh()
    assert verified(TOKEN, ring) == PAYLOAD
    other = Key.generate()
    ring.adopt(Keyring(other, secret=None))
    with pytest.raises(BadSignature):
        verified(TOKEN, ring)
    ring.adopt(Keyring(other, retired=[KEY], secret=None))
    assert verified(TOKEN, ring) == PAYLOAD


def test_a_kid_that_changes_hands_is_judged_by_the_new_key() -> None:
    old, new = Key.generate(kid="k"), Key.generate(kid="k")
    ring = Keyring(old, secret=None)
    token = jws.sign(PAYLOAD, old, typ="at+jwt")
    assert verified(token, ring) == PAYLOAD
    ring.adopt(Keyring(new, secret=None))
    with pytest.raises(BadSignature):
        verified(token, ring)
    assert verified(jws.sign(PAYLOAD, new, typ="at+jwt"), ring) == PAYLOAD


def test_p9_what_is_remembered_of_headers_is_bounded_and_not_for_strangers() -> None:
    """Only a genuine signature leaves a trace, and 64 of them at most."""
    ring = fresh()
    for n in range(200):
        with pytest.raises(BadSignature):
            verified(forged({**HEADER, "n": n}, Key.generate()), ring)
    assert ring.roles.headers == {}
    for n in range(200):
        assert verified(forged({**HEADER, "n": n}), ring) == PAYLOAD
    assert len(ring.roles.headers) == 64


def test_the_public_api_verifies_no_signature_without_the_claims() -> None:
    """`jws.verify` and `jws.parse` are for use inside (decision 6); the package's names do not include them."""
    public = [getattr(coatcheck, name) for name in coatcheck.__all__]
    assert Key in public
    assert not [item for item in (jws, jws.verify, jws.parse, jws.sign) if item in public]


ANY_TOKEN = (
    st.binary(max_size=200)
    | st.text(max_size=200)
    | st.lists(st.text('AQgw_-+/=.\\"\n é', max_size=8), max_size=6).map(".".join)
    | st.lists(st.binary(max_size=40).map(base64url.encode), min_size=3, max_size=3).map(".".join)
)


@unhurried
@given(ANY_TOKEN)
def test_j17_any_token_gives_our_error(token: str | bytes) -> None:
    for call in (verified, jws.parse):
        try:
            call(token)
        except CredentialError:
            continue
        assert call is jws.parse


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
PARAMETERS = ["alg", "kid", "typ", "cty", "crit", "jwk", "jku", "zip", "enc", "b64", "other"]


@unhurried
@given(st.dictionaries(st.sampled_from(PARAMETERS), JSON, max_size=3))
def test_j17_any_header_gives_the_payload_or_our_error(change: dict[str, Any]) -> None:
    header = {**HEADER, **change}
    try:
        assert verified(forged(json.dumps(header).encode("utf-8", "surrogatepass"))) == PAYLOAD
    except CredentialError as error:
        assert KEY.kid not in str(error)
        return
    assert (header["alg"], header["kid"]) in {("Ed25519", KEY.kid), ("EdDSA", KEY.kid)}
    assert not set(header) & {"crit", "jwk", "jku", "zip", "enc", "b64"}


# -- base64url


@unhurried
@given(st.binary())
def test_base64url_gives_back_what_it_was_given(data: bytes) -> None:
    text = base64url.encode(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert base64url.decode(text) == base64url.decode(text.encode()) == data
    assert base64url.decode_pair(text, text) == (data, data)


LETTERS = st.text('AEQgwZ09-_+/=\\"\n ué\ud800,[]', max_size=9)


def standard(text: str) -> bytes | None:
    """The standard library's reading, with every liberty of it ruled out; None for a refusal."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return data if base64.urlsafe_b64encode(data).decode().rstrip("=") == text else None


@unhurried
@given(LETTERS, LETTERS)
def test_j7_base64url_takes_the_canonical_spelling_and_no_other(one: str, two: str) -> None:
    """Compared with the standard library: the same bytes, or a refusal by both."""
    for text in (one, one.encode("utf-8", "surrogatepass")):
        try:
            found = base64url.decode(text)
        except Malformed:
            found = None
        assert found == standard(one)
    wanted = (standard(one), standard(two))
    try:
        assert base64url.decode_pair(one, two) == wanted
    except Malformed:
        assert None in wanted
