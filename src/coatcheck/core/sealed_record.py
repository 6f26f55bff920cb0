"""Sealed records: a whole session in a box that its browser keeps, and can neither read nor change.

    the box     the record, sealed (`coatcheck.core.seal`); bound to the name of the session cookie
    the note    "1." when it was last seen, in milliseconds "." HMAC-SHA256 of that, of the cookie's name and of the
                session's id, in base64url

The note is apart from the box because it carries no data: a response that only notes the session's use, and comes
late, can so never put older data back. A note of another session counts for nothing; one of this session only ever
moves `seen_at` forward.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from coatcheck.core import base64url
from coatcheck.core.credentials import MAX_PARTS, PART_SIZE, SessionBox
from coatcheck.core.record import Record
from coatcheck.core.seal import seal, unseal
from coatcheck.errors import InvalidValue, StoreUnavailable

# What `Keyring.derive` is asked for.
BOX_KEYS: Final = "sealed-session"
NOTE_KEYS: Final = "sealed-session seen"

LINE_SIZE: Final = 16  # octets
MAX_TEXT: Final = MAX_PARTS * PART_SIZE
MAX_RECORD: Final = MAX_TEXT * 3 // 4 - 33  # octets: without version, key id, nonce and tag

_PURPOSE: Final = "session"
_NOTE = re.compile(r"1\.([1-9][0-9]{0,15})\.([0-9A-Za-z_-]{43})")


def encode_record(record: Record) -> bytes:
    """Return what a box holds of a session: of its digest the line only, for who has the box has the session.

    Raises:
        InvalidValue: it is larger than the cookies that a session may take.
    """
    if len(record.digest) > LINE_SIZE:
        record = msgspec.structs.replace(record, digest=record.digest[:LINE_SIZE])
    encoded = record.encode()
    if len(encoded) > MAX_RECORD:
        raise InvalidValue(
            f"the sealed session takes {len(encoded)} octets, and its {MAX_PARTS} cookies hold {MAX_RECORD}: "
            "keep less in it, or keep sessions in a store"
        )
    return encoded


def seal_record(encoded: bytes, *, keys: Sequence[bytes], name: str, nonce: bytes) -> SessionBox:
    """Return the box that holds a session.

    Args:
        encoded: the session, as `encode_record` returns it.
        keys: as `Keyring.derive(BOX_KEYS)` returns them.
        name: of the session cookie.
        nonce: 12 random bytes, new for every call.
    """
    return SessionBox(seal(encoded, keys=keys, purpose=_PURPOSE, name=name, nonce=nonce, limit=MAX_TEXT))


def open_record(box: SessionBox, *, keys: Sequence[bytes], name: str) -> Record:
    """Return the session that a box holds.

    Not checked: whether it lives, or was revoked; and whether the box is the newest one of its session.

    Raises:
        Malformed, BadSignature: we did not seal it, or not for this cookie, or its parts do not belong together.
        StoreUnavailable: a newer version of coatcheck sealed it; nobody is signed in, or out, on a guess.
    """
    data = unseal(box.text, keys=keys, purpose=_PURPOSE, name=name, limit=MAX_TEXT)
    try:
        return Record.decode(data)
    except StoreUnavailable:
        raise StoreUnavailable("a newer version has sealed this session") from None


def line_of(record: Record) -> str:
    """Return what names a session and all that comes of it by rotations, in the form of a session's id.

    It is random, and made when the session begins. It is no secret: ends of sessions are told by it.
    """
    return _line(record.digest[:LINE_SIZE])


@lru_cache(4096)
def _line(octets: bytes) -> str:
    return base64url.encode(octets)


def write_note(record: Record, *, key: bytes, name: str) -> str:
    """Return the note that says when a session was last seen.

    Args:
        record: of the session.
        key: the first of `Keyring.derive(NOTE_KEYS)`.
        name: of the session cookie.
    """
    return f"1.{record.seen_at}.{_mac(record.id, str(record.seen_at), key, name)}"


def read_note(note: str, session_id: str, *, keys: Sequence[bytes], name: str) -> int:
    """Return when a session was last seen by its note; 0 for a note that is none, or of another session.

    Not checked: whether it is the newest one.
    """
    match = _NOTE.fullmatch(note)
    if match is not None:
        seen_at, mac = match.groups()
        if any(hmac.compare_digest(_mac(session_id, seen_at, key, name), mac) for key in keys):
            return int(seen_at)
    return 0


def _mac(session_id: str, seen_at: str, key: bytes, name: str) -> str:
    return base64url.encode(hmac.digest(key, f"{name} {session_id} {seen_at}".encode(), "sha256"))
