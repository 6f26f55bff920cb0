"""JWT: compact JWS with claims. Who signed it, and what is wrong with how it is written."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from coatcheck.core.keys import Key
from coatcheck.errors import BadSignature, ConfigurationError
from coatcheck.inspection import claims, jwk
from coatcheck.inspection.jose import algorithm
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import KNOWN_SECRETS
from coatcheck.inspection.reading import Read, base64_octets, is_canonical, json_object
from coatcheck.inspection.report import Finding, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed, shown

MOST_OCTETS: Final = 8_192  # what servers take as one header, at least
_FITS_A_COOKIE: Final = 4_096
_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
MAX_HEADER: Final = 65_536
_SHOWN: Final[tuple[str, ...]] = ("alg", "typ", "kid")
_OWN_KEY: Final = ("dpop+jwt", "dbsc+jwt")  # proofs of a key carry it
_KEYS_IN_HEADER: Final[tuple[str, ...]] = ("jku", "jwk", "x5u", "x5c")
_ODD: Final = re.compile(r"\.\.|^/|[\x00-\x20'\"<>;|`$\\\x7f]")
# Octets of a signature. RSA's are as long as the key, which is not known here.
_LENGTHS: Final[Mapping[str, tuple[int, ...]]] = {
    "HS256": (32,), "HS384": (48,), "HS512": (64,), "ES256": (64,), "ES256K": (64,), "ES384": (96,), "ES512": (132,),
    "EdDSA": (64, 114), "Ed25519": (64,), "Ed448": (114,),
}  # fmt: skip
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_LEAST_OF_RSA: Final = 256  # octets: a key of 2048 bits
_SHORT_KEYS: Final = (64, 96, 128, 192)  # octets of the signatures by RSA keys that are too short
_MOST: Final = 50  # tokens in one text
_UNCHECKED: Final = "not checked: give the issuer's keys with --jwks to have it checked"


@dataclass(frozen=True)
class _Token:
    """A token taken apart, leniently."""

    segments: list[str]
    header: dict[str, Any]
    payload: bytes
    signature: bytes
    problems: tuple[Finding, ...]

    @property
    def signed(self) -> bytes:
        return ".".join(self.segments[:2]).encode("utf-8", "surrogateescape")

    @property
    def alg(self) -> str:
        return str(self.header.get("alg"))

    @property
    def typ(self) -> str:
        typ = self.header.get("typ")
        return typ.lower().removeprefix("application/") if isinstance(typ, str) else ""


def explain(text: str, looking: Looking) -> Report | None:
    """Explain a JWT."""
    segments = text.split(".")
    header = _object(segments[0])
    if len(segments) < 2 or header is None or not {"alg", "typ"} & header.members.keys():
        return None
    token = _read(segments, header)
    if token is None:
        return _damaged(segments, header)
    found = [*token.problems, *_header(token), *_known_secret(token), *size_of(text)]
    signer, doubts = _judged(token, looking.keys)
    facts: dict[str, str] = {name: shown(str(token.header[name])) for name in _SHOWN if name in token.header}
    facts["signature"] = signer
    read = json_object(token.payload)
    if read is None:
        found.append(finding("json-loose", "its payload is no JSON object, so it has no claims"))
        summary = "A signed text that is no token: a JWT carries claims, in a JSON object."
        return Report(kind="JWS", summary=summary, facts=facts, findings=(*found, *doubts))
    if read.problem:
        found.append(finding("json-loose", f"its claims: {read.problem}"))
    kind = claims.kind_of(token.typ, read.members)
    said, wrong = claims.judge(kind, read.members, looking.now)
    return Report(kind=kind.name, summary=kind.summary, facts=facts | said, findings=(*found, *doubts, *wrong))


def several(text: str, looking: Looking) -> Report | None:
    """Explain several JWTs, one after the other."""
    words = text.split()
    if not 2 <= len(words) <= _MOST or not all(_is_whole(word) for word in words):
        return None
    return Report(
        kind="several tokens",
        summary=f"{len(words)} tokens, one after the other; each is looked at by itself.",
        parts=tuple(part for number, word in enumerate(words, 1) for part in looking.into(f"token {number}", word)),
    )


def size_of(text: str) -> list[Finding]:
    """Return what is wrong with a token's size."""
    if len(text) > MOST_OCTETS:
        return [finding("token-size", f"it has {len(text)} octets")]
    if len(text) > _FITS_A_COOKIE:
        return [finding("token-size", f"it has {len(text)} octets, and does not fit into a cookie", "low")]
    return []


def strange_kid(header: dict[str, Any]) -> list[Finding]:
    """Return what is wrong with the kid of a header."""
    kid = header.get("kid", "")
    if not isinstance(kid, str) or len(kid) > 128 or _ODD.search(kid):
        return [finding("kid-odd", "its kid is no short plain text")]
    return []


def _is_whole(text: str) -> bool:
    segments = text.split(".")
    header = _object(segments[0])
    return len(segments) == 3 and header is not None and "alg" in header.members


def _object(segment: str) -> Read | None:
    octets = base64_octets("".join(segment.split())) if len(segment) <= MAX_HEADER else None
    return None if octets is None else json_object(octets)


def _read(segments: list[str], header: Read) -> _Token | None:
    octets = [base64_octets("".join(segment.split())) for segment in segments[1:]]
    if len(octets) != 2 or octets[0] is None or octets[1] is None:
        return None
    problems = [finding("json-loose", f"its header: {header.problem}")] if header.problem else []
    if not all(map(is_canonical, segments)):
        problems.append(finding("not-canonical", "it is not written in plain base64url"))
    return _Token(segments, header.members, octets[0], octets[1], tuple(problems))


def _damaged(segments: list[str], header: Read) -> Report:
    """Say that this was a token once: cut off by a terminal or a log, mostly."""
    facts: dict[str, str] = {name: shown(str(header.members[name])) for name in _SHOWN if name in header.members}
    words = f"it has {len(segments)} parts" if len(segments) != 3 else "one of its parts is no base64url"
    return Report(
        kind="damaged JWT",
        summary="It begins like a JWT, and is none: a JWT has three parts in base64url. Was it cut off?",
        facts=facts,
        findings=(finding("not-canonical", words),),
    )


def _header(token: _Token) -> list[Finding]:
    header, found = token.header, list[Finding]()
    if token.alg.lower() == "none":
        found.append(finding("alg-none", f"alg is {shown(token.alg)}"))
    elif (known := algorithm(header.get("alg"))) is None or known.use != "sig":
        found.append(finding("alg-unknown", f"alg is {shown(token.alg)}, which signs nothing"))
    keys = [name for name in _KEYS_IN_HEADER if name in header]
    if token.typ in _OWN_KEY:
        found += _carried(header) if token.typ == "dpop+jwt" else []
        keys = [name for name in keys if name != "jwk"]
    if keys:
        found.append(finding("key-in-header", f"its header has {listed(keys)}"))
    if "crit" in header or "b64" in header:
        found.append(finding("crit", f"its header has {'crit' if 'crit' in header else 'b64'}"))
    return [*found, *strange_kid(header)]


def _carried(header: dict[str, Any]) -> list[Finding]:
    members = header.get("jwk")
    if not isinstance(members, dict):
        return [finding("key-missing", "its header has no jwk")]
    public = jwk.kind_of(cast("dict[str, Any]", members)) == "public"
    return [] if public else [finding("private-published", "the key in its header is not a public one")]


def _known_secret(token: _Token) -> list[Finding]:
    digest = _HASHES.get(token.alg)
    if digest is None:
        return []
    macs = (hmac.digest(secret.encode(), token.signed, digest) for secret in KNOWN_SECRETS)
    if not any(hmac.compare_digest(mac, token.signature) for mac in macs):
        return []
    return [finding("secret-known", f"one of {len(KNOWN_SECRETS)} secrets that everybody tries has signed it")]


def _judged(token: _Token, keys: tuple[Key, ...]) -> tuple[str, list[Finding]]:
    """Say who has signed a token, and what is wrong about that, with keys and without."""
    signer, doubts = _signer(token, keys)
    words, found = _impossible(token)
    return words or signer, [*found, *(doubt for doubt in doubts if not found or doubt.id != "bad-signature")]


def _impossible(token: _Token) -> tuple[str, list[Finding]]:
    """Say why nobody who keeps to a token's algorithm can have made its signature, whatever the key; "" if one can."""
    octets, alg = len(token.signature), token.alg
    right = octets in _LENGTHS[alg] if alg in _LENGTHS else octets >= _LEAST_OF_RSA
    if right or (alg not in _LENGTHS and alg not in _OF_RSA):
        return "", []
    if not octets:
        return "none, though alg promises one", [finding("bad-signature", "the signature is missing")]
    if alg in _OF_RSA and octets in _SHORT_KEYS:
        return f"by an RSA key of {octets * 8} bits", [finding("rsa-short", f"an RSA key of {octets * 8} bits made it")]
    makes = " or ".join(map(str, _LENGTHS.get(alg, (f"{_LEAST_OF_RSA} and more",))))
    words = f"the signature has {octets} octets, and {alg} makes {makes}"
    return f"none that {alg} makes", [finding("bad-signature", words)]


def _signer(token: _Token, keys: tuple[Key, ...]) -> tuple[str, list[Finding]]:
    """Say who has signed a token, and what is wrong about that."""
    if token.typ in _OWN_KEY and isinstance(token.header.get("jwk"), dict):
        return _signed_by_its_own(token)
    if token.alg.lower() == "none":
        return "none", []
    if not keys:
        return _UNCHECKED, []
    named = [key for key in keys if key.kid == token.header.get("kid")]
    for key in named or keys:
        if key.answers_to(token.alg) and _fits(token, key):
            return f"checked: made with the key {shown(key.kid)} ({key.alg})", []
    return _not_signed(token, named)


def _not_signed(token: _Token, named: list[Key]) -> tuple[str, list[Finding]]:
    if named and not named[0].answers_to(token.alg):
        words = f"alg is {shown(token.alg)}, and the key of this kid is for {named[0].alg}"
        return "not made with the key that it names", [finding("alg-not-the-keys", words)]
    if named or "kid" not in token.header:
        return "not made with the keys given", [finding("bad-signature", "the signature does not fit")]
    return "not checked: none of the keys given has its kid", [
        finding("kid-unknown", "its key is not among those given")
    ]


def _signed_by_its_own(token: _Token) -> tuple[str, list[Finding]]:
    try:
        key = Key.from_jwk(jwk.public_members(token.header["jwk"]))
    except ConfigurationError:
        return "not checked: the key in its header is not one that we can use", []
    if key.answers_to(token.alg) and _fits(token, key):
        return f"checked: made with the key that it carries ({key.alg}), whose thumbprint is {key.kid}", []
    return "not made with the key that it carries", [finding("bad-signature", "the signature does not fit")]


def _fits(token: _Token, key: Key) -> bool:
    try:
        key.verify(token.signature, token.signed)
    except BadSignature:
        return False
    return True
