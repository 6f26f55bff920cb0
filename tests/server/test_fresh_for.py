"""COATCHECK_FRESH_FOR: a server that remembers sessions for a moment, and knows of their end as soon as without it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from coatcheck.errors import ConfigurationError
from coatcheck.server.settings import Settings
from coatcheck.stores.near import NearStore

if TYPE_CHECKING:
    from coatcheck.server.server import Server
    from tests.server.conftest import Client

pytestmark = pytest.mark.anyio

NAME, PASSWORD = "ann", "a lantern under the stairs"


async def test_p1_a_cookie_that_is_remembered_here_is_refused_when_it_was_ended_elsewhere(
    make_server: Callable[..., Awaitable[Server]], client_of: Callable[..., Client]
) -> None:
    servers = [await make_server(fresh_for=timedelta(seconds=30)) for _ in range(2)]
    await servers[0].accounts.add(NAME, await servers[0].passwords.hash(PASSWORD))
    at_a, at_b = (client_of(server) for server in servers)
    signed_in = await at_a("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD})
    assert signed_in.status == 200
    assert (await at_b("GET", "/api/session", cookies=at_a.jar)).status == 200
    store = servers[1].coat.store
    assert isinstance(store, NearStore)
    assert store.recall(signed_in.json["session_id"]) is not None
    copied = dict(at_a.jar)
    assert (await at_a("POST", "/api/sign-out", json={})).json == {"ended": 1}
    assert (await at_a("GET", "/api/session", cookies=copied)).status == 401
    async with asyncio.timeout(20):
        while (await at_b("GET", "/api/session", cookies=copied)).status == 200:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.01)


async def test_it_is_off_unless_it_is_asked_for(server: Server) -> None:
    assert not isinstance(server.coat.store, NearStore)


@pytest.mark.parametrize("text", ["1", "0s", "31s", "1m", "1 s", "-1s", "1.5s"])
async def test_a_time_that_cannot_be_is_refused_at_the_start(
    text: str, make_server: Callable[..., Awaitable[Server]]
) -> None:
    """NearStore takes up to 30 seconds: a record must not outlive the memory of its revocation."""
    with pytest.raises(ConfigurationError, match=r"fresh_for|COATCHECK_FRESH_FOR"):
        await make_server(fresh_for=Settings.read({}, {"COATCHECK_FRESH_FOR": text}).fresh_for)
    for good, milliseconds in (("500ms", 500), ("30s", 30_000)):
        found = Settings.read({}, {"COATCHECK_FRESH_FOR": good}).fresh_for
        assert found == timedelta(milliseconds=milliseconds)
