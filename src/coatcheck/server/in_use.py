"""In use: servers and commands keep moves away from their data, and keep away from data that are being moved."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from coatcheck.documents import Documents
from coatcheck.server import lock
from coatcheck.server.ends import make_parents, notes_beside, path_of, there
from coatcheck.server.settings import Settings
from coatcheck.store import Store
from coatcheck.stores import moving_state


@contextmanager
def in_use(settings: Settings, store: Store) -> Generator[None, None, None]:
    """Keep moves away from a server's data on this machine; where the store is shared, there is nothing to lock.

    Args:
        settings: the server's; its data directory is there.
        store: of its sessions.

    Raises:
        Conflict: a move is under way.
        ConfigurationError: a lock cannot be opened.
    """
    if settings.shared:
        yield
        return
    make_parents(store)
    paths = [path for path in (settings.database, path_of(store)) if path is not None and there(path.parent)]
    with lock.shared(paths):
        yield


async def require_finished(store: Store, documents: Documents) -> None:
    """Return if no move into a server's store is under way, nor was broken off.

    Args:
        store: of its sessions.
        documents: its own, open.

    Raises:
        ConfigurationError: one is, or was.
        StoreUnavailable
    """
    path = path_of(store)
    notes = notes_beside(store) if path is not None and there(path) else None
    if notes is None:
        await moving_state.require_finished(documents)
        return
    try:
        await notes.open()
        await moving_state.require_finished(notes)
    finally:
        await notes.close()
