"""What the stores that write bytes have in common: ids as 16 octets, and a checksum on whatever is stored.

A record whose bytes were damaged may still decode: one flipped bit in a subject would sign somebody in as
somebody else. So what is stored carries a CRC-32 that also covers whose it is (P4). It is against damage, not
against people who can write to the disk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from zlib import crc32

from coatcheck.core import base64url
from coatcheck.errors import Malformed, StoreUnavailable

_ID_LENGTH: Final = 22
_SUM_SIZE: Final = 4


def id_octets(id: str) -> bytes | None:
    """Return the 16 octets of a session id, or None: what is no id names no record, nor ever a path."""
    return _octets(id) if len(id) == _ID_LENGTH else None


@lru_cache(maxsize=1024)  # a request that writes asks twice, and a page sends several requests
def _octets(id: str) -> bytes | None:
    try:
        return base64url.decode(id)
    except Malformed:
        return None


def document_key(octets: Any) -> str:
    """Return a document's key as it is stored: in octets, so that keys sort by them.

    Raises:
        StoreUnavailable: it was damaged.
    """
    try:
        return str(octets, "utf-8")
    except (TypeError, UnicodeDecodeError):
        raise StoreUnavailable("store damaged: a document's key") from None


def protect(content: bytes, context: bytes) -> bytes:
    """Return `content` with a checksum over `context`, that is whose it is, and itself."""
    return content + crc32(content, crc32(context)).to_bytes(_SUM_SIZE, "big")


def unprotect(stored: bytes, context: bytes) -> bytes:
    """Return the content that `protect` was given.

    Raises:
        StoreUnavailable: it was damaged, or belongs to somebody else.
    """
    content, found = stored[:-_SUM_SIZE], stored[-_SUM_SIZE:]
    if crc32(content, crc32(context)).to_bytes(_SUM_SIZE, "big") != found:
        raise StoreUnavailable("store damaged: a checksum does not match")
    return content
