"""PEM: keys and certificates as files hold them. What is private in one is never shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coatcheck.core.keys import MAX_PEM
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.report import Finding, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import shown

_LABEL: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_LEAST_BITS: Final = 2048

# InternalError: what OpenSSL says of a key whose length is another algorithm's.
_UNREADABLE: Final = (ValueError, NotImplementedError, UnsupportedAlgorithm, InternalError)

Load = Callable[[bytes], Any]


# That a key's primes are prime takes long to find out for the large ones that a stranger may send; nothing is signed.
def _private(octets: bytes) -> Any:
    return serialization.load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=True).public_key()


def _ssh(octets: bytes) -> Any:
    return serialization.load_ssh_private_key(octets, None, unsafe_skip_rsa_key_validation=True).public_key()


def _certified(octets: bytes) -> Any:
    return x509.load_pem_x509_certificate(octets).public_key()


# By the end of the label: there are many kinds of private keys. The first that fits counts.
_LOADERS: Final[Mapping[str, tuple[str, Load]]] = {
    "OPENSSH PRIVATE KEY": ("private", _ssh),
    "PRIVATE KEY": ("private", _private),
    "PUBLIC KEY": ("public", serialization.load_pem_public_key),
    "CERTIFICATE": ("certified", _certified),
}
_SUMMARIES: Final = {
    "private": "A private key: who has this text can sign with it, or read what is encrypted for it.",
    "public": "A public key: signatures are checked with it, and nobody can sign with it.",
    "certified": "A certificate: somebody states whose public key this is. By whom, and until when, is not looked at.",
}


def explain(text: str, _looking: Looking) -> Report | None:
    """Explain the first key or certificate in a PEM file."""
    label = _LABEL.match(text)
    ending = next((each for each in _LOADERS if label and label[1].endswith(each)), None)
    if label is None or ending is None or len(text) > MAX_PEM:
        return None
    kind, load = _LOADERS[ending]
    facts, found = _judged(text, load)
    private = (finding("private-key", "a private key"),) if kind == "private" else ()
    return Report(
        kind="PEM", summary=_SUMMARIES[kind], facts={"label": shown(label[1])} | facts, findings=(*private, *found)
    )


def _judged(text: str, load: Load) -> tuple[dict[str, str], tuple[Finding, ...]]:
    try:
        key = load(text.encode("utf-8", "surrogateescape"))
    except TypeError:
        return {"key": "it takes a password to read it"}, ()
    except _UNREADABLE:
        return {"key": "it cannot be read here"}, ()
    if isinstance(key, rsa.RSAPublicKey):
        short = key.key_size < _LEAST_BITS
        found = (finding("rsa-short", f"the key has {key.key_size} bits"),) if short else ()
        return {"key": f"RSA, {key.key_size} bits"}, found
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"key": f"elliptic curve, {key.curve.name}"}, ()
    return {"key": type(key).__name__.strip("_").removesuffix("PublicKey")}, ()
