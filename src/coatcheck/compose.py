"""Coatcheck: the composition root. It holds the desks, opens and closes what they stand on, and has no verbs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from dataclasses import replace
from types import TracebackType
from typing import Self

from coatcheck.clock import Clock, system_clock
from coatcheck.core.keys import Keyring
from coatcheck.core.policy import Policy
from coatcheck.core.revocation import NEVER, Revocations
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.events import OnEvent, log_event
from coatcheck.exchange import Desk
from coatcheck.feed import Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.follower import Follower, into
from coatcheck.run import retrieved
from coatcheck.sealed_sessions import Sealed, SealedSessions
from coatcheck.sessions import Sessions
from coatcheck.store import Recall, Store, no_memory
from coatcheck.stores.file import FileStore
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.near import NearStore
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.verifier import Verifier

_log = logging.getLogger("coatcheck")
_SWEEP_EVERY_SECONDS = 60
_STORE_NAMES = tuple(name for name in vars(Store) if not name.startswith("_"))
_FORGETFUL = (
    "sealed sessions need a feed that remembers across restarts, and reaches every process, which of them were ended: "
    "SQLiteFeed, RedisFeed or PostgresFeed. A LocalFeed does neither; it will do for made-up keys in a single process"
)


class Coatcheck:
    """Everything an application needs, put together.

    Args:
        store: where sessions live; in memory, if left out: good for a first try and for tests. In a `NearStore` those
            just loaded are remembered for a moment, while the feed is heard. `Sealed()` stands for no store at all:
            then they live in their browsers' cookies, and `sessions` is a SealedSessions.
        keyring: what tokens are signed with. If left out, keys are made up: tokens then die with the process.
            `coatcheck.keyfile.KeyFile` keeps a ring in a file.
        policy: lifetimes and cookie attributes.
        feed: how revocations reach other processes. If left out, it goes where the store's records are: through the
            same Redis servers or PostgreSQL database; for SQLite and file stores through an SQLite file beside them.
            For sealed sessions it must be named, unless keys are made up. With stores that are not ours, an access
            token is good only if its session is found in the store (`when_stale` is `ask`).
        clock: milliseconds since the epoch.
        on_event: told of each step of a session's life; the log, if left out.

    Raises:
        ConfigurationError: one of the parts is something else, such as a KeyFile that was not opened; or sealed
            sessions would be good again after they were ended, for want of a feed that remembers that.
    """

    def __init__(
        self,
        store: Store | Sealed | None = None,
        keyring: Keyring | None = None,
        policy: Policy | None = None,
        feed: Feed | None = None,
        *,
        clock: Clock = system_clock,
        on_event: OnEvent = log_event,
    ) -> None:
        if not _is_store(store):
            _require(store, Sealed, "store is a store: coatcheck.stores.store_from_url makes one of a URL")
        _require(keyring, Keyring, "keyring is a Keyring: of a KeyFile it is what open() returns")
        _require(policy, Policy, "policy is a Policy")
        # Beside sealed sessions there is a store as well, and nothing in it.
        self.store = MemoryStore() if store is None or isinstance(store, Sealed) else store
        # HS256: what is made up here never leaves the process, so nobody needs a public half.
        self.keyring = keyring if keyring is not None else Keyring.generate("HS256")
        self.policy = policy if policy is not None else Policy()
        found = feed if feed is not None else _feed_beside(self.store)
        if isinstance(store, Sealed) and keyring is not None and isinstance(found, LocalFeed):
            raise ConfigurationError(_FORGETFUL)
        self.feed = found if found is not None else LocalFeed()
        if found is None:
            self.policy = replace(self.policy, when_stale="ask")
        self.revocations = Revocations()
        # With other processes to hear from, no token is trusted before the first word of them: open() fetches it.
        self.revocations.heard_at = None if isinstance(found, LocalFeed) else NEVER
        self._follows = found is not None and not isinstance(found, LocalFeed)
        self.clock = clock
        self.verifier = Verifier(self.keyring, self.policy, self.revocations, clock=clock)
        self.sessions = self._desk(on_event, sealed=isinstance(store, Sealed))
        self._tasks: list[asyncio.Task[None]] = []
        self._opening: asyncio.Task[None] | None = None
        _coatchecks.add(self)

    async def open(self) -> None:
        """Open store and feed, and start to follow the feed and to sweep; calling it again does nothing.

        Where the event loop that it was called in has ended since, as with some test clients, it starts anew.

        Raises:
            StoreUnavailable: one of them cannot be reached.
            ConfigurationError: one of them was made by a newer version.
        """
        if self.is_open:
            return
        opening = self._opening
        if opening is None or opening.done() or opening.get_loop() is not asyncio.get_running_loop():
            self._opening = opening = asyncio.ensure_future(self._open())
            opening.add_done_callback(retrieved)
        # Whoever comes meanwhile shares the outcome: one after the other would wait for ever where all attempts fail.
        await asyncio.shield(opening)

    @property
    def is_open(self) -> bool:
        """Whether store and feed are open, and the feed is being followed."""
        for task in self._tasks:  # asked at every request: a third of what `any` would take
            if task.done():
                return False
        return bool(self._tasks)

    async def close(self) -> None:
        """Stop the tasks and close feed and store; calling it again does nothing."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self.feed.close()
        await self.store.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _forget_parent(self) -> None:
        """Forget what is open in the parent, and what it has heard: this process will not hear it go on.

        Sealed sessions of made-up keys are good in all children of a process, and a LocalFeed reaches none of them.
        """
        _inherited.append((self._tasks, self._opening))  # kept, for a task that goes away unfinished complains
        self._tasks, self._opening = [], None
        if self._follows or isinstance(self.sessions, SealedSessions):
            self.revocations.heard_at = NEVER

    def _desk(self, on_event: OnEvent, *, sealed: bool) -> Desk:
        if sealed:
            return SealedSessions(self.verifier, self.feed, on_event=on_event)
        return Sessions(
            self.store,
            self.keyring,
            self.policy,
            self.revocations,
            self.feed,
            clock=self.clock,
            on_event=on_event,
            recall=_recall(self.store, self.verifier),
        )

    async def _open(self) -> None:
        if isinstance(self.sessions, SealedSessions) and not self._follows and self.revocations.heard_at is not None:
            raise ConfigurationError(_FORGETFUL)
        self._tasks.clear()
        try:
            await self.store.open()
            await self.feed.open()
            if self._follows:
                follower = Follower(self.feed, into(self.revocations, self.clock), self.clock)
                await follower.take_snapshot()
                self._tasks.append(asyncio.create_task(follower.follow()))
            self._tasks.append(asyncio.create_task(self._sweep()))
        except BaseException:
            await self.close()
            raise

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_SECONDS)
            try:
                await self.sessions.sweep()
            except StoreUnavailable:
                _log.warning("expired sessions not swept: the store is unavailable")
            except Exception:  # noqa: BLE001 - a store of somebody else's may raise anything, and is swept again
                _log.exception("expired sessions not swept")


_inherited: list[object] = []
_coatchecks: weakref.WeakSet[Coatcheck] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for coatcheck in list(_coatchecks):
        # This module's own class.
        coatcheck._forget_parent()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_store(part: object) -> bool:
    # isinstance() will not do: from Python 3.12 on it passes over what a wrapper hands on by __getattr__.
    return all(hasattr(part, name) for name in _STORE_NAMES)


def _require(part: object, kind: type, otherwise: str) -> None:
    # For whoever does not check types: a KeyFile in the ring's place would be noticed at the first sign-in only.
    if part is not None and not isinstance(part, kind):
        raise ConfigurationError(otherwise)


def _recall(store: Store, verifier: Verifier) -> Recall:
    """Return what a store remembers, for as long as the feed would tell of a session that has ended."""
    if not isinstance(store, NearStore):
        return no_memory
    return lambda session_id: None if verifier.is_stale() else store.recall(session_id)


def _feed_beside(store: Store) -> Feed | None:
    """Return a feed that reaches every process that this store's records reach, or None where we have none."""
    if isinstance(store, NearStore):
        return _feed_beside(store.store)
    if isinstance(store, RedisStore):
        from coatcheck.feeds.redis import RedisFeed

        return RedisFeed(**store.made_with)
    if isinstance(store, PostgresStore):
        from coatcheck.feeds.postgres import PostgresFeed

        return PostgresFeed(**store.made_with)
    if isinstance(store, SQLiteStore):
        return SQLiteFeed(store.path)
    if isinstance(store, FileStore):
        return SQLiteFeed(store.directory / "revocations.sqlite")
    return LocalFeed() if isinstance(store, MemoryStore) else None
