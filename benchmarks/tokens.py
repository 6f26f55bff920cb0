"""What it costs to verify and to issue a token: as a ratio to the raw limit, for each algorithm.

    python3 tools/dev.py bench tokens [--only ES256] [--rounds 9] [--record]

The limit of verifying is the signature of the same bytes, and one `json.loads` of the payload; that of issuing is one
`json.dumps` of the claims, and the signature. Neither does base64 nor judges a claim. Everybody is given a key that is
loaded already, and is asked for signature, algorithm, issuer, audience and expiry. Ours remembers the tokens that it
has verified, so it is shown twice: with a token that it has never seen, and with one that it has.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import authlib.deprecate  # it sets a filter of its own, which must come first
import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt
import oxyjwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from suite import command, report
from suite.clocks import backwards
from suite.harness import Case, Spread, Work, measure, ratio

from coatcheck import Key, Keyring, Policy, Revocations, Verifier
from coatcheck.clock import system_clock
from coatcheck.core.claims import build_access_token
from coatcheck.core.jws import sign

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that authlib.jose is to be replaced by joserfc
    import authlib.jose

LIBRARIES: Final = ("cryptography", "msgspec", "pyjwt", "joserfc", "authlib", "jwcrypto", "oxyjwt")
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "Ed25519")
ISSUER, AUDIENCE = "https://auth.example", "https://api.example"
TIMES: Final = {"HS256": 2000, "RS256": 500, "ES256": 500, "Ed25519": 500}

Call = Callable[[], object]
Material = Any


def main() -> None:
    """Measure, and show."""
    options = command.parse(command.parser(__doc__))
    algorithms = [name for name in ALGORITHMS if options.only in name]
    columns: dict[str, dict[str, dict[str, report.Cell]]] = {"verify": {}, "issue": {}}
    for algorithm in algorithms:
        parts = Parts(algorithm)
        for verb, calls in (("verify", verifying(parts)), ("issue", issuing(parts))):
            columns[verb][algorithm] = asyncio.run(ratios(calls, options.rounds, TIMES[algorithm]))
    tables = [table(f"tokens: {verb}", found) for verb, found in columns.items()]
    report.publish("tokens", tables, libraries=LIBRARIES, record=options.record)


async def ratios(calls: Mapping[str, Call], rounds: int, times: int) -> dict[str, report.Cell]:
    """Return what each call costs in units of the first, and that one in microseconds."""
    cases = [Case(name, _repeated(call), times) for name, call in calls.items()]
    timings = await measure(cases, rounds=rounds)
    limit = timings["limit"]
    found: dict[str, report.Cell] = {name: ratio(timing, limit) for name, timing in timings.items() if name != "limit"}
    return {"limit, µs": Spread.of([timing.cpu for timing in limit]), **found}


def table(name: str, found: Mapping[str, Mapping[str, report.Cell]]) -> report.Table:
    """Return a table with a column for each algorithm."""
    rows = [[row, *(column[row] for column in found.values())] for row in next(iter(found.values()))]
    return report.Table(name, ["times the limit", *found], rows)


def _repeated(call: Call) -> Work:
    async def work(times: int) -> None:
        for _ in range(times):
            call()

    return work


class Parts:
    """A key, a token signed with it, and both in the forms that the libraries want."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.older = "EdDSA" if algorithm == "Ed25519" else algorithm  # most libraries know the older name only
        self.material = MAKE[algorithm]()
        now = int(time.time())
        self.build: dict[str, Any] = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "subject": "ann",
            "client_id": "coatcheck",
            "session_id": "A" * 22,
            "token_id": secrets.token_urlsafe(16),
            "issued_at": now,
            "lifetime": 3600,
            "scope": "read write",
            "auth_time": now,
            "amr": ("pwd",),
        }
        self.key = Key(self.older, self.material)
        self.payload = build_access_token(**self.build)
        self.claims: dict[str, Any] = json.loads(self.payload)
        self.token = sign(self.payload, self.key, typ="at+jwt")
        self.newer_token = sign(self.payload, Key(algorithm, self.material), typ="at+jwt")
        head, body, mac = self.token.split(".")
        self.signed = f"{head}.{body}".encode()
        self.signature = base64.urlsafe_b64decode(mac + "==")

    def private_pem(self) -> bytes:
        """Return the key as a file would hold it."""
        if isinstance(self.material, bytes):
            return self.material
        pem: bytes = self.material.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem

    def public(self) -> Material:
        """Return what verifies."""
        return self.material if isinstance(self.material, bytes) else self.material.public_key()

    def public_pem(self) -> bytes:
        """Return what verifies, as a file would hold it."""
        if isinstance(self.material, bytes):
            return self.material
        pem: bytes = self.material.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    @property
    def header(self) -> dict[str, str]:
        """What the libraries put in front."""
        return {"alg": self.older, "kid": self.key.kid, "typ": "at+jwt"}


MAKE: Final[Mapping[str, Callable[[], Material]]] = {
    "HS256": lambda: secrets.token_bytes(32),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def raw_verify(parts: Parts) -> Call:
    """Return the check of the signature alone, with the quickest call there is."""
    public, signature, signed = parts.public(), parts.signature, parts.signed
    if parts.algorithm == "HS256":
        return lambda: hmac.compare_digest(hmac.digest(public, signed, "sha256"), signature)
    if parts.algorithm == "RS256":
        scheme, digest = padding.PKCS1v15(), SHA256()
        return lambda: public.verify(signature, signed, scheme, digest)
    if parts.algorithm == "ES256":
        half, curve = len(signature) // 2, ec.ECDSA(SHA256())
        der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
        return lambda: public.verify(der, signed, curve)
    return lambda: public.verify(signature, signed)


def raw_sign(parts: Parts) -> Call:
    """Return the making of the signature alone."""
    private, signed = parts.material, parts.signed
    if parts.algorithm == "HS256":
        return lambda: hmac.digest(private, signed, "sha256")
    if parts.algorithm == "RS256":
        scheme, digest = padding.PKCS1v15(), SHA256()
        return lambda: private.sign(signed, scheme, digest)
    if parts.algorithm == "ES256":
        curve = ec.ECDSA(SHA256())
        return lambda: private.sign(signed, curve)
    return lambda: private.sign(signed)


def verifying(parts: Parts) -> dict[str, Call]:
    """Return what verifies the token, by name; the limit first."""
    token, older, public = parts.token, parts.older, parts.public()
    raw, payload = raw_verify(parts), parts.payload
    keyring, policy = Keyring(parts.key, secret=secrets.token_bytes(32)), Policy(issuer=ISSUER, audience=AUDIENCE)
    knows_none, knows_it = (
        Verifier(keyring, policy, Revocations(), clock=clock) for clock in (backwards(), system_clock)
    )
    rfc_key = joserfc.jwk.import_key(parts.public_pem(), KTY[parts.algorithm])
    rules = joserfc.jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp={"essential": True}
    )
    authlib_jwt = authlib.jose.JsonWebToken([older])
    authlib_key = authlib.jose.JsonWebKey.import_key(parts.public_pem(), {"kty": KTY[parts.algorithm]})
    wants = {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": AUDIENCE}}
    crypto_key = _jwcrypto_key(parts)
    oxy_key = _oxyjwt_key(parts, oxyjwt.DecodingKey, parts.public_pem())

    def limit() -> None:
        raw()
        json.loads(payload)

    def with_joserfc() -> None:
        rules.validate(joserfc.jwt.decode(parts.newer_token, rfc_key, algorithms=[parts.algorithm]).claims)

    def with_authlib() -> None:
        authlib_jwt.decode(token, authlib_key, claims_options=wants).validate()

    def with_jwcrypto() -> None:
        found = jwcrypto.jwt.JWT(check_claims={"iss": ISSUER, "aud": AUDIENCE, "exp": None}, algs=[older])
        found.deserialize(token, crypto_key)
        json.loads(found.claims)

    ask: Any = {"algorithms": [older], "audience": AUDIENCE, "issuer": ISSUER}
    return {
        "limit": limit,
        "coatcheck": lambda: knows_none.verify(token),
        "coatcheck, seen before": lambda: knows_it.verify(token),
        "oxyjwt (Rust)": lambda: oxyjwt.decode(token, oxy_key, **ask),
        "PyJWT": lambda: jwt.decode(token, public, **ask),
        "joserfc": with_joserfc,
        "Authlib": with_authlib,
        "jwcrypto": with_jwcrypto,
    }


def issuing(parts: Parts) -> dict[str, Call]:
    """Return what makes such a token, by name; the limit first."""
    claims, header, older, material = parts.claims, parts.header, parts.older, parts.material
    newer = {**header, "alg": parts.algorithm}
    raw = raw_sign(parts)
    rfc_key = joserfc.jwk.import_key(parts.private_pem(), KTY[parts.algorithm])
    authlib_key = authlib.jose.JsonWebKey.import_key(parts.private_pem(), {"kty": KTY[parts.algorithm]})
    authlib_jwt = authlib.jose.JsonWebToken([older])
    crypto_key = _jwcrypto_key(parts)
    oxy_key = _oxyjwt_key(parts, oxyjwt.EncodingKey, parts.private_pem())

    def limit() -> None:
        json.dumps(claims)
        raw()

    def with_jwcrypto() -> None:
        made = jwcrypto.jwt.JWT(header=header, claims=claims)
        made.make_signed_token(crypto_key)
        made.serialize()

    return {
        "limit": limit,
        "coatcheck": lambda: sign(build_access_token(**parts.build), parts.key, typ="at+jwt"),
        "oxyjwt (Rust)": lambda: oxyjwt.encode(claims, oxy_key, algorithm=older, headers=header),
        "PyJWT": lambda: jwt.encode(claims, material, algorithm=older, headers=header),
        "joserfc": lambda: joserfc.jwt.encode(newer, claims, rfc_key, algorithms=[parts.algorithm]),
        "Authlib": lambda: authlib_jwt.encode(header, claims, authlib_key),
        "jwcrypto": with_jwcrypto,
    }


KTY: Final[Mapping[str, Any]] = {"HS256": "oct", "RS256": "RSA", "ES256": "EC", "Ed25519": "OKP"}


def _jwcrypto_key(parts: Parts) -> Any:
    if isinstance(parts.material, bytes):
        return jwcrypto.jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(parts.material).rstrip(b"=").decode())
    return jwcrypto.jwk.JWK.from_pem(parts.private_pem())


def _oxyjwt_key(parts: Parts, kind: Any, text: bytes) -> Any:
    makers = {
        "HS256": kind.from_secret,
        "RS256": kind.from_rsa_pem,
        "ES256": kind.from_ec_pem,
        "Ed25519": kind.from_ed_pem,
    }
    return makers[parts.algorithm](text)


if __name__ == "__main__":
    main()
