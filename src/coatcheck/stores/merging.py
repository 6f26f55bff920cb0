"""The rules of `coatcheck.store` for writing over a record, for stores that merge in Python, not in SQL."""

from __future__ import annotations

import msgspec

from coatcheck.core.record import Record

CUTOFF_MEMORY = 24 * 60 * 60 * 1000
"""How long a subject's cut-off is remembered, in milliseconds."""


def succeed(stored: Record, record: Record) -> Record | None:
    """Return what `replace(record)` stores in place of `stored`, or None if it does not follow that version.

    A session's subject never changes (a sign-in makes a new session): a record of another one replaces nothing.
    """
    if stored.version != record.version - 1 or stored.subject != record.subject:
        return None
    seen_at = max(stored.seen_at, record.seen_at)
    expires_at = record.expires_at if record.successor is not None else max(stored.expires_at, record.expires_at)
    if seen_at == record.seen_at and expires_at == record.expires_at:
        return record
    return msgspec.structs.replace(record, seen_at=seen_at, expires_at=expires_at)


def forward(stored: Record, seen_at: int, expires_at: int) -> Record:
    """Return what `touch` makes of `stored`: times only move forward, and a stump is left alone."""
    if stored.successor is not None or (seen_at <= stored.seen_at and expires_at <= stored.expires_at):
        return stored
    return msgspec.structs.replace(
        stored, seen_at=max(stored.seen_at, seen_at), expires_at=max(stored.expires_at, expires_at)
    )
