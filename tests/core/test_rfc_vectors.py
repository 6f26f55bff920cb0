"""The published examples: RFC 7515, 7520, 7638 and 8037, for the algorithms that we have.

They come without `typ`, which our tokens never do, so they are judged one level below `jws.verify`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coatcheck.core import base64url, jws
from coatcheck.core.keys import Key, Keyring
from coatcheck.errors import BadSignature, WrongClaim

VECTORS = Path(__file__).parent / "vectors"
TOKENS: list[dict[str, Any]] = json.loads((VECTORS / "jws.json").read_text("utf-8"))
THUMBPRINTS: list[dict[str, Any]] = json.loads((VECTORS / "thumbprints.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", TOKENS, ids=lambda vector: vector["name"])
def test_j18_the_published_token_verifies(vector: dict[str, Any]) -> None:
    """The signature fits, and does not once a bit of it or of the text is changed."""
    key = Key.from_jwk(vector["key"], alg=vector["alg"])
    parts = jws.parse(vector["compact"])
    key.verify(parts.signature, parts.signed)
    if key.kind == "private":
        key.public().verify(parts.signature, parts.signed)
    for signature, signed in (
        (parts.signature[:-1] + bytes([parts.signature[-1] ^ 1]), parts.signed),
        (parts.signature, parts.signed + b"x"),
    ):
        with pytest.raises(BadSignature):
            key.verify(signature, signed)


@pytest.mark.parametrize("vector", TOKENS, ids=lambda vector: vector["name"])
def test_j14_the_published_token_has_no_typ_of_ours_and_is_refused_for_that(vector: dict[str, Any]) -> None:
    """RFC 7515, A.1 says "JWT", the others nothing: genuine, and still not for any use that we have."""
    key = Key.from_jwk(vector["key"])
    with pytest.raises(WrongClaim):
        jws.verify(vector["compact"], Keyring(key, secret=None), typ="at+jwt")


@pytest.mark.parametrize("vector", [v for v in TOKENS if v["deterministic"]], ids=lambda vector: str(vector["name"]))
def test_j18_we_sign_the_published_text_alike(vector: dict[str, Any]) -> None:
    signed, _, signature = vector["compact"].rpartition(".")
    assert base64url.encode(Key.from_jwk(vector["key"]).sign(signed.encode())) == signature


@pytest.mark.parametrize("vector", THUMBPRINTS, ids=lambda vector: vector["name"])
def test_j19_the_published_thumbprint_is_the_kid(vector: dict[str, Any]) -> None:
    assert Key.from_jwk(vector["key"]).kid == vector["thumbprint"]
