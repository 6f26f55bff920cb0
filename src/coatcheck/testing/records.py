"""make_record: a record of a session that nobody holds the cookie of."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.testing.clock import START

HOUR = 60 * 60 * 1000


def make_id() -> str:
    """Return a session id that was never used."""
    return base64url.encode(secrets.token_bytes(16))


def make_record(subject: str | None = "alice", **changes: Any) -> Record:
    """Return a record with an id of its own, made at `coatcheck.testing.clock.START`, with an idle timeout of an hour.

    Args:
        subject: whose it is, or None.
        changes: fields of Record that are to be otherwise.
    """
    record = Record(
        id=make_id(),
        digest=secrets.token_bytes(32),
        subject=subject,
        created_at=START,
        signed_in_at=START if subject is not None else 0,
        seen_at=START,
        expires_at=START + HOUR,
        ends_at=START + 24 * HOUR,
        idle=HOUR,
    )
    return msgspec.structs.replace(record, **changes)


def following(record: Record, **changes: Any) -> Record:
    """Return the next version of a record, for `replace`.

    Args:
        record: as it was loaded.
        changes: fields of Record that are to be otherwise.
    """
    return msgspec.structs.replace(record, version=record.version + 1, **changes)
