"""Walking through a PostgresStore: page by page, in the order of the ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.store import Page
from coatcheck.stores.walking import PAGE, read_page

if TYPE_CHECKING:
    from coatcheck.stores.postgres_wire import Answer

_WALK: Final = """
    SELECT subject, version, seen_at, expires_at, body, id FROM coatcheck_record
    WHERE id > $1 ORDER BY id LIMIT $2
"""
# Counted where that is quick; else the planner's estimate will do. It is -1 before the first ANALYZE.
_SIZE: Final = """
    SELECT CASE WHEN reltuples < 1000000 THEN (SELECT count(*) FROM coatcheck_record) ELSE reltuples END::bigint
    FROM pg_class WHERE oid = 'coatcheck_record'::regclass
"""


async def walk(
    ask: Callable[..., Awaitable[Answer]], read: Callable[[str, bytes, tuple[Any, ...]], Record]
) -> AsyncIterator[Page]:
    """Yield every record; see `Walkable.walk`.

    Args:
        ask: runs a statement, as `PostgresPlace` does.
        read: makes a record of an id, its octets and a row.
    """
    last = b""
    while True:
        rows = (await ask(_WALK, (last, PAGE), again=True)).rows
        if rows:
            yield read_page([(base64url.encode(row[5]), row) for row in rows], lambda id, row: read(id, row[5], row))
        if len(rows) < PAGE:
            return
        last = rows[-1][5]


async def size(ask: Callable[..., Awaitable[Answer]]) -> int:
    """Return about how many records there are; see `Walkable.size`."""
    return int((await ask(_SIZE, (), again=True)).rows[0][0])
