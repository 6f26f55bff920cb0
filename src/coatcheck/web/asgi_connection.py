"""ASGIConnection: one connection of the ASGI protocol, as far as it may be cut while it is open.

    cut    a WebSocket gets its close frame; `send` raises OSError from now on, and `receive` says that the client
           has left, so that an application ends as it always does
    end    an application that neither sends nor receives is cancelled, a moment later

A stream is cut where it is, and not brought to an end: who downloads something is told that it is not all.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from coatcheck.errors import CoatcheckError
from coatcheck.standing import Standing
from coatcheck.web.answer import answer
from coatcheck.web.open_connections import FAREWELL_SECONDS, OpenConnection, OpenConnections, close_code

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Nothing that could be cut comes after these.
_FAREWELLS = frozenset({"websocket.close", "websocket.http.response.start", "http.response.pathsend"})
_log = logging.getLogger("coatcheck")


class Watching(Protocol):
    """A middleware that watches long-lived connections."""

    open_connections: OpenConnections


class ASGIConnection(OpenConnection):
    """The application's `receive`, and what its `send` has to know.

    Each WebSocket is watched, and each response that streams; an ordinary request costs next to nothing.

    Args:
        scope, receive, send: the connection's own.
        middleware: whose connection it is.
    """

    _cancelled: bool
    _cancelling: int
    _watched = False
    _waiting: asyncio.Task[Any] | None = None
    _interrupted = False

    def __init__(self, scope: Scope, receive: Receive, send: Send, middleware: Watching) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.middleware = middleware
        self._task = asyncio.current_task()

    @abstractmethod
    async def __call__(self, message: Message) -> None:
        """Send a message of the application's, having told `notice` of it."""

    @abstractmethod
    def current_standing(self) -> Standing:
        """Return what the connection acts by now."""

    async def serve(self, app: App) -> None:
        """Let the application serve the connection, to its end or until it is cut."""
        try:
            if self._scope["type"] == "websocket":
                self.watch()
            await app(self._scope, self.receive, self)
        except BaseException as error:
            if not self._survives(error):
                raise
        finally:
            self.leave()
            if self.error is not None and self._cancelled and self._task is not None:
                self._task.uncancel()

    def watch(self) -> None:
        """From now on it may be cut; once more, where it may act by something else now."""
        if not self._watched:
            self._watched, self._cancelled = True, False
        self.middleware.open_connections.add(self, self.current_standing())

    def leave(self) -> None:
        """From now on it is not cut any more."""
        if self._watched:
            self._watched = False
            self.middleware.open_connections.discard(self)

    async def receive(self) -> Message:
        """Return the next message of the client's; once cut, that it has left."""
        if self.error is None:
            self._waiting = task = asyncio.current_task()
            cancelling = task.cancelling() if task is not None else 0
            try:
                return await self._receive()
            except asyncio.CancelledError:
                if not self._interrupted or task is None or task.uncancel() > cancelling:
                    raise
            finally:
                self._waiting = None
        error = self.error
        if self._scope["type"] == "http" or error is None:
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": close_code(error), "reason": error.code}

    def notice(self, message: Message) -> None:
        """Take note of what is about to be sent.

        Raises:
            OSError: the connection was cut; it is what ASGI's `send` raises where nobody is there any more.
        """
        if self.error is not None:
            raise BrokenPipeError("this connection was cut: " + self.error.code)
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body"):
                self.leave()
            elif not self._watched:
                self.watch()
        elif kind == "http.response.start":
            for name, _ in message.get("headers", ()):
                if name == b"content-length":
                    return
            self.watch()
        elif kind == "websocket.accept":
            self.watch()  # again, for its handler may have signed somebody in
        elif kind in _FAREWELLS:
            self.leave()

    def _survives(self, error: BaseException) -> bool:
        """Say whether what the application has ended with comes of its connection's having been cut."""
        if self.error is None:
            return False
        if isinstance(error, asyncio.CancelledError):  # ours, and nobody else's besides
            return self._cancelled and self._task is not None and self._task.cancelling() - 1 <= self._cancelling
        if isinstance(error, Exception):
            _log.debug("the application of a connection that was cut ended with an error", exc_info=error)
            return True
        return False

    # -- cutting it --------------------------------------------------------------------------------------------

    async def cut(self, error: CoatcheckError) -> None:
        """See OpenConnection."""
        self.error = error
        if self._scope["type"] == "websocket":
            try:
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await refuse(self._scope, self._send, error)
            except Exception:  # noqa: BLE001 - a server may say in any way that nobody is there any more
                _log.debug("a WebSocket that was cut could not be closed", exc_info=True)
        if self._waiting is not None:
            self._interrupted = True
            self._waiting.cancel()

    def end(self) -> None:
        """See OpenConnection."""
        if self._task is not None:
            self._cancelling, self._cancelled = self._task.cancelling(), True
            self._task.cancel()


async def refuse(scope: Scope, send: Send, error: CoatcheckError) -> None:
    """Answer with an error: its status, challenge and words in JSON, or the close of a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": close_code(error), "reason": error.code})
        return
    said = answer(error)
    await send({"type": "http.response.start", "status": said.status, "headers": said.headers})
    # ASGI lets `more_body` be left out; the test client of Quart 0.23 does not.
    await send({"type": "http.response.body", "body": said.body, "more_body": False})
