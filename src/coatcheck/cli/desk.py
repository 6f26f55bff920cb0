"""What the commands stand on: a server's accounts, keys and sessions, opened beside servers that may be running.

A running server hears of what is done here through the feed, within a quarter of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from coatcheck import Coatcheck
from coatcheck.cli.main import NotDone
from coatcheck.server.accounts import Accounts
from coatcheck.server.ends import there
from coatcheck.server.in_use import in_use, require_finished
from coatcheck.server.keys import Keys
from coatcheck.server.places import Places, places_of
from coatcheck.server.settings import Settings, prepare

T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine, and return what it returns."""
    return asyncio.run(work())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings of a command that needs the data of a server.

    Raises:
        ConfigurationError: a setting cannot work.
        NotDone: there is no data.
    """
    settings = Settings.read(vars(arguments))
    if not settings.shared:
        if not there(settings.database):
            raise NotDone(f"there is no coatcheck data in {settings.data_dir}: name it with --data-dir")
        prepare(settings.data_dir)
    return settings


@asynccontextmanager
async def accounts_of(settings: Settings) -> AsyncGenerator[Accounts]:
    """Open the accounts.

    Raises:
        StoreUnavailable, ConfigurationError
        Conflict: they are being moved to another store.
    """
    async with _using(settings) as places:
        await places.documents.open()
        yield Accounts(places.documents)


@asynccontextmanager
async def keys_of(settings: Settings) -> AsyncGenerator[Keys]:
    """Open the place of the keys.

    Raises:
        StoreUnavailable, ConfigurationError
        Conflict: they are being moved to another store.
    """
    async with _using(settings) as places:
        yield places.keys


@asynccontextmanager
async def server_of(settings: Settings) -> AsyncGenerator[tuple[Accounts, Coatcheck]]:
    """Open accounts and sessions, with the server's feed and without its keys: nothing is signed here.

    Raises:
        StoreUnavailable, ConfigurationError
        Conflict: they are being moved to another store.
    """
    async with (
        _using(settings) as places,
        Coatcheck(places.store, feed=places.feed, on_event=lambda _: None) as coat,
    ):
        await places.documents.open()
        yield Accounts(places.documents), coat


@asynccontextmanager
async def _using(settings: Settings) -> AsyncGenerator[Places]:
    """Use what is there, beside servers and other commands; but nothing is changed that is being moved."""
    places = places_of(settings)
    with in_use(settings, places.store):
        try:
            if settings.shared or there(settings.database):
                await places.documents.open()
                await require_finished(places.store, places.documents)
            yield places
        finally:
            await places.documents.close()


def show(content: Any) -> None:
    """Print JSON."""
    print(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their heads; without rows, nothing."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    if len(lines) == 1:
        sys.stderr.write("none\n")
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def moment(milliseconds: int) -> str:
    """Return a time as a script and a person can read it; "" for none."""
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
