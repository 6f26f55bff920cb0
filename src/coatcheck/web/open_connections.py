"""OpenConnections: WebSockets and streams, cut within a second after what they were let in by has ended (F11).

Four times a second, while any is open, each event loop looks whether revocations were heard since (a number), and
whether a time has passed (one comparison for each connection). Only those that are concerned are judged anew. Where
the feed is silent for longer than the policy allows, all of them are, once a second, unless it says `accept`.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from abc import ABC, abstractmethod
from typing import Final

from coatcheck.errors import CoatcheckError, StoreUnavailable
from coatcheck.standing import AskInSilence, Standing
from coatcheck.verifier import Verifier

_EVERY_SECONDS: Final = 0.25
_ASK_SECONDS: Final = 0.5  # for the answer about one of them
FAREWELL_SECONDS: Final = 0.25
"""So long an adapter waits for a client to take its close frame."""
# What a WebSocket is closed with (RFC 6455, 7.4.1 and its IANA registry).
_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013
_log = logging.getLogger("coatcheck")


class OpenConnection(ABC):
    """One of them, as an adapter carries it.

    `error` says why it was cut, or None; the rest is there once it is watched: its standing, when it is to be judged
    again at the latest (milliseconds since the epoch), and whether that is under way.
    """

    error: CoatcheckError | None = None
    standing: Standing
    ends_at: int
    looking: bool

    @abstractmethod
    async def cut(self, error: CoatcheckError) -> None:
        """Let nothing more leave, close the connection, and let the application know in its usual way."""

    @abstractmethod
    def end(self) -> None:
        """End the application's part by force, a moment after `cut`."""


class OpenConnections:
    """Those of one middleware, in whichever event loops they are.

    Args:
        verifier: whose revocations, clock and policy count.
        at_once: how many may be judged at a time, where that takes a question to somebody.
    """

    def __init__(self, verifier: Verifier, *, at_once: int = 256) -> None:
        self._verifier = verifier
        self._at_once = at_once
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()

    def add(self, connection: OpenConnection, standing: Standing) -> None:
        """Watch a connection, from the event loop that it is in; once more, if it may act by something else now.

        Args:
            connection: judged when its request came, and since then not.
            standing: what it acts by.
        """
        connection.standing = standing
        connection.looking = False
        connection.ends_at = _ends_at(standing)
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self._verifier, self._at_once)
        watch.add(connection)

    def discard(self, connection: OpenConnection) -> None:
        """Let a connection be, for it has ended."""
        watch = self._watches.get(asyncio.get_running_loop())
        if watch is not None:
            watch.connections.discard(connection)


class _Watch:
    """The connections of one event loop; no reference leads from here to the loop, which may end before."""

    def __init__(self, verifier: Verifier, at_once: int) -> None:
        self.connections: set[OpenConnection] = set()
        self._verifier = verifier
        self._gate = asyncio.Semaphore(at_once)
        self._looks: set[asyncio.Task[None]] = set()
        self._applied = verifier.revocations.applied
        self._ask = AskInSilence(verifier)
        self._ticks = False

    def add(self, connection: OpenConnection) -> None:
        self.connections.add(connection)
        if not self._ticks:
            self._ticks = True
            self._tick_later()

    def _tick_later(self) -> None:
        asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticks = bool(self.connections)
        if not self._ticks:
            return
        self._tick_later()
        applied, now, ask = self._verifier.revocations.applied, self._verifier.clock(), self._ask()
        news, self._applied = applied != self._applied, applied
        for connection in tuple(self.connections):
            if connection.error is not None:
                self.connections.discard(connection)
                connection.end()
            elif not connection.looking and (
                ask or now >= connection.ends_at or (news and connection.standing.is_suspect())
            ):
                self._begin_to_look(connection)

    def _begin_to_look(self, connection: OpenConnection) -> None:
        connection.looking = True
        look = asyncio.get_running_loop().create_task(self._look(connection))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _look(self, connection: OpenConnection) -> None:
        try:
            async with self._gate:
                await _judge(connection)
        except CoatcheckError as error:
            if connection in self.connections:
                _log.info("an open connection is cut: %s", error)
                await connection.cut(error)
        finally:
            connection.looking = False


async def _judge(connection: OpenConnection) -> None:
    standing = connection.standing
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            await standing.renew()
        connection.ends_at = standing.ends_at()
    except TimeoutError:
        raise StoreUnavailable("nobody answers whether an open connection may go on") from None
    except CoatcheckError:
        raise
    except Exception as error:
        _log.exception("an open connection could not be judged")
        raise StoreUnavailable("an open connection could not be judged") from error


def _ends_at(standing: Standing) -> int:
    """Return when to look; at once, if what was heard since the request came concerns it."""
    try:
        return 0 if standing.is_suspect() else standing.ends_at()
    except CoatcheckError:
        return 0


def close_code(error: CoatcheckError) -> int:
    """Return what a WebSocket is closed with because of an error."""
    return _TRY_AGAIN_LATER if isinstance(error, StoreUnavailable) else _POLICY_VIOLATION
