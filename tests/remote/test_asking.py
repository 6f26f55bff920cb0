"""Where the policy says so, a verifier that hears nothing asks the issuer; only a clear answer counts as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from auth_server import AuthServer

from coatcheck import (
    CoatcheckError,
    Expired,
    Principal,
    Revoked,
    StoreUnavailable,
)
from coatcheck.remote import listener
from coatcheck.remote.origin import Origin
from coatcheck.run import run
from coatcheck.testing import FaultProxy
from coatcheck.verifier import RemoteVerifier

Make = Callable[..., RemoteVerifier]
Behind = tuple[AuthServer, FaultProxy]


def test_where_the_policy_says_so_a_verifier_that_hears_nothing_asks_the_issuer(
    behind: Behind, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = behind
    verifier, kept, ended = make(server, when_stale="ask"), server.token("ann"), server.token("bob")
    monkeypatch.setattr(listener, "ASK_SECONDS", 0.3)
    assert run(verifier.verify_asking(kept)).subject == "ann"
    assert server.requests["/api/session"] == 0
    server.revoke_all("bob")
    monkeypatch.setattr(verifier, "is_stale", lambda: True)  # the feed is silent, and the issuer is there
    assert run(verifier.verify_asking(kept)).subject == "ann"
    assert server.requests["/api/session"] == 1
    with pytest.raises(StoreUnavailable):
        verifier.verify(kept)
    with pytest.raises(Revoked):
        asyncio.run(verifier.verify_asking(ended))
    proxy.hold()
    with pytest.raises(StoreUnavailable, match="in time"):
        run(verifier.verify_asking(kept))
    assert verifier._listener._life is not None
    verifier._listener._life._asking = listener.MAX_ASKING
    with pytest.raises(StoreUnavailable, match="32"):  # P9
        run(verifier.verify_asking(kept))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, '{"subject":"ann","session_id":"SID"}', None),
        (200, '{"subject":"bob","session_id":"SID"}', StoreUnavailable),
        (200, '{"subject":"ann"}', StoreUnavailable),
        (200, "<html>", StoreUnavailable),
        (302, "", StoreUnavailable),
        (401, '{"code":"revoked"}', Revoked),
        (401, '{"code":"expired"}', Expired),
        (401, '{"code":"wrong_claim"}', StoreUnavailable),
        (200, '{"code":"revoked"}', StoreUnavailable),
        (503, '{"code":"revoked"}', StoreUnavailable),
        (401, "[]", StoreUnavailable),
    ],
)
@pytest.mark.anyio
async def test_only_a_clear_answer_counts_as_one(
    status: int, body: str, expected: type[CoatcheckError] | None, say: Callable[..., Any]
) -> None:
    async with say(status, body) as url:
        asked = listener._asked(Origin(url), "the.access.token", Principal(subject="ann", session_id="SID"))
        if expected is None:
            await asked
        else:
            with pytest.raises(expected):
                await asked


@pytest.fixture
def say() -> Callable[..., Any]:
    """Make a server that gives one answer to everybody."""

    @asynccontextmanager
    async def say(status: int, body: str) -> AsyncIterator[str]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    return say
