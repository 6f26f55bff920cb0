"""Rows: how a record lies in PostgreSQL, and the statements that are sent for nearly every request.

A record's times, version and subject are columns, and the rest is its encoding, with a checksum that binds it to the id
and the subject.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from coatcheck.core.record import Record
from coatcheck.stores.encoding import id_octets, protect, unprotect
from coatcheck.stores.postgres_statement import (
    BOOL,
    BOOLS,
    BYTEA,
    BYTEAS,
    INT4,
    INT4S,
    INT8,
    INT8S,
    TEXT,
    TEXTS,
    Statement,
)

Row = tuple[Any, ...]

LOAD: Final = Statement(
    "coatcheck_load",
    (BYTEA,),
    "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = $1",
)
LOAD_MANY: Final = Statement(
    "coatcheck_load_many",
    (BYTEAS,),
    "SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record WHERE id = ANY ($1)",
)


class Write(NamedTuple):
    """How a row is written: alone, for an array of one would cost half as much again; and together with others."""

    one: Statement
    all: Statement


REPLACE: Final = Write(
    Statement(
        "coatcheck_replace",
        (BYTEA, TEXT, INT4, INT8, INT8, BOOL, BYTEA),
        """
        UPDATE coatcheck_record SET
            version = $3,
            seen_at = greatest(seen_at, $4),
            expires_at = CASE WHEN $6 THEN $5 ELSE greatest(expires_at, $5) END,
            superseded = $6,
            body = $7
        WHERE id = $1 AND subject IS NOT DISTINCT FROM $2 AND version = $3 - 1
        """,
    ),
    Statement(
        "coatcheck_replace_many",
        (BYTEAS, TEXTS, INT4S, INT8S, INT8S, BOOLS, BYTEAS, TEXT),
        """
        SELECT coatcheck_replace_all(
            $1::bytea[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bytea[], $8
        )
        """,
    ),
)
TOUCH: Final = Write(
    Statement("coatcheck_touch", (BYTEA, INT8, INT8), "SELECT coatcheck_touch($1, $2, $3)"),
    Statement(
        "coatcheck_touch_many",
        (BYTEAS, INT8S, INT8S, TEXT),
        "SELECT coatcheck_touch_all($1::bytea[], $2::bigint[], $3::bigint[], $4)",
    ),
)
AT_ONCE: Final = (LOAD, LOAD_MANY, *REPLACE, *TOUCH)


def storable(subject: str | None) -> bool:
    """Say whether PostgreSQL can store a subject: neither a NUL nor a lone surrogate is text to it."""
    if subject is None:
        return True
    try:
        return b"\0" not in subject.encode()
    except UnicodeEncodeError:
        return False


def row_of(record: Record) -> Row | None:
    """Return the row of a record, or None if it cannot be stored."""
    octets = id_octets(record.id)
    if octets is None or not storable(record.subject):
        return None
    bare = msgspec.structs.replace(record, id="", subject=None, version=0, seen_at=0, expires_at=0)
    body = protect(bare.encode(), _context(octets, record.subject))
    superseded = record.successor is not None
    return octets, record.subject, record.version, record.seen_at, record.expires_at, superseded, body


def record_of(id: str, octets: bytes, row: Row) -> Record:
    """Return the record that was found as a row: subject, version, seen_at, expires_at, body, and whatever else.

    Raises:
        StoreUnavailable: it was damaged.
    """
    subject, version, seen_at, expires_at, body, *_ = row
    bare = Record.decode(unprotect(body, _context(octets, subject)))
    return msgspec.structs.replace(
        bare, id=id, subject=subject, version=version, seen_at=seen_at, expires_at=expires_at
    )


def _context(octets: bytes, subject: str | None) -> bytes:
    return octets if subject is None else octets + b"\1" + subject.encode()
