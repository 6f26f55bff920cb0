"""An auth server in a thread of this process, over real sockets, for verifiers that have no store."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from coatcheck import Revoked, Verifier
from coatcheck.clock import Clock, system_clock
from coatcheck.server import serve
from coatcheck.server.app import create_app
from coatcheck.server.passwords import Passwords
from coatcheck.server.protocol import GuardedProtocol
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings
from coatcheck.web.asgi import Receive, Scope, Send

TOKEN = "feed-token-of-the-tests-0123456789"
DEADLINE = 30  # seconds, for what must come
# Many heartbeats of a quick feed (tests/remote/conftest.py), so that nothing is stale because the machine is busy.
SHORT = timedelta(seconds=1)

T = TypeVar("T")


class AuthServer:
    """A server with a thread and an event loop of its own, which counts the requests for each path."""

    def __init__(
        self, data: Path, *, issuer: str = "", port: int = 0, clock: Clock = system_clock, **more: Any
    ) -> None:
        self.requests: Counter[str] = Counter()
        self._data, self._issuer, self._clock, self._more = data, issuer, clock, more
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return self._issuer or f"http://localhost:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(DEADLINE)

    def stop(self) -> float:
        """End as a signal would end it, and say how long that took."""
        began = time.monotonic()
        self._uvicorn.should_exit = True
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return time.monotonic() - began

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the server's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def token(self, subject: str = "ann") -> str:
        return self.do(self.issue(subject))[1]

    async def issue(self, subject: str) -> tuple[str, str]:
        """Return a new session's id, and an access token of it."""
        sessions = self.server.coat.sessions
        session = await sessions.create(subject, amr=("pwd",), scopes=("read",))
        return str(session.id), (await sessions.issue(session)).access_token

    def revoke_all(self, subject: str = "ann") -> None:
        self.do(self.server.coat.sessions.revoke_all(subject))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        settings = Settings(
            data_dir=self._data, port=self.port, issuer=self._issuer, algorithm="ES256",
            feed_token=f"another-token-of-32-characters-or-more {TOKEN}", **self._more,
        )  # fmt: skip
        passwords = Passwords(memory=8, passes=1)
        async with Server(settings, passwords=passwords, clock=self._clock) as self.server:
            app = create_app(self.server)

            async def counted(scope: Scope, receive: Receive, send: Send) -> None:
                self.requests[scope["path"]] += 1
                await app(scope, receive, send)

            options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False}
            config = uvicorn.Config(counted, http=GuardedProtocol, timeout_graceful_shutdown=5, **options)
            self._uvicorn = serve._Uvicorn(config, self._up.set, self.server.end)
            await self._uvicorn.serve([self._listener])


def is_refused(verifier: Verifier, token: str) -> bool:
    """Say whether a token is refused as revoked; any other error is one."""
    try:
        verifier.verify(token)
    except Revoked:
        return True
    return False


def until(condition: Callable[[], bool]) -> float:
    """Wait until something is so, and return how long it took; it is the deadline that fails, never the machine."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE, "this did not come about"
        time.sleep(0.005)
    return time.monotonic() - began
