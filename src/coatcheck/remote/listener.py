"""Listener: the thread that keeps an issuer's keys and revocations up to date in this process.

It has an event loop of its own, so it serves WSGI and ASGI alike, and nobody waits for it. It does not survive a fork:
the child begins anew, from nothing, with the first token that it is asked about.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent.futures import Future
from typing import Final

import msgspec

from coatcheck.clock import Clock
from coatcheck.core import jws
from coatcheck.core.claims import Principal
from coatcheck.core.keys import Keyring
from coatcheck.core.revocation import NEVER, Revocations
from coatcheck.errors import CoatcheckError, Expired, Malformed, Revoked, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.follower import Follower, into
from coatcheck.remote.events import Events
from coatcheck.remote.keys import IssuerKeys
from coatcheck.remote.origin import Answer, Origin

ASK_SECONDS: Final = 1.0
MAX_ASKING: Final = 32  # questions at a time
_MAX_ANSWER: Final = 64 * 1024  # octets
_JOIN_SECONDS: Final = 5.0
_REFUSALS: Final[dict[str, type[CoatcheckError]]] = {"revoked": Revoked, "expired": Expired}


class Listener:
    """Fills a ring and a set of revocations, while it is open.

    Args:
        origin: the issuer.
        token: one of its feed tokens.
        ring: takes over the issuer's keys.
        revocations: takes in what the feed says; nothing is heard, until keys and snapshot are here.
        clock: milliseconds since the epoch.
    """

    def __init__(self, origin: Origin, token: str, ring: Keyring, revocations: Revocations, clock: Clock) -> None:
        self.origin = origin
        self.events = Events(origin, token)
        self.ring = ring
        self.revocations = revocations
        self.clock = clock
        self.taking = threading.Lock()  # held while something is taken in, so that no fork comes between
        self._take = into(revocations, clock)
        self._closed = False
        self._lock = threading.Lock()
        self._life: _Life | None = None
        revocations.heard_at = NEVER
        _listeners.add(self)

    def __repr__(self) -> str:
        return f"<Listener to {self.origin.url}>"

    def open(self, wait: float) -> None:
        """Begin, if nothing is under way in this process, and wait until something was heard, so many seconds at most.

        Args:
            wait: seconds.
        """
        self._closed = False
        life = self._begin()
        if life is not None:
            life.ready.wait(wait)

    def wake(self) -> None:
        """Begin where that has not been done, or was lost in a fork; after `close` do nothing."""
        self._begin()

    def close(self) -> None:
        """End the thread, and forget that anything was heard; calling it again does nothing."""
        with self._lock:
            life, self._life, self._closed = self._life, None, True
        if life is not None:
            life.end()
        self.revocations.heard_at = NEVER

    def missed(self, token: str) -> None:
        """Fetch the keys soon, if the reason for which a token was refused is that it names one that is not known."""
        try:
            kid = jws.parse(token).header.get("kid")
        except Malformed:
            return
        life = self._life
        if isinstance(kid, str) and self.ring.find(kid) is None and life is not None:
            life.want_keys()

    def ask(self, token: str, principal: Principal) -> Future[None]:
        """Ask the issuer whether a token that was judged already is still good; the result is None, or an error.

        The errors: Revoked, Expired; StoreUnavailable: it cannot be asked, or too many are being asked about already.
        """
        with self._lock:  # so that it comes before the end, if that comes
            if self._life is None:
                raise StoreUnavailable("this verifier is not open")
            return self._life.ask(token, principal)

    def take(self, batch: Batch) -> None:
        """Take in what the feed has said."""
        with self.taking:
            self._take(batch)

    def _begin(self) -> _Life | None:
        with self._lock:
            if self._life is None and not self._closed:
                self._life = _Life(self)
            return self._life

    def forget(self) -> None:
        """Begin as if nothing had been heard: for the child of a fork, which has no threads and nobody's locks."""
        self.taking, self._lock = threading.Lock(), threading.Lock()
        self._life = None
        self.revocations.heard_at = NEVER


class _Life:
    """The thread of a Listener, from beginning to end."""

    def __init__(self, listener: Listener) -> None:
        self.ready = threading.Event()
        self._listener = listener
        self._keys = IssuerKeys(listener.origin, listener.ring)
        self._asking = 0
        self._follows = False
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="coatcheck-issuer", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        # Longer only where the resolver keeps somebody waiting whom nobody can interrupt.
        self._thread.join(_JOIN_SECONDS)

    def want_keys(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._keys.want)
        except RuntimeError:
            return  # it has ended meanwhile

    def ask(self, token: str, principal: Principal) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self._ask(token, principal), self._loop)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        tasks = [asyncio.create_task(self._keys.watch()), asyncio.create_task(self._follow())]
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        listener = self._listener
        await self._keys.known.wait()  # what was heard counts only for tokens that can be verified
        follower = Follower(listener.events, self._take, listener.clock)
        await follower.begin()
        self._follows = True
        await follower.follow()

    def _take(self, batch: Batch) -> None:
        self._listener.take(batch)
        if self._follows:  # a large snapshot is old by the time that it is here
            self.ready.set()

    async def _ask(self, token: str, principal: Principal) -> None:
        if self._asking >= MAX_ASKING:
            raise StoreUnavailable(f"the issuer is being asked about {MAX_ASKING} tokens already")
        self._asking += 1
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await _asked(self._listener.origin, token, principal)
        except TimeoutError:
            raise StoreUnavailable("the issuer did not answer in time") from None
        except asyncio.CancelledError:  # the loop ends; whoever waits for this is not meant
            raise StoreUnavailable("this verifier was closed") from None
        finally:
            self._asking -= 1


async def _asked(origin: Origin, token: str, principal: Principal) -> None:
    async with origin.get("/api/session", accept="application/json", token=token) as answer:
        found = await _members(answer)
        if answer.status == 401 and (refusal := _REFUSALS.get(str(found.get("code")))) is not None:
            raise refusal("the issuer does not accept this token any more")
        said = (answer.status, found.get("session_id"), found.get("subject"))
        if said != (200, principal.session_id, principal.subject):
            raise StoreUnavailable(f"the issuer says nothing of this token: the answer was {answer.status}")


async def _members(answer: Answer) -> dict[str, object]:
    body = await answer.body(limit=_MAX_ANSWER, seconds=ASK_SECONDS)
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
_held: list[Listener] = []


def _hold() -> None:
    for listener in list(_listeners):
        listener.taking.acquire()
        _held.append(listener)


def _let_go() -> None:
    while _held:
        _held.pop().taking.release()


def _forget() -> None:
    while _held:
        _held.pop().forget()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
