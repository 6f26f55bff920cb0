"""What was published against other JWT libraries, tried on ours: every forgery is refused.

Each forgery differs from a token that is accepted in nothing but the exploit: `Forge.token` without arguments is
accepted (first test), so a refusal below is a refusal of the exploit.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from jwcrypto import jwe, jwk

from coatcheck import BadSignature, Coatcheck, CredentialError, Key, Keyring, Malformed, Policy, WrongClaim
from coatcheck.errors import ConfigurationError
from coatcheck.testing import SettableClock
from coatcheck.testing.clock import START

ISSUER = "https://auth.example"
NOW = START // 1000
SECRET = bytes(range(200, 232))
ALGORITHMS = ["HS256", "RS256", "ES256", "Ed25519"]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(secret, data, "sha256")


class Forge:
    """An issuer whose real key the tests may use, to get everything right but the exploit."""

    def __init__(self, alg: str = "Ed25519") -> None:
        self.key = Key.generate(alg)
        self.clock = SettableClock()
        self.coat = Coatcheck(keyring=Keyring(self.key, secret=SECRET), policy=Policy(issuer=ISSUER), clock=self.clock)
        self.header: dict[str, Any] = {"alg": alg, "kid": self.key.kid, "typ": "at+jwt"}
        self.claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": "ann",
            "aud": ISSUER,
            "exp": NOW + 900,
            "iat": NOW,
            "jti": "1",
            "client_id": "first-party",
            "sid": "s",
        }

    def signed(self, header: str, payload: str, sign: Callable[[bytes], bytes] | None = None) -> str:
        text = f"{b64(header.encode())}.{b64(payload.encode())}"
        return f"{text}.{b64((sign or self.key.sign)(text.encode()))}"

    def token(self, *, sign: Callable[[bytes], bytes] | None = None, claims: Any = None, **header: Any) -> str:
        changed = {name: value for name, value in (self.header | header).items() if value is not ...}
        return self.signed(json.dumps(changed), json.dumps(self.claims | (claims or {})), sign)

    def verify(self, token: str) -> str:
        return self.coat.verifier.verify(token).subject

    def refuses(self, token: str, *errors: type[CredentialError]) -> None:
        with pytest.raises(errors or (BadSignature, Malformed)):
            self.verify(token)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_forge_makes_tokens_that_are_accepted(alg: str) -> None:
    """Without an exploit there is nothing to refuse."""
    forge = Forge(alg)
    assert forge.verify(forge.token()) == "ann"


@pytest.mark.parametrize("ours", ALGORITHMS)
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", " none", "none ", "none\0", "", None, False, ["none"]])
def test_alg_none_in_every_spelling(ours: str, alg: Any) -> None:
    """CVE-2015-9235 (jsonwebtoken) and its return by a leading space, CVE-2026-34950 (fast-jwt): a token that says
    it is unsigned is taken at its word."""
    forge = Forge(ours)
    forge.refuses(forge.token(alg=alg, sign=lambda _: b""))
    forge.refuses(forge.token(alg=alg))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "Ed25519"])
def test_a_public_key_is_never_an_hmac_secret_for_a_token(alg: str) -> None:
    """CVE-2023-48238 (json-web-token): the token says HS256, and the verifier takes the public key, which everybody
    has, for the secret."""
    forge = Forge(alg)
    members = forge.key.jwk()
    public = jwk.JWK(**members)
    pem: bytes = public.export_to_pem()
    loaded = load_pem_public_key(pem)
    spellings = [
        pem,
        pem.strip(),
        loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        loaded.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(members).encode(),
        json.dumps(forge.coat.keyring.jwks()).encode(),
        (members.get("n") or members["x"]).encode(),
        b"",
    ]
    for secret in spellings:
        forge.refuses(forge.token(alg="HS256", sign=hs256(secret)))


def public_texts() -> dict[str, bytes]:
    texts: dict[str, bytes] = {}
    for alg in ("RS256", "ES256", "Ed25519"):
        members = Key.generate(alg).jwk()
        pem: bytes = jwk.JWK(**members).export_to_pem()
        key = load_pem_public_key(pem)
        texts[f"{alg} PEM"] = pem
        texts[f"{alg} PEM after white space"] = b"\n\t " + pem
        texts[f"{alg} DER"] = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        texts[f"{alg} OpenSSH"] = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        texts[f"{alg} JWK"] = json.dumps(members).encode()
        texts[f"{alg} JWKS"] = json.dumps({"keys": [members]}, indent=2).encode()
    return texts


@pytest.mark.parametrize(("kind", "text"), public_texts().items())
def test_a_public_key_is_never_taken_for_a_secret(kind: str, text: bytes) -> None:
    """CVE-2017-11424 and CVE-2022-29217 (PyJWT), CVE-2024-33663 (python-jose), CVE-2026-48526 (PyJWT, JWK text): a
    list of forbidden prefixes forgot the PKCS1, OpenSSH, ECDSA and JSON spellings of a public key."""
    with pytest.raises(ConfigurationError, match="another kind"):
        Key.from_secret(text)
    with pytest.raises(ConfigurationError, match="another kind"):
        Keyring(None, secret=text)


def test_symmetric_and_asymmetric_keys_never_share_a_ring() -> None:
    """CVE-2026-48526 (PyJWT) needs a verifier that accepts both kinds; such a ring cannot be made."""
    for alg in ("RS256", "ES256", "Ed25519"):
        with pytest.raises(ConfigurationError):
            Keyring(Key.generate(alg), retired=[Key.generate("HS256")], secret=SECRET)


def test_psychic_signatures() -> None:
    """CVE-2022-21449 (Java): r = s = 0 satisfies the equation of ECDSA for every message and every key."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    forge = Forge("ES256")
    for r, s in [(0, 0), (0, 1), (1, 0), (order, order), (order, 0), (0, order), (1, order)]:
        blank = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        with pytest.raises(BadSignature, match="not a signature of ES256"):  # our own check, before OpenSSL's
            forge.verify(forge.token(sign=lambda _, blank=blank: blank))  # type: ignore[misc]
    for blank in (b"", bytes(63), bytes(65), bytes.fromhex("3006020100020100")):
        forge.refuses(forge.token(sign=lambda _, blank=blank: blank))  # type: ignore[misc]


def test_an_issuer_matches_whole_or_not_at_all() -> None:
    """CVE-2024-53861 (PyJWT): `iss in "https://auth.example"` is true for every part of the string, "" and "http"
    included. The audience is compared alike."""
    forge = Forge()
    parts = ["", "h", "http", "auth.example", ISSUER[:-1], ISSUER[1:], f"{ISSUER}/", f"{ISSUER}.evil.example"]
    for part in [*parts, ISSUER.upper(), [ISSUER], None]:
        forge.refuses(forge.token(claims={"iss": part}), WrongClaim)
        if part != [ISSUER]:  # as an audience, a list that names us is good (RFC 7519, 4.1.3)
            forge.refuses(forge.token(claims={"aud": part}), WrongClaim)
    forge.refuses(forge.token(claims={"aud": [[ISSUER]]}), WrongClaim)


def test_json_and_compact_serialization_are_never_mixed() -> None:
    """CVE-2022-39227 (python-jwt): one parser verifies the JSON form hidden in a token, the other takes the claims
    from what looks like the compact form."""
    forge = Forge()
    header, payload, signature = forge.token().split(".")
    forged = b64(json.dumps(forge.claims | {"sub": "root"}).encode())
    members = f'"protected":"{header}","payload":"{payload}","signature":"{signature}"'
    for token in (
        f'{{"  {header}.{forged}.":"",{members}}}',
        f'{{"{header}.{forged}.{signature}":"",{members}}}',
        f"{{{members}}}",
        f'{{"payload":"{payload}","signatures":[{{"protected":"{header}","signature":"{signature}"}}]}}',
        f'{header}.{forged}.{signature}","signature":"{signature}',
    ):
        forge.refuses(token)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["bork"], "bork": True},
        {"crit": ["cnf"], "cnf": {"jkt": "x"}},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
    ],
)
def test_what_is_critical_and_not_understood_is_refused(header: dict[str, Any]) -> None:
    """CVE-2025-59420 (Authlib), CVE-2026-32597 (PyJWT): a genuine token that says "refuse me unless you understand
    this" is accepted by one who does not."""
    forge = Forge()
    forge.refuses(forge.token(**header), Malformed)


def test_oversized_segments_are_not_even_decoded() -> None:
    """CVE-2025-61920 (Authlib): header or signature of hundreds of megabytes are decoded and parsed before anything
    is refused. Here they are genuine, so only the limit can refuse them."""
    forge = Forge("HS256")
    huge = "x" * 8_000_000
    for token in (
        forge.token(padding=huge),
        forge.token(claims={"padding": huge}),
        forge.token(sign=lambda _: huge.encode()),
        forge.token(padding="x" * 2_048),  # within the limit of a token, over that of its header
    ):
        tracemalloc.start()
        with pytest.raises(Malformed, match="at most"):
            forge.verify(token)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000


def test_keys_that_come_with_the_token_are_never_used() -> None:
    """CVE-2018-0114 (node-jose) and CVE-2026-34240 (jose for Dart): the header brings the attacker's public key, and
    the token verifies under it."""
    forge, attacker = Forge("ES256"), Key.generate("ES256", kid="attacker")
    brought: dict[str, Any] = {
        "jwk": attacker.jwk(),
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "x5c": ["MIIB"],
    }
    for name, value in brought.items():
        for kid in (attacker.kid, forge.key.kid, ...):
            forge.refuses(forge.token(sign=attacker.sign, kid=kid, **{name: value}))
        forge.refuses(forge.token(**{name: value}), Malformed)  # nor is it ignored on a genuine token
    forge.refuses(forge.token(sign=attacker.sign, kid=attacker.kid))


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "x' UNION SELECT 'secret' --",
        "| cat /etc/passwd",
        "https://evil.example/key",
        "",
        "x\0y",
        "k" * 4096,
        None,
        0,
        ["a"],
        {"a": 1},
    ],
)
def test_a_kid_is_looked_up_in_the_ring_and_nowhere_else(kid: Any) -> None:
    """The kid as a path, a statement or a command: an empty file, or a row of the attacker's making, becomes the
    secret (a class of its own in many home-made verifiers)."""
    forge = Forge("HS256")
    for secret in (b"", b"secret", bytes(32)):
        forge.refuses(forge.token(kid=kid, sign=hs256(secret)))
    forge.refuses(forge.token(kid=kid))  # not even with the right secret: it is not the key's name


def encrypted(forge: Forge, plain: str, **header: str) -> str:
    protected = {"alg": "RSA-OAEP", "enc": "A256GCM", "kid": forge.key.kid, "typ": "at+jwt"} | header
    token = jwe.JWE(plain.encode(), protected=json.dumps(protected))
    token.add_recipient(jwk.JWK(**{k: v for k, v in forge.key.jwk().items() if k not in ("use", "alg")}))
    text: str = token.serialize(compact=True)
    return text


def test_an_encrypted_token_is_not_a_signed_one() -> None:
    """CVE-2023-51774 (json-jwt): anybody can encrypt claims to a public key; the decoder takes JWE for JWS and the
    attacker's claims for verified."""
    forge = Forge("RS256")
    token = encrypted(forge, json.dumps(forge.claims))
    assert token.count(".") == 4
    forge.refuses(token, Malformed)
    for part in ("enc", "zip", "epk", "p2c"):
        header: dict[str, Any] = {part: "A256GCM"}
        forge.refuses(forge.token(**header), Malformed)


def test_a_compressed_bomb_is_never_inflated() -> None:
    """CVE-2024-33664 (python-jose), CVE-2024-28102 and CVE-2026-39373 (jwcrypto): a small JWE inflates to hundreds
    of megabytes."""
    forge = Forge("RS256")
    bomb = encrypted(forge, "0" * 10_000_000, zip="DEF")
    assert len(bomb) < 16_384
    tracemalloc.start()
    forge.refuses(bomb, Malformed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "exp",
    ["NaN", "Infinity", "-Infinity", "1e400", "1e300", '"9999999999"', "null", "true", "[]", "{}", "-1", "0", "1e-9"],
)
def test_a_time_is_a_finite_number(exp: str) -> None:
    """CVE-2026-44459 (hono): exp is NaN, no number at all, or 0, each comparison with it is false or skipped, and
    the token never expires."""
    forge = Forge()
    for claim in ("exp", "iat", "nbf"):
        if claim != "exp" and exp in ("0", "1e-9"):
            continue  # long ago is a fine time to have been issued
        claims = {**forge.claims, claim: "TIME"}
        payload = json.dumps(claims).replace('"TIME"', exp)
        with pytest.raises(CredentialError):
            forge.verify(forge.signed(json.dumps(forge.header), payload))


def test_a_token_without_expiry_is_refused() -> None:
    """A verifier that judges `exp` only if it is there takes a token without it for ever (many libraries' default)."""
    forge = Forge()
    del forge.claims["exp"]
    forge.refuses(forge.token(), WrongClaim)


def test_a_member_named_twice_is_refused() -> None:
    """Parsers disagree on which of two members counts: a gateway sees one subject, the application another."""
    forge = Forge()
    twice = json.dumps(forge.claims)[:-1] + ', "sub": "root"}'
    forge.refuses(forge.signed(json.dumps(forge.header), twice), Malformed)
    header = json.dumps(forge.header)[:-1] + ', "alg": "none"}'
    forge.refuses(forge.signed(header, json.dumps(forge.claims)), Malformed)


def test_tokens_of_another_kind_are_not_access_tokens() -> None:
    """Cross-JWT confusion (RFC 8725, 2.8): an ID token or logout token of the same issuer passes for an access
    token."""
    forge = Forge()
    for typ in ("JWT", "logout+jwt", "dpop+jwt", "secevent+jwt", "coatcheck-session+jwt", "", ..., "at+jwt+jwt"):
        forge.refuses(forge.token(typ=typ), WrongClaim, Malformed)


def test_one_signature_has_one_spelling() -> None:
    """Lenient base64 lets one token have many spellings, so that a list of spent or revoked tokens misses them."""
    forge = Forge("ES256")
    token = forge.token()
    head, signature = token[:-86], token[-86:]
    last = {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]
    for twin in (signature[:-1] + last, signature + "=", signature + "==", signature + "\n", " " + signature):
        forge.refuses(head + twin)
    forge.refuses(token + ".")
    forge.refuses(" " + token)
    assert forge.verify(token) == "ann"


def test_the_newest_key_signs_whatever_the_number_of_retired_ones() -> None:
    """CVE-2025-47278 (Flask): the list of keys was built the wrong way round, and the oldest key went on signing."""
    old, older, new = (Key.generate("ES256", kid=kid) for kid in ("old", "older", "new"))
    secrets = [hashlib.sha256(bytes([n])).digest() for n in range(3)]
    ring = Keyring(new, retired=[old, older], secret=secrets[0], retired_secrets=secrets[1:])
    token = Keyring(old, secret=secrets[1])
    assert ring.signing_key().kid == "new"
    assert ring.derive("refresh")[0] == Keyring(new, secret=secrets[0]).derive("refresh")[0]
    assert ring.derive("refresh")[1] == token.derive("refresh")[0]
    forge = Forge("ES256")
    forge.coat.keyring.adopt(ring)
    header = json.loads(base64.urlsafe_b64decode(_issued(forge).partition(".")[0] + "=="))
    assert header["kid"] == "new"
    forge.key = older
    assert forge.verify(forge.token(kid="older")) == "ann"


def _issued(forge: Forge) -> str:
    from coatcheck.run import run

    return run(forge.coat.sessions.issue(run(forge.coat.sessions.create("ann")))).access_token


def test_a_key_that_was_dropped_is_forgotten_at_once() -> None:
    """A verifier that caches what a header meant goes on to accept the tokens of a key that was withdrawn."""
    forge = Forge("ES256")
    token = forge.token()
    assert forge.verify(token) == "ann"
    forge.coat.keyring.adopt(Keyring(Key.generate("ES256"), secret=SECRET))
    forge.refuses(token, BadSignature)


def test_signatures_of_weak_curves_and_foreign_keys_are_refused() -> None:
    """A key of another curve under our kid, and a signature over another hash, do not verify."""
    forge = Forge("ES256")
    foreign = ec.generate_private_key(ec.SECP384R1())
    forge.refuses(forge.token(sign=lambda data: foreign.sign(data, ec.ECDSA(hashes.SHA256()))))
    forge.refuses(forge.token(sign=Key.generate("ES256").sign))
