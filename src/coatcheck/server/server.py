"""Server: what the handlers share, put together from the settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from types import TracebackType
from typing import Final, Self

from coatcheck import Coatcheck, Policy, Sessions
from coatcheck.clock import Clock, system_clock
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.events import OnEvent, log_event
from coatcheck.server.accounts import Accounts
from coatcheck.server.attempts import Alarm, Attempts
from coatcheck.server.feed_hub import FeedHub
from coatcheck.server.in_use import in_use, require_finished
from coatcheck.server.passwords import Passwords
from coatcheck.server.places import places_of
from coatcheck.server.proof import Proving
from coatcheck.server.set_queue import SetQueue
from coatcheck.server.set_up import SetUp
from coatcheck.server.settings import Settings, prepare
from coatcheck.server.status_lists import StatusLists
from coatcheck.server.transmitter import Transmitter
from coatcheck.server.watch import Watch
from coatcheck.stores.near import NearStore

_log = logging.getLogger("coatcheck.server")
# Whoever changes a password, or disables an account, has ended the sessions by then; milliseconds.
_UNFINISHED_AFTER: Final = 10_000
_READY_WITHIN_SECONDS: Final = 1.0
# A session id that no session has: to ask the store for it costs one look-up.
_NOBODY: Final = "A" * 22
_MINUTE: Final = 60  # rounds of the watch


class Server:
    """Everything behind the handlers: `request.app.state.server`.

    Args:
        settings: from outside.
        passwords: with other parameters than the usual, for tests.
        clock: milliseconds since the epoch.
        on_event: told of each step of a session's life; the log, if left out.

    Attributes: `settings`, `coat`, `accounts`, `passwords`, `attempts`, `alarm`, `proof`, `set_up`, `keys`, `feed_hub`,
    `sets` and `transmitter`; `set_up_token` while there is no account; `status_lists` where there are such;
    `is_ending`.

    Raises:
        ConfigurationError: a setting cannot work; the message names it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        passwords: Passwords | None = None,
        clock: Clock = system_clock,
        on_event: OnEvent = log_event,
    ) -> None:
        places = places_of(settings, clock=clock)
        self.settings = settings
        self.is_ending = False
        self.keys, self._documents, self._store = places.keys, places.documents, places.store
        fresh_for = settings.fresh_for
        self.coat = Coatcheck(
            places.store if fresh_for is None else NearStore(places.store, fresh_for=fresh_for),
            # A ring that is made up, for as long as nothing is open; the real one is fetched then.
            None,
            # Behind a proxy our own origin is the issuer's, whatever scheme the proxy speaks to us.
            Policy(issuer=settings.url, trusted_origins=frozenset({settings.url})),
            places.feed,
            clock=clock,
            on_event=on_event,
        )
        self.feed_hub = FeedHub(self.coat.feed, clock=clock)
        self.sets = SetQueue(self._documents, self.coat.policy)
        told = (settings.receivers, self.sets, self.feed_hub, self.coat.keyring, self._documents)
        self.transmitter = Transmitter(*told, clock=clock)
        self.status_lists: StatusLists | None = None
        # Sealed sessions are not a server's; this one always has a store.
        if settings.status_ttl is not None and isinstance(self.coat.sessions, Sessions):
            self.status_lists = StatusLists(self.coat, self._documents, self.feed_hub, settings.status_ttl)
            self.coat.sessions.issuer.more_claims = self.status_lists.claims
        self.accounts = Accounts(self._documents, clock=clock)
        self.passwords = passwords if passwords is not None else Passwords()
        self.attempts = Attempts(self._documents, self.coat.keyring, clock=clock)
        self.alarm = Alarm(clock=clock)
        self.proof = Proving(self.coat, self.accounts, self.passwords, self.attempts)
        self.set_up = SetUp(self._documents, self.accounts, self.passwords, clock=clock)
        self.set_up_token: str | None = None
        self._use = contextlib.ExitStack()
        self._watch = Watch(
            (1, self.adopt_keys),
            (1, self.end_sessions_of_unfinished),
            # Where it costs round trips, less often: nobody but whoever was killed half-way leaves any there.
            (_MINUTE if settings.shared else 1, self.end_sessions_of_disabled),
            (_MINUTE, self.set_up.renew),
            (_MINUTE, self._sweep),
        )

    async def open(self) -> None:
        """Open everything, fetch the keys, and begin to watch for changed ones; calling it again does nothing.

        What is not there yet is made: keys, schema, and, unless the store is shared, the data directory.

        Raises:
            StoreUnavailable, ConfigurationError
            Conflict: its data are being moved to another store.
        """
        if self._watch.is_running:
            return
        try:
            if not self.settings.shared:
                prepare(self.settings.data_dir)
            self._use.enter_context(in_use(self.settings, self._store))
            await self._documents.open()
            await require_finished(self._store, self._documents)
            self.coat.keyring.adopt(await self.keys.open())
            self._require_public_keys()
            await self.coat.open()
            self.set_up_token = await self.set_up.issue()
            await self.end_sessions_of_disabled()
            await self.end_sessions_of_unfinished()
            self._watch.start()
            await self.transmitter.start()
            if self.status_lists is not None:
                self.status_lists.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop watching, and close what was opened; calling it again does nothing."""
        await self._watch.stop()
        await self.transmitter.stop()
        if self.status_lists is not None:
            await self.status_lists.stop()
        self.passwords.close()
        await self.feed_hub.close()
        await self.coat.close()
        await self._documents.close()
        self._use.close()

    def end(self) -> None:
        """Let everybody go who waits for what may come: the server is about to be closed."""
        self.is_ending = True
        self.feed_hub.end()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def set_up_link(self) -> str | None:
        """The link that makes the first account; None if there was one at the start."""
        return None if self.set_up_token is None else f"{self.settings.url}/set-up/{self.set_up_token}"

    async def problems(self) -> list[str]:
        """Return what keeps the server from serving, in a few fixed words each; none if it is ready."""
        asked = {"sessions": self.coat.store.load(_NOBODY), "accounts": self.accounts.exist()}
        answers = await asyncio.gather(*(_answers(question) for question in asked.values()))
        found = [f"{what}: the store is unavailable" for what, good in zip(asked, answers, strict=True) if not good]
        if self.coat.verifier.is_stale():
            found.append("revocations: the feed is silent")
        return found

    async def adopt_keys(self) -> bool:
        """Take over the keys if they have changed, and say whether they had: a rotation reaches us without a restart.

        Raises:
            ConfigurationError: they cannot be read.
            StoreUnavailable
        """
        ring = await self.keys.changed()
        if ring is not None:
            self.coat.keyring.adopt(ring)
            _log.info("the keys have changed: the new ones are in use from now on")
        return ring is not None

    async def end_sessions_of_disabled(self) -> None:
        """End sessions that disabled accounts still have.

        There are some where sessions are in this process's memory: another process can announce their end, but not
        remove them.

        Raises:
            StoreUnavailable
        """
        for account in await self.accounts.disabled():
            if await self.coat.store.list(account.id):
                await self.coat.sessions.revoke_all(account.id, reason="the account is disabled")

    async def end_sessions_of_unfinished(self) -> None:
        """End the sessions of accounts that a process has given a new password, or disabled, before it was killed.

        Nobody was told that it is done; but the old password is gone, and who used it may still be signed in.

        Raises:
            StoreUnavailable
        """
        for account in await self.accounts.unfinished(self.coat.clock() - _UNFINISHED_AFTER):
            await self.coat.sessions.revoke_all(account.id, reason="the account was disabled, or its password changed")
            await self.accounts.finished(account)

    def _require_public_keys(self) -> None:
        if (self.settings.receivers or self.status_lists) and not self.coat.keyring.jwks()["keys"]:
            raise ConfigurationError("receivers and status lists need keys of which there is a public half: not HS256")

    async def _sweep(self) -> None:
        await self._documents.sweep(self.coat.clock())


async def _answers(question: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_READY_WITHIN_SECONDS):
            await question
    except (StoreUnavailable, TimeoutError):
        return False
    return True
