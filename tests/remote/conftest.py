"""An auth server, alone and behind a proxy that spoils the connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from auth_server import SHORT, TOKEN, AuthServer

from coatcheck import Policy, Verifier
from coatcheck.testing import FaultProxy
from coatcheck.verifier import RemoteVerifier

HEARTBEAT = 0.1  # seconds


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Let the feed speak often, so that silence is noticed soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coatcheck.feeds.sqlite._HEARTBEAT", HEARTBEAT)
        yield


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Iterator[AuthServer]:
    server = AuthServer(tmp_path_factory.mktemp("auth") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def auth(one_server: AuthServer) -> AuthServer:
    """A server that a module's tests share; none of them spoils it."""
    one_server.requests.clear()
    return one_server


@pytest.fixture
def make_server(tmp_path: Path, quick: None) -> Iterator[Callable[..., AuthServer]]:
    """Make and start servers; all of one test share a data directory."""
    made: list[AuthServer] = []

    def make(**options: Any) -> AuthServer:
        made.append(AuthServer(tmp_path / "data", **options))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def behind(make_server: Callable[..., AuthServer]) -> Iterator[tuple[AuthServer, FaultProxy]]:
    """A server that is reached through a proxy, under the proxy's address."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with FaultProxy("127.0.0.1", port) as proxy:
        yield make_server(issuer=f"http://127.0.0.1:{proxy.port}", port=port), proxy


@pytest.fixture
def make() -> Iterator[Callable[..., RemoteVerifier]]:
    """Make and open verifiers of a server."""
    made: list[RemoteVerifier] = []

    def make(server: AuthServer, **policy: Any) -> RemoteVerifier:
        verifier = Verifier.from_issuer(server.url, feed_token=TOKEN, policy=Policy(stale_after=SHORT, **policy))
        made.append(verifier)
        verifier.open()
        return verifier

    yield make
    for verifier in made:
        verifier.close()
