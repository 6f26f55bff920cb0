"""A server in a thread of ours; each test puts an application of its own behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn


class Stage:
    """A server whose application is changed from test to test."""

    def __init__(self, listener: socket.socket, scheme: str = "http", **options: Any) -> None:
        self.url = f"{scheme}://localhost:{listener.getsockname()[1]}"
        self.app: Any = None
        config = uvicorn.Config(
            self._serve,
            log_level="critical",
            interface="asgi3",
            lifespan="off",
            server_header=False,
            ws="none",
            **options,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage(socket.create_server(("127.0.0.1", 0)))
    yield stage
    stage.end()
