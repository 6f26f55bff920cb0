"""What the commands stand on: the server's database and sessions, opened beside a server that may be running.

A running server hears of what is done here through the feed in the database, within a quarter of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from coatcheck import Coatcheck
from coatcheck.cli.main import NotDone
from coatcheck.errors import ConfigurationError
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.server.accounts import Accounts
from coatcheck.server.database import Database
from coatcheck.server.server import store_of
from coatcheck.server.settings import Settings, prepare


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command's coroutine."""
    asyncio.run(work())


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings of a command that needs the data of a server.

    Raises:
        ConfigurationError: a setting cannot work.
        NotDone: there is no data.
    """
    settings = Settings.read(vars(arguments))
    if not there(settings.database):
        raise NotDone(f"there is no coatcheck data in {settings.data_dir}: name it with --data-dir")
    prepare(settings.data_dir)
    return settings


def there(path: Path) -> bool:
    """Say whether a file is there.

    Raises:
        ConfigurationError: it cannot be told.
    """
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(f"--data-dir (COATCHECK_DATA_DIR): {path.parent}: {error.strerror}") from None


@asynccontextmanager
async def accounts_of(settings: Settings) -> AsyncGenerator[Accounts]:
    """Open the accounts.

    Raises:
        StoreUnavailable
    """
    database = Database(settings.database)
    await database.open()
    try:
        yield Accounts(database)
    finally:
        await database.close()


@asynccontextmanager
async def coat_of(settings: Settings) -> AsyncGenerator[Coatcheck]:
    """Open the sessions, with the server's feed and without its keys: nothing is signed here.

    Raises:
        StoreUnavailable, ConfigurationError
    """
    async with Coatcheck(store_of(settings), feed=SQLiteFeed(settings.database), on_event=lambda _: None) as coat:
        yield coat


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
