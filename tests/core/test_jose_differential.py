"""Three other JOSE libraries as oracles: they agree on what is valid, and none refuses what we accept.

The reverse does not hold: ours is stricter by design (J2, J4, J5, J13, J15), so what they take and we refuse is no
finding. PyJWT knows Ed25519 by its older name only, so tokens by the new name are no test of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import joserfc.jwk
import joserfc.jws
import jwcrypto.jwk
import jwcrypto.jws
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coatcheck.core import base64url, jws
from coatcheck.core.claims import build_access_token, judge
from coatcheck.core.keys import Key, Keyring
from coatcheck.errors import CredentialError, Malformed

# joserfc warns of the older name of Ed25519, which is the only one that PyJWT knows.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

ALGS = ("HS256", "RS256", "ES256", "Ed25519")
KEYS = {alg: Key.generate(alg) for alg in ALGS}
RINGS = {alg: Keyring(key, secret=None) for alg, key in KEYS.items()}
NOW = 1_795_000_000
PAYLOAD = build_access_token(
    issuer="https://auth.example.com",
    audience="https://api.example.com",
    subject="user-1",
    client_id="first-party",
    session_id="session-1",
    token_id="token-1",
    issued_at=NOW,
    lifetime=900,
    scope="read",
)


def older(alg: str) -> str:
    return "EdDSA" if alg == "Ed25519" else alg


def members(alg: str, *, private: bool, name: str | None = None) -> dict[str, Any]:
    """The JWK that an oracle gets: public unless it must sign, and without `alg`, which names may differ in."""
    key = KEYS[alg]
    jwk = dict(key.private_jwk() if private or key.kind == "symmetric" else key.jwk())
    jwk.pop("alg")
    return jwk | ({"alg": name} if name else {})


def pyjwt_sign(header: dict[str, str], alg: str) -> str:
    key = jwt.PyJWK(members(alg, private=True, name=header["alg"]))
    return jwt.PyJWS().encode(PAYLOAD, key.key, algorithm=header["alg"], headers=header)


def pyjwt_verify(token: str, alg: str) -> bytes:
    key = jwt.PyJWK(members(alg, private=False, name=older(alg)))
    return bytes(jwt.PyJWS(options={}).decode(token, key.key, algorithms=[alg, older(alg)]))


def joserfc_sign(header: dict[str, str], alg: str) -> str:
    key = joserfc.jwk.import_key(members(alg, private=True))
    return joserfc.jws.serialize_compact(header, PAYLOAD, key, algorithms=[header["alg"]])


def joserfc_verify(token: str, alg: str) -> bytes:
    key = joserfc.jwk.import_key(members(alg, private=False))
    # Without the check for unknown parameters: RFC 7515, section 4 says to ignore those.
    registry = joserfc.jws.JWSRegistry(algorithms=[alg, older(alg)], strict_check_header=False)
    return joserfc.jws.deserialize_compact(token, key, registry=registry).payload


def jwcrypto_sign(header: dict[str, str], alg: str) -> str:
    token: Any = jwcrypto.jws.JWS(PAYLOAD)
    token.allowed_algs = [header["alg"]]
    token.add_signature(jwcrypto.jwk.JWK(**members(alg, private=True)), None, json.dumps(header), None)
    return str(token.serialize(compact=True))


def jwcrypto_verify(token: str, alg: str) -> bytes:
    found: Any = jwcrypto.jws.JWS()
    found.allowed_algs = [alg, older(alg)]
    found.deserialize(token, jwcrypto.jwk.JWK(**members(alg, private=False)))
    return bytes(found.payload)


Sign = Callable[[dict[str, str], str], str]
Verify = Callable[[str, str], bytes]
ORACLES: dict[str, tuple[Sign, Verify]] = {
    "PyJWT": (pyjwt_sign, pyjwt_verify),
    "joserfc": (joserfc_sign, joserfc_verify),
    "jwcrypto": (jwcrypto_sign, jwcrypto_verify),
}


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("alg", ALGS)
def test_j18_what_an_oracle_signs_we_verify(oracle: str, alg: str) -> None:
    """Under both names of Ed25519, where the oracle knows both."""
    sign, _ = ORACLES[oracle]
    names = {older(alg)} if oracle == "PyJWT" else {alg, older(alg)}
    for name in names:
        token = sign({"alg": name, "kid": KEYS[alg].kid, "typ": "at+jwt"}, alg)
        assert jws.verify(token, RINGS[alg], typ="at+jwt") == PAYLOAD
        judge(PAYLOAD, issuer="https://auth.example.com", audience="https://api.example.com", now=NOW, leeway=0)


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("alg", ALGS)
def test_j18_what_we_sign_an_oracle_verifies(oracle: str, alg: str) -> None:
    if (oracle, alg) == ("PyJWT", "Ed25519"):
        with pytest.raises(jwt.InvalidAlgorithmError):
            pyjwt_verify(jws.sign(PAYLOAD, KEYS[alg], typ="at+jwt"), alg)
        return
    assert ORACLES[oracle][1](jws.sign(PAYLOAD, KEYS[alg], typ="at+jwt"), alg) == PAYLOAD


@pytest.mark.parametrize("alg", ALGS)
def test_j19_the_thumbprints_of_the_oracles_are_ours(alg: str) -> None:
    key = KEYS[alg]
    assert joserfc.jwk.import_key(members(alg, private=True)).thumbprint() == key.kid
    assert jwcrypto.jwk.JWK(**members(alg, private=True)).thumbprint() == key.kid


@pytest.mark.parametrize("alg", ALGS[1:])
def test_j19_an_oracle_reads_our_jwks_and_we_read_its_keys(alg: str) -> None:
    theirs: Any = jwcrypto.jwk.JWK(**members(alg, private=True))
    assert Key.from_jwk(json.loads(theirs.export(private_key=True))).kid == KEYS[alg].kid
    assert Keyring.from_jwks({"keys": [json.loads(theirs.export_public())]}).find(KEYS[alg].kid)
    assert len(joserfc.jwk.KeySet.import_key_set(RINGS[alg].jwks()).keys) == 1  # type: ignore[arg-type]


def mutations(token: str) -> st.SearchStrategy[str]:
    """Near misses: a letter changed, cut, put in or doubled, parts swapped, another header on a good signature."""
    place = st.integers(0, len(token) - 1)
    letter = st.sampled_from('ABQgw019-_+/=. \n"\\\x00é')
    head, body, signature = token.split(".")
    headers = st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]),
        st.sampled_from(["none", "HS256", "RS256", "ES256", "EdDSA", "Ed25519", None, [], ["exp"], True, {}]),
        min_size=1,
        max_size=2,
    ).map(lambda change: base64url.encode(json.dumps({**json.loads(base64url.decode(head)), **change}).encode()))
    return st.one_of(
        st.builds(lambda i, c: token[:i] + c + token[i + 1 :], place, letter),
        st.builds(lambda i, c: token[:i] + c + token[i:], place, letter),
        st.builds(lambda i, j: token[:i] + token[j:], place, place),
        st.permutations([head, body, signature]).map(".".join),
        headers.map(lambda other: f"{other}.{body}.{signature}"),
        st.binary(max_size=80).map(lambda data: f"{head}.{body}.{base64url.encode(data)}"),
        st.just(token),
    )


@pytest.mark.parametrize("alg", ALGS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_j17_what_we_accept_no_oracle_refuses(alg: str, data: st.DataObject) -> None:
    """Strictness goes one way: mutate a valid token, and whatever we still take, all of them take alike."""
    named = {**json.loads(base64url.decode(KEYS[alg].header_segment("at+jwt"))), "alg": older(alg)}
    token = data.draw(mutations(joserfc_sign(named, alg)))
    try:
        payload = jws.verify(token, Keyring(KEYS[alg], secret=None), typ="at+jwt")
    except CredentialError:
        return
    for _, verify in ORACLES.values():
        assert verify(token, alg) == payload


@pytest.mark.parametrize("alg", ALGS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_j17_a_header_signed_anew_is_accepted_only_if_the_oracles_agree(alg: str, data: st.DataObject) -> None:
    """Here the signature always fits, so that only the judgement of the header decides."""
    change = data.draw(
        st.dictionaries(
            st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "cty", "own"]),
            st.sampled_from([older(alg), KEYS[alg].kid, "at+jwt", "AT+JWT", "none", "x", None, [], ["own"], False]),
            max_size=3,
        )
    )
    header = {"alg": older(alg), "kid": KEYS[alg].kid, "typ": "at+jwt", **change}
    signed = f"{base64url.encode(json.dumps(header).encode())}.{base64url.encode(PAYLOAD)}"
    token = f"{signed}.{base64url.encode(KEYS[alg].sign(signed.encode()))}"
    try:
        payload = jws.verify(token, Keyring(KEYS[alg], secret=None), typ="at+jwt")
    except CredentialError:
        return
    for _, verify in ORACLES.values():
        assert verify(token, alg) == payload


@pytest.mark.parametrize("alg", ALGS)
def test_what_the_oracles_take_and_we_refuse_is_by_design(alg: str) -> None:
    """J15 and J14: a header member twice, or no `typ`, is taken by all three of them, and never by us."""
    start = f'{{"alg":"{older(alg)}","kid":"{KEYS[alg].kid}"'
    for header, error in ((start + ',"typ":"x","typ":"at+jwt"}', Malformed), (start + "}", CredentialError)):
        signed = f"{base64url.encode(header.encode())}.{base64url.encode(PAYLOAD)}"
        token = f"{signed}.{base64url.encode(KEYS[alg].sign(signed.encode()))}"
        assert [verify(token, alg) for _, verify in ORACLES.values()] == [PAYLOAD] * 3
        with pytest.raises(error):
            jws.verify(token, RINGS[alg], typ="at+jwt")
