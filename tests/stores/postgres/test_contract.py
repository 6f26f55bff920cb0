"""PostgresStore keeps the contract: with an event loop, and driven without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coatcheck.core import base64url
from coatcheck.run import run
from coatcheck.store import Durability, Store
from coatcheck.stores.postgres import PostgresStore
from coatcheck.testing import StoreContract

pytestmark = pytest.mark.anyio


class Driven:
    """A store whose every call is driven by `run` in a thread: no event loop runs there, as in a WSGI server."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(lambda: run(method(*arguments, **named)))

        return call

    @property
    def durability(self) -> Durability:
        return self._store.durability


class TestPostgres(StoreContract):
    @pytest.fixture(params=["awaited", "driven"])
    async def store(self, request: pytest.FixtureRequest, make: Callable[..., PostgresStore]) -> AsyncIterator[Any]:
        made = make()
        store: Any = made if request.param == "awaited" else Driven(made)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture(autouse=True)
    def _where(self, server: Any) -> None:
        self._server = server

    async def damage(self, store: Store, id: str) -> None:
        query = "UPDATE coatcheck_record SET body = set_byte(body, 40, get_byte(body, 40) # 1) WHERE id = %s"
        self._server.ask(query, base64url.decode(id))
