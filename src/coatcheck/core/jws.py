"""Compact JWS (RFC 7515, section 7.1), signed and verified. The key decides, the header must agree.

For use inside coatcheck: `verify` says who signed and for what kind of use, and nothing about the claims. It
is not part of the public API, where every call that verifies a signature also judges the claims.

header     rule
alg        the very name of the key's algorithm; for an Ed25519 key also the older name EdDSA (J1, RFC 9864)
kid        names a key of the ring; may be missing if the ring has exactly one key (J11)
typ        the kind of token, compared as a media type; never missing (J14)
cty        a string, and otherwise ignored: a token in a token is no claims
REFUSED    see there
others     ignored (RFC 7515, section 4)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from coatcheck.core import base64url, strict_json
from coatcheck.core.jwk import MAX_KID
from coatcheck.core.keys import Key, Keyring, Roles
from coatcheck.errors import BadSignature, InvalidValue, Malformed, WrongClaim

MAX_TOKEN: Final = 16_384  # characters of a whole token
_MAX_HEADERS: Final = 64  # remembered by one ring; an issuer has one for each key and typ
MAX_HEADER: Final = 2_048  # characters of its header segment

# Header parameters that make a token something we do not verify (J8, J9, J10, J16), and why.
REFUSED: Final[dict[str, str]] = {
    "crit": "we understand no extension, so whatever is critical is not understood (RFC 7515, 4.1.11)",
    "b64": "an unencoded payload is never a JWT (RFC 7797, 7)",
    "jku": "keys come from the ring, never from a token",
    "jwk": "keys come from the ring, never from a token",
    "x5u": "keys come from the ring, never from a token",
    "x5c": "keys come from the ring, never from a token",
    "x5t": "keys come from the ring, never from a token",
    "x5t#S256": "keys come from the ring, never from a token",
    "enc": "an encrypted token (JWE) is not a signed one",
    "zip": "an encrypted token (JWE) is not a signed one",
    "epk": "an encrypted token (JWE) is not a signed one",
    "p2s": "an encrypted token (JWE) is not a signed one",
    "p2c": "an encrypted token (JWE) is not a signed one",
}

_TYP = re.compile(r"[a-z0-9][a-z0-9.-]*\+jwt|JWT")


@dataclass(frozen=True, slots=True)
class Parts:
    """A compact JWS taken apart; its shape is right, and nothing else has been judged."""

    segment: str
    header: dict[str, Any]
    payload: bytes
    signature: bytes
    signed: bytes


def sign(payload: bytes, key: Key, *, typ: str) -> str:
    """Return the token with this payload.

    Args:
        payload: the claims, in JSON.
        key: a private or symmetric key; its kid goes into the header.
        typ: the kind of token, in lower case and without "application/", such as "at+jwt".

    Raises:
        ConfigurationError: the key cannot sign.
        InvalidValue: the token would be over the limit of 16 KiB, or `typ` is no kind of token.
    """
    if not _TYP.fullmatch(typ):
        raise InvalidValue("typ is a media type that ends in +jwt, without application/")
    signed = f"{key.header_segment(typ)}.{base64url.encode(payload)}"
    token = f"{signed}.{base64url.encode(key.sign(signed.encode('ascii')))}"
    if len(token) > MAX_TOKEN:
        raise InvalidValue(f"a token has at most {MAX_TOKEN} characters")
    return token


def verify(token: str | bytes, ring: Keyring, *, typ: str) -> bytes:
    """Return the payload of a token that a key of `ring` signed for this kind of use.

    Not checked: the claims. No payload may be used before `claims.judge`, or its like for other kinds, has
    seen it.

    Args:
        token: in compact form, 16 KiB at most.
        ring: the only place where keys are looked for.
        typ: the kind expected, in the spelling of `claims.TYPES`.

    Raises:
        Malformed: the token is not a compact JWS, or has a header that we refuse.
        BadSignature: no key of the ring has this kid, the algorithm is not the key's, or the signature does
            not fit.
        WrongClaim: it is genuine but of another kind (`claim` is "typ").
    """
    roles = ring.roles  # taken once: a rotation that comes in between is seen by the next call
    segment, payload, signature, signed = _split(token)
    known = roles.headers.get(segment)
    key, its_typ = known or _judge_header(_header(segment), roles)
    key.verify(signature, signed)
    if known is None and len(roles.headers) < _MAX_HEADERS:
        roles.headers[segment] = (key, its_typ)  # only after a genuine signature: strangers cannot fill it
    if its_typ != typ and its_typ != typ.lower():  # most are in lower case already, all but the ID token
        raise WrongClaim("typ", "the token is of another kind")
    return payload


def parse(token: str | bytes) -> Parts:
    """Take a compact JWS apart, judging nothing but its shape: for proofs that carry their own key.

    Raises:
        Malformed: it is not a compact JWS of a bearable size.
    """
    segment, payload, signature, signed = _split(token)
    return Parts(segment, _header(segment), payload, signature, signed)


def media_type(typ: object) -> str | None:
    """Return a header's `typ` in lower case, without "application/" (RFC 7515, section 4.1.9); None if it has none.

    Raises:
        Malformed: it is there, but is no string in ASCII.
    """
    if typ is None:
        return None
    if not isinstance(typ, str) or not typ.isascii():
        raise Malformed("typ is not a media type")
    return typ.lower().removeprefix("application/")


def _split(token: str | bytes) -> tuple[str, bytes, bytes, bytes]:
    """Return the header segment, payload, signature, and what was signed.

    A third dot, as in the five parts of a JWE, ends up in the payload, where base64url has no such letter.
    """
    if len(token) > MAX_TOKEN:
        raise Malformed(f"a token has at most {MAX_TOKEN} characters")
    try:
        text = token if isinstance(token, str) else token.decode("ascii")
        signed, _, last = text.rpartition(".")
        data = signed.encode("ascii")
    except ValueError:
        raise Malformed("a token is ASCII text") from None
    segment, dot, middle = signed.partition(".")
    if not dot:
        raise Malformed("a token has three parts")
    payload, signature = base64url.decode_pair(middle, last)
    return segment, payload, signature, data


def _header(segment: str) -> dict[str, Any]:
    if len(segment) > MAX_HEADER:
        raise Malformed(f"a token's header has at most {MAX_HEADER} characters")
    return strict_json.loads(base64url.decode(segment))


def _judge_header(header: dict[str, Any], roles: Roles) -> tuple[Key, str | None]:
    for name in header:
        if name in REFUSED:
            raise Malformed(f"header parameter {name} is refused: {REFUSED[name]}")
    if not isinstance(header.get("cty", ""), str):
        raise Malformed("cty is not a media type")
    typ = media_type(header.get("typ"))
    key = _find(header, roles)
    if not key.answers_to(header.get("alg")):
        raise BadSignature("the token's algorithm is not its key's")
    return key, typ


def _find(header: dict[str, Any], roles: Roles) -> Key:
    if "kid" in header:
        kid = header["kid"]
        if not isinstance(kid, str) or len(kid) > MAX_KID:
            raise Malformed(f"kid is a string of at most {MAX_KID} characters")
        key = roles.by_kid.get(kid)
    else:
        # Ours always name their key. Foreign ones need not where there is no choice (RFC 7515, section 4.1.4).
        key = next(iter(roles.by_kid.values())) if len(roles.by_kid) == 1 else None
    if key is None:
        raise BadSignature("no key of ours has this kid")
    return key
