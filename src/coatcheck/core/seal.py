"""Sealed values (C17): small data that a stranger carries for us and can neither read nor alter.

AES-256-GCM. The text is base64url of

    version 0x01 | key id, 4 bytes | nonce, 12 bytes | ciphertext and tag

Bound in as associated data: the version, the purpose and the name (of the cookie or the field), each
length-prefixed, so that a value sealed for one use is refused in every other. Nothing is compressed: a length
would tell about a secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coatcheck.core import base64url
from coatcheck.errors import BadSignature, ConfigurationError, InvalidValue, Malformed

MAX_SEALED: Final = 4_096  # characters; a cookie holds no more than that with its name (C3)
NONCE_SIZE: Final = 12  # bytes
KEY_SIZE: Final = 32  # bytes

_VERSION: Final = b"\x01"
_HEAD: Final = 1 + 4 + NONCE_SIZE
_TAG: Final = 16


def seal(data: bytes, *, keys: Sequence[bytes], purpose: str, name: str, nonce: bytes, limit: int = MAX_SEALED) -> str:
    """Return `data`, encrypted and authenticated, in letters that fit a cookie.

    Args:
        data: up to about three quarters of the limit; its length stays visible.
        keys: 32 bytes each, as `Keyring.derive` gives them; the first one seals.
        purpose, name: what the value is for, and what it is called there; `unseal` must be told the same.
        nonce: 12 random bytes, new for every call: two values with one nonce and key give both away. A key is
            good for 2^32 of them (NIST SP 800-38D, section 8.3).
        limit: characters that the text may have; what is not for a cookie may have more.

    Raises:
        InvalidValue: the text would be over its limit.
        ConfigurationError: there is no key, or a key or the nonce has the wrong size.
    """
    if not keys or len(nonce) != NONCE_SIZE:
        raise ConfigurationError(f"sealing needs a key and a nonce of {NONCE_SIZE} bytes")
    key_id, cipher = _cipher(keys[0])
    text = base64url.encode(_VERSION + key_id + nonce + cipher.encrypt(nonce, data, _bound(purpose, name)))
    if len(text) > limit:
        raise InvalidValue(f"a sealed value has at most {limit} characters")
    return text


def unseal(text: str | bytes, *, keys: Sequence[bytes], purpose: str, name: str, limit: int = MAX_SEALED) -> bytes:
    """Return what was sealed with one of `keys` for this purpose and name.

    Not checked: when it was sealed, and whether it was seen before; put a time or a number into the data.

    Args:
        text: what `seal` returned.
        keys: the current key and the retired ones that still count.
        purpose, name, limit: the same as when it was sealed.

    Raises:
        Malformed: it is no sealed value.
        BadSignature: none of the keys made it, it was made for another use, or it was altered.
        ConfigurationError: a key has the wrong size.
    """
    if len(text) > limit:
        raise Malformed(f"a sealed value has at most {limit} characters")
    raw = base64url.decode(text)
    if len(raw) < _HEAD + _TAG or not raw.startswith(_VERSION):
        raise Malformed("not a sealed value")
    key_id, nonce = raw[1:5], raw[5:_HEAD]
    bound = _bound(purpose, name)
    for key in keys:
        its_id, cipher = _cipher(key)
        if its_id != key_id:  # public, so it need not be compared in constant time; two keys may share one
            continue
        try:
            return cipher.decrypt(nonce, raw[_HEAD:], bound)
        except InvalidTag:
            continue
    raise BadSignature("not sealed with a key of ours for this use")


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> tuple[bytes, AESGCM]:
    if len(key) != KEY_SIZE:
        raise ConfigurationError(f"a sealing key has {KEY_SIZE} bytes")
    return hmac.digest(key, b"coatcheck seal key id", hashlib.sha256)[:4], AESGCM(key)


def _bound(purpose: str, name: str) -> bytes:
    parts = (purpose.encode("utf-8"), name.encode("utf-8"))
    return _VERSION + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
