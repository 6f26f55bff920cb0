"""Keys: where a keyring is kept, as the server and the command line see it: in a file, or sealed in a store."""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import Protocol

from coatcheck import KeyFile, Keyring
from coatcheck.keyfile import PUBLISH_AHEAD
from coatcheck.run import offload
from coatcheck.stored_ring import StoredKey, StoredRing


class Keys(Protocol):
    """The place of a keyring. All methods may raise ConfigurationError, and those of a store StoreUnavailable."""

    async def open(self) -> Keyring:
        """Return the ring; make it first if there is none."""
        ...

    async def changed(self) -> Keyring | None:
        """Return the ring if it has changed since this object last read it, else None."""
        ...

    async def rotate(self, *, published_for: timedelta = PUBLISH_AHEAD) -> Keyring:
        """Let the upcoming key sign, retire the one that did, and publish a new upcoming one; see `KeyFile.rotate`."""
        ...

    async def keys(self) -> builtins.list[StoredKey]:
        """Return the keys with their roles, for a console; the JWKs are private ones."""
        ...

    async def stored(self) -> StoredRing | None:
        """Return all that is kept, to be moved to another place; None if there is nothing. It is secret."""
        ...

    async def replace(self, ring: StoredRing) -> None:
        """Keep a ring from another place, instead of whatever is kept here."""
        ...


class KeysInFile:
    """A KeyFile whose work is done in a thread."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file

    async def open(self) -> Keyring:
        """Return the ring; see `Keys.open`."""
        return await offload(self._file.open)

    async def changed(self) -> Keyring | None:
        """Return the ring if it has changed; see `Keys.changed`."""
        return await offload(self._file.changed)

    async def rotate(self, *, published_for: timedelta = PUBLISH_AHEAD) -> Keyring:
        """Rotate the ring; see `Keys.rotate`."""
        return await offload(lambda: self._file.rotate(published_for=published_for))

    async def keys(self) -> builtins.list[StoredKey]:
        """Return the keys; see `Keys.keys`."""
        return await offload(self._file.keys)

    async def stored(self) -> StoredRing | None:
        """Return all that is kept; see `Keys.stored`."""
        return await offload(self._file.stored)

    async def replace(self, ring: StoredRing) -> None:
        """Keep another ring; see `Keys.replace`."""
        await offload(lambda: self._file.replace(ring))
