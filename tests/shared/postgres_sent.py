"""What a PostgresStore sends to its server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.postgres_statement import Statement


def statements(store: PostgresStore) -> list[str]:
    """Have the statements that are sent from now on listed, whichever way they go."""
    pool: Any = store._loops[asyncio.get_running_loop()].pool
    answer, ask, sent = pool.answer, pool.ask, list[str]()

    async def answered(query: str, *rest: Any, **named: Any) -> Any:
        sent.append(query)
        return await answer(query, *rest, **named)

    def asked(statement: Statement, values: Sequence[Any], told: Any) -> bool:
        if not ask(statement, values, told):
            return False
        sent.append(statement.query)
        return True

    pool.answer, pool.ask = answered, asked
    return sent
