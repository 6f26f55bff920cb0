"""Ends: where the things of a server lie, for a move from there or to there.

local    sessions at its URL, notes about moves beside them, and all else in the data directory. Two local ends share
         it: accounts and keys stay where they are
shared   everything at its URL
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from coatcheck import Coatcheck, FileStore, KeyFile, SQLiteStore
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError
from coatcheck.feed import Feed
from coatcheck.feeds.local import LocalFeed
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.server.keys import Keys, KeysInFile
from coatcheck.server.sealed_keys import SealedKeys
from coatcheck.server.settings import Settings, prepare
from coatcheck.store import Store
from coatcheck.stores import documents_from_url, store_from_url
from coatcheck.stores.moving import walkable
from coatcheck.stores.sqlite_documents import SQLiteDocuments

# A move may wait: it has half a minute for what a request has a second for.
_PATIENCE: Final = timedelta(seconds=30)


class End:
    """One end of a move; nothing is opened yet.

    Args:
        flag: what it is called in messages.
        settings: those of a server there.

    Attributes: `store` of the sessions; `notes` about moves; `documents`, everything else of a server's but the keys;
    `path`, where the sessions lie if on this machine; `shared`, if not.

    Raises:
        ConfigurationError: it cannot be one.
    """

    def __init__(self, flag: str, settings: Settings) -> None:
        if settings.store.startswith("memory:"):
            raise ConfigurationError(f"{flag}: what is in the memory of a server is out of reach")
        # By its path and not by a URL: a path may have a question mark in it.
        store = store_from_url(settings.store, timeout=_PATIENCE) if settings.store else SQLiteStore(settings.database)
        self.flag, self.settings, self.shared = flag, settings, settings.shared
        self.store, self.path = walkable(store), path_of(store)
        self.notes = notes_beside(store) or documents_from_url(settings.store, timeout=_PATIENCE)
        self.documents = self.notes if self.shared else SQLiteDocuments(settings.database)

    @property
    def has_data(self) -> bool:
        """Whether there can be accounts: for a local store, whether the data directory has any."""
        return self.shared or there(self.settings.database) or there(self.settings.key_file)

    @property
    def locks(self) -> list[Path]:
        """What must be locked on this machine."""
        if self.path is None:
            return []
        return [self.path, *([self.settings.database] if there(self.settings.data_dir) else [])]

    def require_own_data(self) -> None:
        """Refuse sessions that lie in one server's data directory while another one's is named.

        Raises:
            ConfigurationError: they do.
        """
        path, database = self.path, self.settings.database
        if path is not None and path.name == database.name and path.resolve() != database.resolve():
            raise ConfigurationError(
                f"{self.flag} lies in {path.parent}, and --data-dir (COATCHECK_DATA_DIR) is {database.parent}: it is "
                "ambiguous whose accounts and keys are meant"
            )

    def make_room(self) -> None:
        """Make the directories that are needed on this machine.

        Raises:
            ConfigurationError: they cannot be made.
        """
        if self.path is not None and self.path.parent.resolve() == self.settings.data_dir.resolve():
            prepare(self.settings.data_dir)
        make_parents(self.store)

    def keys(self) -> Keys:
        """Return the place of the keyring.

        Raises:
            ConfigurationError: there is no secret to seal it under.
        """
        if self.shared:
            return SealedKeys(self.documents, self.settings.secrets)
        return KeysInFile(KeyFile(self.settings.key_file))

    def feed(self, *, server: bool) -> Feed | None:
        """Return the feed of a server, or else the one beside the sessions; None if none reaches other processes."""
        named = SQLiteFeed(self.settings.database) if server and not self.shared else None
        feed = Coatcheck(self.store, feed=named).feed
        return None if isinstance(feed, LocalFeed) else feed


@asynccontextmanager
async def opened(*parts: Store | Documents | Feed) -> AsyncGenerator[None, None]:
    """Open stores, documents and feeds, and close them, also those that could not be opened.

    Raises:
        StoreUnavailable, ConfigurationError
    """
    async with AsyncExitStack() as stack:
        for part in parts:
            stack.push_async_callback(part.close)
            await part.open()
        yield


def path_of(store: Store) -> Path | None:
    """Return where a store's sessions lie on this machine; None for a shared one."""
    if isinstance(store, SQLiteStore):
        return store.path
    return store.directory if isinstance(store, FileStore) else None


def notes_beside(store: Store) -> Documents | None:
    """Return the place of notes about moves to and from a local store; None for a shared one."""
    if isinstance(store, SQLiteStore):
        return SQLiteDocuments(store.path)
    return SQLiteDocuments(store.directory / "moves.sqlite") if isinstance(store, FileStore) else None


def make_parents(store: Store) -> None:
    """Make the directory that a FileStore's lock lies in; the store would make it as well.

    Raises:
        ConfigurationError: it cannot be made.
    """
    if isinstance(store, FileStore):
        try:
            store.directory.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{store.directory} cannot be made: {error.strerror}") from None


def there(path: Path) -> bool:
    """Say whether a file is there.

    Raises:
        ConfigurationError: it cannot be told.
    """
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
