"""JWK and JWKS: which keys they are, and whether they are any good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

from coatcheck.core.algorithms import check_secret
from coatcheck.core.jwk import NotOurs
from coatcheck.core.keys import MAX_KEYS, Key
from coatcheck.errors import ConfigurationError
from coatcheck.inspection.jose import algorithm
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import KNOWN_SECRETS
from coatcheck.inspection.reading import base64_octets, json_object
from coatcheck.inspection.report import Finding, Part, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed, shown

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_NUMBERS: Final = ("kty", "crv", "n", "e", "x", "y")
_LEAST_BITS: Final = 2048
_SIGNING_OPS: Final = frozenset({"sign", "verify"})
_OTHER_OPS: Final = frozenset({"encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"})


def explain(text: str, _looking: Looking) -> Report | None:
    """Explain a JWK or a JWKS, in JSON."""
    if not text.startswith("{"):
        return None
    read = json_object(text.encode("utf-8", "surrogateescape"))
    if read is None:
        return None
    loose = (finding("json-loose", read.problem),) if read.problem else ()
    members = read.members
    if isinstance(members.get("keys"), list):
        return _set(members["keys"], loose)
    return explain_key(members, loose) if "kty" in members else None


def explain_key(members: Mapping[str, Any], found: tuple[Finding, ...] = ()) -> Report:
    """Explain one key that stands alone."""
    private = () if kind_of(members) == "public" else (finding("private-key", f"a {kind_of(members)} key"),)
    return Report(
        kind="JWK",
        summary=f"A {kind_of(members)} key.",
        facts=_facts(members),
        findings=(*found, *private, *judge(members)),
    )


def judge(members: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with a key, wherever it stands."""
    found = [finding("key-contradiction", each) for each in _contradictions(members)]
    if members.get("use") != "enc" and "alg" not in members:
        found.append(finding("alg-missing", "alg is missing"))
    if members.get("kty") == "oct":
        return [*found, *_weak_secret(members)]
    return [*found, *_weak_numbers(members), *_other_kid(members)]


def public_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a key's public half that say which key it is; the whole of a symmetric one stays out."""
    return {name: members[name] for name in _NUMBERS if name in members}


def keys_of(document: bytes) -> tuple[Key, ...]:
    """Return the keys of a JWK or a JWKS that signatures can be checked with; those that are no good are left out.

    Raises:
        ConfigurationError: there are none.
    """
    read = json_object(document)
    if read is None:
        raise ConfigurationError("this is no JWKS: it is not a JSON object")
    entries = cast(
        "list[object]", read.members["keys"] if isinstance(read.members.get("keys"), list) else [read.members]
    )
    keys = [
        key for entry in entries[:MAX_KEYS] if isinstance(entry, dict) if (key := _key(cast("dict[str, Any]", entry)))
    ]
    if not keys:
        raise ConfigurationError("no key in this JWKS can check a signature: HS256, RS256, ES256 and Ed25519 can")
    return tuple(keys)


def _key(members: Mapping[str, Any]) -> Key | None:
    try:
        return Key.from_jwk(members)
    except ConfigurationError:
        return None


def _set(entries: list[Any], found: tuple[Finding, ...]) -> Report:
    members = [cast("dict[str, Any]", entry) for entry in entries[:MAX_KEYS] if isinstance(entry, dict)]
    kids = Counter(str(each["kid"]) for each in members if "kid" in each)
    twice = [kid for kid, count in kids.items() if count > 1]
    more = [finding("kid-twice", f"two keys have the kid {listed(twice)}")] if twice else []
    if not members:
        more.append(finding("set-empty", "there is no key in it"))
    if len(members) > 1 and len(members) > kids.total():
        more.append(finding("kid-missing", "some of the keys have no kid"))
    size = f"{len(entries)} key{'' if len(entries) == 1 else 's'}"
    return Report(
        kind="JWKS",
        summary=f"A set of {size}: what verifiers check an issuer's tokens with.",
        facts={"keys": str(len(entries))},
        findings=(*found, *more),
        parts=tuple(_part(number, each) for number, each in enumerate(members, 1)),
    )


def _part(number: int, members: Mapping[str, Any]) -> Part:
    kind = kind_of(members)
    leak = () if kind == "public" else (finding("private-published", f"the key is {kind}"),)
    report = Report(kind="JWK", summary=f"A {kind} key.", facts=_facts(members), findings=(*leak, *judge(members)))
    return Part(f"key {number}", report)


def kind_of(members: Mapping[str, Any]) -> str:
    """Say whether a key is symmetric, private or public."""
    if members.get("kty") == "oct":
        return "symmetric"
    return "private" if _PRIVATE & members.keys() else "public"


def _facts(members: Mapping[str, Any]) -> dict[str, str]:
    facts = {name: shown(str(members[name])) for name in ("kty", "crv", "alg", "use", "kid") if name in members}
    if members.get("kty") == "RSA" and (bits := _bits(members)):
        facts["size"] = f"{bits} bits"
    if (print_ := _thumbprint(members)) is not None:
        facts["thumbprint"] = print_
    return facts


def _thumbprint(members: Mapping[str, Any]) -> str | None:
    """Return the thumbprint of a public half; that of a symmetric key would help who guesses it."""
    if members.get("kty") == "oct":
        return None
    key = _key(public_members(members))
    return None if key is None else key.kid


def _bits(members: Mapping[str, Any]) -> int:
    modulus = members.get("n")
    octets = base64_octets(modulus) if isinstance(modulus, str) else None
    return int.from_bytes(octets, "big").bit_length() if octets else 0


def _weak_secret(members: Mapping[str, Any]) -> list[Finding]:
    written = members.get("k")
    secret = base64_octets(written) if isinstance(written, str) else None
    if secret is None:
        return [finding("key-damaged", "k is missing, or no base64url")]
    least = {"HS384": 48, "HS512": 64}.get(str(members.get("alg")), 32)
    if secret in [known.encode() for known in KNOWN_SECRETS]:
        return [finding("secret-weak", "the secret is on every list of secrets to try")]
    if len(secret) < least:
        return [finding("secret-weak", f"the secret has {len(secret)} octets, and needs {least}")]
    try:
        check_secret(secret)
    except ConfigurationError as error:
        return [finding("secret-weak", str(error))]
    return []


def _weak_numbers(members: Mapping[str, Any]) -> list[Finding]:
    if members.get("kty") == "RSA" and 0 < (bits := _bits(members)) < _LEAST_BITS:
        return [finding("rsa-short", f"the key has {bits} bits")]
    try:
        Key.from_jwk(public_members(members))
    except NotOurs:
        return []  # a curve that we cannot judge
    except ConfigurationError as error:
        flawed = "ROCA" in str(error) or "exponent" in str(error)
        return [finding("rsa-flawed" if flawed else "key-damaged", str(error))]
    return []


def _other_kid(members: Mapping[str, Any]) -> list[Finding]:
    expected = _thumbprint(members)
    if "kid" not in members or expected is None or members["kid"] == expected:
        return []
    return [finding("kid-not-thumbprint", "the kid is not the key's thumbprint")]


def _contradictions(members: Mapping[str, Any]) -> list[str]:
    kty, crv, alg, use, ops = (members.get(name) for name in ("kty", "crv", "alg", "use", "key_ops"))
    found: list[str] = []
    fits = algorithm(alg)
    if fits is not None:
        if kty not in fits.types or (fits.curves and crv not in fits.curves):
            found.append(f"alg {shown(str(alg))} has no keys of kty {shown(str(kty))} and crv {shown(str(crv))}")
        if use is not None and use != fits.use:
            found.append(f"use is {shown(str(use))}, and alg {shown(str(alg))} is for {fits.use}")
    elif alg is not None:
        found.append(f"alg {shown(str(alg))} is no algorithm of JOSE")
    if ops is not None:
        found += _wrong_ops(ops, use if use is not None else fits.use if fits else None, kind_of(members))
    return found


def _wrong_ops(ops: object, use: object, kind: str) -> list[str]:
    if not isinstance(ops, list) or not all(isinstance(each, str) for each in cast("list[object]", ops)):
        return ["key_ops is no list of texts"]
    names = set(cast("list[str]", ops))
    allowed = {"sig": _SIGNING_OPS, "enc": _OTHER_OPS}.get(str(use), _SIGNING_OPS | _OTHER_OPS)
    words = listed(sorted(names))
    found = [f"use or alg say {shown(str(use))}, and key_ops says {words}"] if names - allowed else []
    if kind == "public" and names and names <= {"sign", "decrypt", "unwrapKey"}:
        found.append(f"a public key cannot do what key_ops says: {words}")
    if len(names) != len(cast("list[str]", ops)):
        found.append("key_ops names an operation twice")
    return found
