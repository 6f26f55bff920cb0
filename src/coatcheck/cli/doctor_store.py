"""What `coatcheck doctor` looks at of a store: whether it answers, what it survives, its clock, and its feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final

from coatcheck import Coatcheck, SQLiteStore
from coatcheck.cli.diagnosis import FORGIVEN_MS, Diagnosis, of_clock
from coatcheck.clock import system_clock
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.feed import Batch, Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.server.ends import path_of, there
from coatcheck.server.settings import Settings
from coatcheck.store import Durability, Store
from coatcheck.stores import store_from_url
from coatcheck.stores.postgres import PostgresStore
from coatcheck.stores.redis import RedisStore

_SURVIVES: Final[Mapping[Durability, str]] = {
    "volatile": "a restart ends every session",
    "crash-safe": "sessions survive a crash of the process; the last ones before a power cut may be lost",
    "power-safe": "sessions survive a power cut",
    "failover-safe": "sessions survive the loss of the primary",
}
_SILENT_SECONDS: Final = 5.0  # then verifiers refuse tokens: a policy's `stale_after`
_SLOW_SECONDS: Final = 2.0
_NO_TIME: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8"


async def store(settings: Settings) -> list[Diagnosis]:
    """Say whether the store answers, what it survives, and how its clock goes."""
    try:
        kept = _store(settings)
        missing = await _missing(kept)
        if missing:
            return [Diagnosis("store", "not looked at", missing)]
        async with _open(kept):
            found = [_durability(kept), *await _clock(kept)]
    except ConfigurationError as error:
        return [Diagnosis("store", "broken", str(error), "`coatcheck serve` does not start with it")]
    except CoatcheckError as error:
        words = (
            "see that its server runs, and that --store (COATCHECK_STORE) names it; while it is down, answers are 503"
        )
        return [Diagnosis("store", "broken", str(error), words)]
    return found


async def feed(settings: Settings) -> Diagnosis:
    """Say whether the feed is heard, and how often."""
    try:
        kept = _store(settings)
        if settings.store == "memory:" or await _missing(kept):
            return Diagnosis("feed", "not looked at", "there is none that reaches other processes")
        coat = _coatcheck(settings, kept)
        if isinstance(coat.feed, LocalFeed):
            return Diagnosis("feed", "attention", "revocations do not leave the process", "name a feed")
        await coat.feed.open()
        try:
            return await _heartbeat(coat.feed)
        finally:
            await coat.feed.close()
    except CoatcheckError as error:
        words = "tokens are refused while it is not heard: see that the store runs"
        return Diagnosis("feed", "broken", str(error), words)


async def revoking(settings: Settings) -> Diagnosis:
    """Make a session and end it, and say how long it took until that was heard: with --write only."""
    try:
        kept = _store(settings)
        if settings.store == "memory:" or await _missing(kept):
            return Diagnosis("revoking", "not looked at", "there is no store that this process could write to")
        async with _coatcheck(settings, kept) as coat:
            session = await coat.sessions.create()
            position = (await coat.feed.snapshot(system_clock())).position
            hearing = asyncio.create_task(_heard(coat.feed, position, session.id or ""))
            start = monotonic()
            await coat.sessions.revoke(session.id or "", reason="coatcheck doctor")
            async with asyncio.timeout(_SILENT_SECONDS):
                await hearing
            took = monotonic() - start
    except TimeoutError:
        words = f"a session was ended, and within {_SILENT_SECONDS:.0f} s nobody heard of it"
        return Diagnosis("revoking", "broken", words, "see that all processes name the same store and feed")
    except CoatcheckError as error:
        return Diagnosis("revoking", "broken", str(error), "see that the store runs, and that its role may write")
    words = f"a session was made and ended; other processes heard of it after {took * 1000:.0f} ms"
    return Diagnosis("revoking", "fine" if took < _SLOW_SECONDS else "attention", words, "")


def _store(settings: Settings) -> Store:
    # By its path and not by a URL: a path may have a question mark in it.
    return store_from_url(settings.store) if settings.store else SQLiteStore(settings.database)


def _coatcheck(settings: Settings, kept: Store) -> Coatcheck:
    # A server's feed is in its data directory; without one, it is where the store's is.
    named = SQLiteFeed(settings.database) if not settings.shared and there(settings.database) else None
    return Coatcheck(kept, feed=named, on_event=lambda _: None)


@asynccontextmanager
async def _open(kept: Store) -> AsyncGenerator[None]:
    try:
        await kept.open()
        yield
    finally:
        await kept.close()


async def _missing(kept: Store) -> str:
    """Say what is not there yet, if to open the store would make it: a doctor makes nothing."""
    path = path_of(kept)
    if path is not None and not there(path):
        return f"{path} is not there yet: it is made when something is written"
    if isinstance(kept, PostgresStore) and "store" not in await kept.versions():
        await kept.close()
        return "the schema is not there yet: `coatcheck migrate` makes it, and so does whoever opens the store"
    return ""


def _durability(kept: Store) -> Diagnosis:
    level = kept.durability
    words = f"it answers, and is {level}: {_SURVIVES[level]}"
    if level == "volatile":
        return Diagnosis("store", "attention", words, "keep sessions in a file, or in Redis or PostgreSQL")
    return Diagnosis("store", "fine", words)


async def _clock(kept: Store) -> list[Diagnosis]:
    check = "clock of the store"
    path = path_of(kept)
    if path is not None:
        return [_clock_of_files(path)]
    if isinstance(kept, RedisStore):
        return [of_clock(check, ahead) for ahead in await _RedisClock(**kept.made_with).ahead()]
    if isinstance(kept, PostgresStore):
        return [of_clock(check, await _PostgresClock(**kept.made_with).ahead())]
    return [Diagnosis(check, "not looked at", "it is this process's own")]


def _clock_of_files(path: Path) -> Diagnosis:
    """Judge by when files were written: what was written in the future was written by another clock, or before."""
    files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()][:1000]
    newest = max((each.stat().st_mtime for each in files), default=0.0)
    ahead = newest * 1000 - system_clock()
    if ahead > FORGIVEN_MS:
        return of_clock("clock of the store", ahead)
    return Diagnosis("clock of the store", "fine", "no file there was written in the future")


class _RedisClock(RedisStore):
    async def ahead(self) -> list[float]:
        """Return how far each primary's clock is ahead of ours, in milliseconds."""
        try:
            found: list[float] = []
            link = self._here().link
            for address in await self._in_time(link.primaries()):
                before = system_clock()
                seconds, microseconds = await self._in_time(link.ask_server(address, ("TIME",)))
                ours = (before + system_clock()) / 2
                found.append(int(seconds) * 1000 + int(microseconds) / 1000 - ours)
            return found
        finally:
            await self.close()


class _PostgresClock(PostgresStore):
    async def ahead(self) -> float:
        """Return how far the server's clock is ahead of ours, in milliseconds."""
        try:
            before = system_clock()
            [[theirs]] = (await self._ask(_NO_TIME, (), again=True)).rows
            return float(theirs) - (before + system_clock()) / 2
        finally:
            await self.close()


async def _heartbeat(feed: Feed) -> Diagnosis:
    position = (await feed.snapshot(system_clock())).position
    start = monotonic()
    try:
        async with asyncio.timeout(_SILENT_SECONDS), aclosing(feed.follow(position)) as batches:
            await anext(batches)  # at once: all that there is
            start = monotonic()
            await anext(batches)
    except TimeoutError:
        words = f"it was silent for {_SILENT_SECONDS:.0f} s: verifiers refuse tokens then (503)"
        return Diagnosis(
            "feed", "broken", words, "see that the store runs, and that nothing in between holds answers back"
        )
    took = monotonic() - start
    words = f"it is heard; its heartbeat came after {took * 1000:.0f} ms"
    if took > _SLOW_SECONDS:
        return Diagnosis("feed", "attention", words, "it comes once a second: the store, or this machine, is slow")
    return Diagnosis("feed", "fine", words)


async def _heard(feed: Feed, position: int, session_id: str) -> None:
    async with aclosing(feed.follow(position)) as batches:
        async for batch in batches:
            if _tells_of(batch, session_id):
                return


def _tells_of(batch: Batch, session_id: str) -> bool:
    return any(revoked.session_id == session_id for revoked in batch.revoked)
