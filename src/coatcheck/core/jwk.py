"""JWK and JWKS texts (RFC 7517): read strictly, and judged before any key is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from coatcheck.core import base64url, strict_json
from coatcheck.core.algorithms import ALGORITHMS, Algorithm, Material, named
from coatcheck.errors import ConfigurationError, Malformed

Kind: TypeAlias = Literal["symmetric", "private", "public"]

MAX_KID = 128  # characters
MAX_DOCUMENT = 262_144  # bytes of a JWK or a JWKS

# Any of these makes a JWK a secret (RFC 7518, sections 6.2.2, 6.3.2 and 6.4).
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ALG_NAMES = (*ALGORITHMS, "EdDSA")
# By kind: what `key_ops` must hold when it is there (RFC 7517, section 4.3).
_NEEDED_OPS = {"symmetric": {"sign", "verify"}, "private": {"sign"}, "public": {"verify"}}


class NotOurs(ConfigurationError):
    """The key is for encryption, or of a type or algorithm that is not ours: fine in a set, useless alone."""


def read(document: Mapping[str, object] | bytes) -> dict[str, object]:
    """Return the members of a JWK or JWKS; a parsed one is written out first, so that both are judged alike.

    Raises:
        ConfigurationError: it is not a JSON object, is over its limit, or names a member twice (J15).
    """
    try:
        data = document if isinstance(document, bytes) else msgspec.json.encode(dict(document))
        return strict_json.loads(data, limit=MAX_DOCUMENT)
    except (Malformed, ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        raise ConfigurationError("not a JSON object of a bearable size that names every member once") from None


def judge(members: Mapping[str, object]) -> Algorithm:
    """Return the one algorithm that a JWK is for: `kty` and `crv` name it, the others must agree (J2).

    Raises:
        NotOurs: it is for encryption, or for an algorithm that is not ours.
        ConfigurationError: its members contradict each other.
    """
    for spec in ALGORITHMS.values():
        if members.get("kty") == spec.kty and members.get("crv") == spec.curve:
            break
    else:
        raise NotOurs("no algorithm of ours has keys of this kty and crv")
    if members.get("use", "sig") != "sig":
        raise NotOurs("this JWK is not for signatures: use is not sig")
    alg = members.get("alg", spec.name)
    if alg not in _ALG_NAMES:
        raise NotOurs(f"this JWK is for another algorithm than {spec.name}")
    if named(alg) is not spec:
        raise ConfigurationError(f"this JWK says it is for {alg}, but its kty and crv are those of {spec.name}")
    secret = set(_SECRET_MEMBERS & members.keys())
    if secret and secret != set(spec.private):
        raise ConfigurationError(f"the private members of a JWK for {spec.name} are {', '.join(spec.private)}")
    _judge_ops(members, "symmetric" if spec.kty == "oct" else "private" if secret else "public")
    return spec


def _judge_ops(members: Mapping[str, object], kind: Kind) -> None:
    try:
        ops = msgspec.convert(members.get("key_ops", [*_NEEDED_OPS[kind]]), list[str])
    except msgspec.ValidationError:
        raise ConfigurationError("key_ops is a list of strings") from None
    if len(set(ops)) != len(ops):
        raise ConfigurationError("key_ops names an operation twice")
    if not _NEEDED_OPS[kind] <= set(ops) <= {"sign", "verify"}:
        raise NotOurs(f"key_ops of a {kind} key holds {' and '.join(sorted(_NEEDED_OPS[kind]))}, nothing unrelated")


def refuse_secrets(members: Mapping[str, object]) -> None:
    """Refuse a JWK with private members, whatever its type.

    Raises:
        ConfigurationError: it has one.
    """
    if _SECRET_MEMBERS & members.keys():
        raise ConfigurationError("a published JWKS holds a private or symmetric key: treat that key as stolen")


def checked_kid(kid: object) -> str:
    """Return `kid` if it can be one: opaque, short, visible; never part of a path or a statement (J11).

    Raises:
        ConfigurationError: it is not 1 to 128 visible ASCII characters.
    """
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID or not all("!" <= c <= "~" for c in kid):
        raise ConfigurationError(f"a kid is 1 to {MAX_KID} visible ASCII characters")
    return kid


def thumbprint(spec: Algorithm, public: Material) -> str:
    """Return the RFC 7638 thumbprint: SHA-256 over the required members in lexical order.

    For HS256 that is a hash of the secret (section 7 warns): no more than every token made with it gives
    away, since a secret is random and at least as long as the hash.
    """
    members = spec.dump(public) | {"kty": spec.kty} | ({"crv": spec.curve} if spec.curve else {})
    text = msgspec.json.encode({name: members[name] for name in sorted(members)})
    return base64url.encode(hashlib.sha256(text).digest())
