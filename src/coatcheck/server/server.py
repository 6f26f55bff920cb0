"""Server: what the handlers share, put together from the settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Final, Self

from coatcheck import Coatcheck, Policy
from coatcheck.clock import Clock, system_clock
from coatcheck.errors import CoatcheckError, ConfigurationError, StoreUnavailable
from coatcheck.events import OnEvent, log_event
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.keyfile import KeyFile
from coatcheck.run import offload
from coatcheck.server.accounts import Accounts
from coatcheck.server.attempts import Alarm, Attempts
from coatcheck.server.database import Database
from coatcheck.server.passwords import Passwords
from coatcheck.server.proof import Proving
from coatcheck.server.set_up import SetUp
from coatcheck.server.settings import ALGORITHMS, Settings, prepare
from coatcheck.store import Store
from coatcheck.stores import store_from_url
from coatcheck.stores.sqlite import SQLiteStore

_log = logging.getLogger("coatcheck.server")
_WATCH_EVERY_SECONDS: Final = 1.0
# Whoever changes a password has ended the other sessions by then; milliseconds.
_UNFINISHED_AFTER: Final = 10_000
_READY_WITHIN_SECONDS: Final = 1.0
# A session id that no session has: to ask the store for it costs one look-up.
_NOBODY: Final = "A" * 22


class Server:
    """Everything behind the handlers: `request.app.state.server`.

    Making one makes the data directory and the keys, if they are not there.

    Args:
        settings: from outside.
        passwords: with other parameters than the usual, for tests.
        clock: milliseconds since the epoch.
        on_event: told of each step of a session's life; the log, if left out.

    Attributes: `settings`, `coat`, `accounts`, `passwords`, `attempts`, `alarm`, `proof`, `set_up`, `keys`;
    `set_up_token` while there is no account.

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
        prepare(settings.data_dir)
        self.settings = settings
        self.keys = KeyFile(settings.key_file, algorithm=ALGORITHMS[settings.algorithm], clock=clock)
        self.coat = Coatcheck(
            store_of(settings),
            self.keys.open(),
            # Behind a proxy our own origin is the issuer's, whatever scheme the proxy speaks to us.
            Policy(issuer=settings.url, trusted_origins=frozenset({settings.url})),
            SQLiteFeed(settings.database),
            clock=clock,
            on_event=on_event,
        )
        self._database = Database(settings.database)
        self.accounts = Accounts(self._database, clock=clock)
        self.passwords = passwords if passwords is not None else Passwords()
        self.attempts = Attempts(self._database, self.coat.keyring.derive("sign-in attempts")[0], clock=clock)
        self.alarm = Alarm(clock=clock)
        self.proof = Proving(self.coat, self.accounts, self.passwords, self.attempts)
        self.set_up = SetUp(self.accounts, self.passwords, clock=clock)
        self.set_up_token: str | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open database, store and feed, and begin to watch for changed keys; calling it again does nothing.

        Raises:
            StoreUnavailable, ConfigurationError
        """
        if self._watching is not None:
            return
        try:
            await self._database.open()
            await self.coat.open()
            self.set_up_token = await self.set_up.issue()
            await self.end_sessions_of_disabled()
            await self.end_sessions_of_unfinished(self.coat.clock())
            self._watching = asyncio.create_task(self._watch())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop watching, and close what was opened; calling it again does nothing."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        self.passwords.close()
        await self.coat.close()
        await self._database.close()

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
        found: list[str] = []
        for what, ask in (
            ("sessions", lambda: self.coat.store.load(_NOBODY)),
            ("accounts", lambda: self.accounts.get("")),
        ):
            try:
                async with asyncio.timeout(_READY_WITHIN_SECONDS):
                    await ask()
            except (StoreUnavailable, TimeoutError):
                found.append(f"{what}: the store is unavailable")
        if self.coat.verifier.is_stale():
            found.append("revocations: the feed is silent")
        return found

    async def adopt_keys(self) -> bool:
        """Take over the key file if it has changed, and say whether it had: a rotation reaches us without a restart.

        Raises:
            ConfigurationError: it cannot be read.
        """
        ring = await offload(self.keys.changed)
        if ring is not None:
            self.coat.keyring.adopt(ring)
        return ring is not None

    async def end_sessions_of_disabled(self) -> None:
        """End sessions that disabled accounts still have.

        There are some where the process that disabled the account was killed half-way, and where sessions are in
        this process's memory: another process can announce their end, but not remove them.

        Raises:
            StoreUnavailable
        """
        for account in await self.accounts.disabled():
            if await self.coat.store.list(account.id):
                await self.coat.sessions.revoke_all(account.id, reason="the account is disabled")

    async def end_sessions_of_unfinished(self, before: int) -> None:
        """End the sessions of accounts whose password was changed by a process that was killed half-way.

        Nobody was told that it is done; but the old password is gone, and who used it may still be signed in.

        Raises:
            StoreUnavailable
        """
        for id in await self.accounts.unfinished(before):
            await self.coat.sessions.revoke_all(id, reason="the password was changed")
            await self.accounts.finished(id)

    async def _watch(self) -> None:
        trouble: str | None = None
        while True:
            await asyncio.sleep(_WATCH_EVERY_SECONDS)
            try:
                if await self.adopt_keys():
                    _log.info("the key file has changed: its keys are in use from now on")
                await self.end_sessions_of_disabled()
                await self.end_sessions_of_unfinished(self.coat.clock() - _UNFINISHED_AFTER)
                trouble = None
            except (ConfigurationError, StoreUnavailable) as error:
                if str(error) != trouble:
                    _log.warning("%s", error)
                trouble = str(error)
            except CoatcheckError:
                _log.exception("watching goes on")


def store_of(settings: Settings) -> Store:
    """Return the store that the settings name; it is not opened yet.

    Raises:
        ConfigurationError: they name none.
    """
    # By its path and not by a URL: a path may have a question mark in it.
    return store_from_url(settings.store) if settings.store else SQLiteStore(settings.database)
