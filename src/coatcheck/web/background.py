"""Background: the thread in which a process without an event loop keeps its Coatcheck open.

The feed is followed and expired sessions are swept in it. Requests use the same Coatcheck in threads of their own, by
`run`: stores and feeds have connections for each loop, and others for the threads (decision 11).
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from coatcheck.compose import Coatcheck
from coatcheck.errors import StoreUnavailable
from coatcheck.request_head import RequestHead
from coatcheck.run import run
from coatcheck.web.opening import OPENING_SECONDS, refuse_if_needed

_CLOSE_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 1.0


class Background:
    """Opens a Coatcheck in a thread with an event loop of its own, and keeps it open.

    The thread does not survive a fork, as of a server that loads the application first: in the child, as after a
    failure, `open` begins anew.

    Args:
        coatcheck: what is opened; whoever has opened it already, in a living loop, is left to it.
    """

    def __init__(self, coatcheck: Coatcheck) -> None:
        self._coatcheck = coatcheck
        self._lock = threading.Lock()
        self._life: _Life | None = None
        _backgrounds.add(self)

    @property
    def is_open(self) -> bool:
        """Whether store and feed are open in this process, and the feed is being followed."""
        return self._coatcheck.is_open

    def open(self, wait: float) -> None:
        """Open the coatcheck, or wait for whoever does; calling it again does nothing.

        An attempt that takes longer goes on, for those who come later.

        Args:
            wait: for how long at most, in seconds.

        Raises:
            StoreUnavailable: store or feed cannot be reached, or not in time.
            ConfigurationError: one of them was made by a newer version.
        """
        if self._coatcheck.is_open:
            return
        with self._lock:
            if self._life is None or not self._life.is_alive:
                self._life = _Life()
            opening = self._life.do(self._coatcheck.open())
        try:
            opening.result(wait)
        except (TimeoutError, CancelledError):
            raise StoreUnavailable("the store is not open yet") from None

    def open_for(self, head: RequestHead) -> None:
        """Open the coatcheck for a request.

        Raises:
            StoreUnavailable: it cannot be opened, or not in time, and the request has a credential.
        """
        try:
            self.open(OPENING_SECONDS)
        except StoreUnavailable as error:
            refuse_if_needed(head, self._coatcheck, error)

    def close(self) -> None:
        """Close the coatcheck, the connections of other threads included, and end the thread; `open` begins anew."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.end(self._coatcheck.close())
        run(self._coatcheck.close())

    def before_fork(self) -> None:
        """Let the thread hold no lock that the child would wait for."""
        self._lock.acquire()
        if self._life is not None:
            self._life.pause()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._life is not None:
            self._life.go_on()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin as if nothing had been opened."""
        # Kept, for to close the copy of a loop would disturb its original: they share their selector.
        _inherited.append(self._life)
        self._life = None
        self._lock.release()


class _Life:
    """An event loop in a thread, from beginning to end."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coatcheck-background", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def do(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def end(self, last: Coroutine[Any, Any, None]) -> None:
        async def ending() -> None:
            try:
                await last
            finally:
                self._ended.set()

        done = self.do(ending())
        self._thread.join(_CLOSE_SECONDS)
        if done.done() and not done.cancelled():
            done.result()

    def pause(self) -> None:
        if threading.current_thread() is self._thread:
            return  # it forks itself, and so holds nothing that it does not know of
        paused = threading.Event()

        def wait() -> None:
            paused.set()
            self._going.wait()

        self._going.clear()
        self._loop.call_soon_threadsafe(wait)
        paused.wait(_PAUSE_SECONDS)

    def go_on(self) -> None:
        self._going.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ended.wait()


_inherited: list[object] = []
_backgrounds: weakref.WeakSet[Background] = weakref.WeakSet()
_held: list[Background] = []


def _before_fork() -> None:
    for background in list(_backgrounds):
        background.before_fork()
        _held.append(background)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().after_fork_in_child()


if hasattr(os, "register_at_fork"):
    # After those of the stores were registered, so before a fork this one comes first: whoever is paused holds none of
    # their locks, and needs none.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
