"""What a RedisStore sends to its server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coatcheck.stores.redis import RedisStore
from coatcheck.stores.redis_scripts import Command


def round_trips(store: RedisStore) -> list[Sequence[Command]]:
    """Have what is sent to its only server from now on listed: the commands of each round trip."""
    link: Any = store._here().link
    [pool] = link._pools.values()
    exchange, ask, sent = pool.exchange, pool.ask, list[Sequence[Command]]()

    async def exchanged(*round_trips: Sequence[Command]) -> Any:
        sent.extend(round_trips)
        return await exchange(*round_trips)

    def asked(commands: Sequence[Command], answered: Any) -> bool:
        if not ask(commands, answered):
            return False
        sent.append(commands)
        return True

    pool.exchange, pool.ask = exchanged, asked
    return sent
