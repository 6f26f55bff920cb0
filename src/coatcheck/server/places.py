"""Places: where a server's things are kept. The settings decide it, for the server and the command line alike.

store          sessions       accounts, limits        keys                   revocations
local          the store      SQLite, data directory  a file, data directory SQLite, data directory
shared         the store      the store               the store, sealed      the store
"""

from __future__ import annotations

from dataclasses import dataclass

from coatcheck import KeyFile
from coatcheck.clock import Clock, system_clock
from coatcheck.documents import Documents
from coatcheck.feeds.sqlite import SQLiteFeed
from coatcheck.server.keys import Keys, KeysInFile
from coatcheck.server.sealed_keys import SealedKeys
from coatcheck.server.settings import ALGORITHMS, Settings
from coatcheck.store import Store
from coatcheck.stores import documents_from_url, store_from_url
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite_documents import SQLiteDocuments


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are kept; nothing is opened yet.

    Args:
        store: of the sessions.
        documents: everything else but the keys.
        keys: the keyring's place; it needs the documents to be open where the store is shared.
        feed: how revocations reach other processes; None for the one that goes with the store.
    """

    store: Store
    documents: Documents
    keys: Keys
    feed: SQLiteFeed | None


def places_of(settings: Settings, *, clock: Clock = system_clock) -> Places:
    """Return the places that the settings name.

    Raises:
        ConfigurationError: they name none.
    """
    algorithm = ALGORITHMS[settings.algorithm]
    if settings.shared:
        documents = documents_from_url(settings.store)
        return Places(
            store=store_from_url(settings.store),
            documents=documents,
            keys=SealedKeys(documents, settings.secrets, algorithm=algorithm, clock=clock),
            feed=None,
        )
    return Places(
        # By its path and not by a URL: a path may have a question mark in it.
        store=store_from_url(settings.store) if settings.store else SQLiteStore(settings.database),
        documents=SQLiteDocuments(settings.database),
        keys=KeysInFile(KeyFile(settings.key_file, algorithm=algorithm, clock=clock)),
        feed=SQLiteFeed(settings.database),
    )
