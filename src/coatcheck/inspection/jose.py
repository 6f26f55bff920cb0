"""The algorithms of JOSE, and what keys they have (RFC 7518, RFC 8037, RFC 8812, RFC 9864)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Algorithm(NamedTuple):
    """What keys an algorithm has, and what it is for: "sig" or "enc"."""

    types: tuple[str, ...]
    curves: tuple[str, ...]
    use: str


# fmt: off
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    r"HS(256|384|512)":                               Algorithm(("oct",), (), "sig"),
    r"[RP]S(256|384|512)":                            Algorithm(("RSA",), (), "sig"),
    r"ES256":                                         Algorithm(("EC",), ("P-256",), "sig"),
    r"ES384":                                         Algorithm(("EC",), ("P-384",), "sig"),
    r"ES512":                                         Algorithm(("EC",), ("P-521",), "sig"),
    r"ES256K":                                        Algorithm(("EC",), ("secp256k1",), "sig"),
    r"EdDSA":                                         Algorithm(("OKP",), ("Ed25519", "Ed448"), "sig"),
    r"Ed25519":                                       Algorithm(("OKP",), ("Ed25519",), "sig"),
    r"Ed448":                                         Algorithm(("OKP",), ("Ed448",), "sig"),
    r"RSA1_5|RSA-OAEP(-(256|384|512))?":              Algorithm(("RSA",), (), "enc"),
    r"ECDH-ES(\+A(128|192|256)KW)?":
        Algorithm(("EC", "OKP"), ("P-256", "P-384", "P-521", "X25519", "X448"), "enc"),
    r"A(128|192|256)(GCM)?KW|dir":                    Algorithm(("oct",), (), "enc"),
    r"PBES2-HS(256|384|512)\+A(128|192|256)KW":       Algorithm(("oct",), (), "enc"),
    r"A(128|192|256)GCM|A128CBC-HS256|A192CBC-HS384|A256CBC-HS512": Algorithm(("oct",), (), "enc"),
}
# fmt: on


def algorithm(name: object) -> Algorithm | None:
    """Return what is known of an algorithm, or None if it is none; names are compared with their case (J1)."""
    for pattern, known in _ALGORITHMS.items():
        if isinstance(name, str) and re.fullmatch(pattern, name):
            return known
    return None
