"""Line: one connection to an ASGI application, held open for as long as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

PATIENCE: Final = 20  # seconds
CLOSED: Final = {"type": "websocket.close", "code": 1008, "reason": "revoked"}
EXPIRED: Final = {"type": "websocket.close", "code": 1008, "reason": "expired"}
LATER: Final = {"type": "websocket.close", "code": 1013, "reason": "unavailable"}


class Line:
    """One connection to an application: what the client says, and all that it is sent."""

    def __init__(self, app: Any, kind: str, path: str, headers: Mapping[str, str]) -> None:
        scope: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "wss" if kind == "websocket" else "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"app.example"), *((n.encode(), v.encode()) for n, v in headers.items())],
            "client": ("192.0.2.7", 4711),
            "server": ("app.example", 443),
            "subprotocols": [],
        }
        if kind == "http":
            scope["method"] = "GET"
        self.sent: list[dict[str, Any]] = []
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if kind == "websocket":
            self.said.put_nowait({"type": "websocket.connect"})
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(app(scope, self.said.get, self._send))
        self.task.add_done_callback(lambda _: self.changed.set())

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        self.changed.set()
        if message["type"] == "websocket.close":
            self.said.put_nowait({"type": "websocket.disconnect", "code": message.get("code", 1000)})

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    async def heard(self, kind: str) -> dict[str, Any]:
        """Return the last message, when one of this kind was sent."""
        await self.until(lambda: bool(self.sent) and self.sent[-1]["type"] == kind)
        return self.sent[-1]

    async def ended(self) -> list[str]:
        """Wait for the application's end, which is without an error, and return what the kinds of messages were."""
        await self.until(self.task.done)
        await self.task
        return [message["type"] for message in self.sent]
