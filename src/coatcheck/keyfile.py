"""KeyFile: keeps a Keyring in a file, rotates it there, and lets running processes adopt what changed.

What is in it, and what rotating does to that, says `coatcheck.stored_ring`. The file is private (0600) and replaced
atomically, so that a reader sees all of the old ring or of the new.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

from coatcheck.clock import Clock, system_clock
from coatcheck.core.algorithms import named
from coatcheck.core.keys import Keyring
from coatcheck.errors import ConfigurationError
from coatcheck.stored_ring import DEFAULT_ALGORITHM, PUBLISH_AHEAD, StoredKey, StoredRing
from coatcheck.stores.file_system import write_over

__all__ = ["DEFAULT_ALGORITHM", "PUBLISH_AHEAD", "KeyFile", "StoredKey"]


class KeyFile:
    """A key ring in a file.

    Args:
        path: of the file; made by `open` if it is not there.
        algorithm: of the keys that `open` makes: RS256, HS256, ES256 or Ed25519; EdDSA writes the older name of the
            last. What is in the file already stays as it is.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, algorithm: str = DEFAULT_ALGORITHM, clock: Clock = system_clock
    ) -> None:
        self.path = Path(path)
        self._where = f"the key file {self.path}"
        self._algorithm = algorithm
        named(algorithm)
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None

    def open(self) -> Keyring:
        """Return the ring in the file; make file and keys first if there is none.

        Raises:
            ConfigurationError: the file cannot be read or written, is damaged, or may be read by others.
        """
        with self._locked():
            stored = self._read()
            if stored is None:
                stored = StoredRing.first(self._algorithm, self._clock())
                self._write(stored)
            return stored.keyring(self._where)

    def changed(self) -> Keyring | None:
        """Return the ring if the file has changed since this object last read it, else None; costs one stat.

        Raises:
            ConfigurationError: the file is damaged or gone.
        """
        if self._stat() == self._seen:
            return None
        stored = self._read()
        if stored is None:
            raise ConfigurationError(f"{self._where} is gone")
        return stored.keyring(self._where)

    def rotate(self, *, published_for: timedelta = PUBLISH_AHEAD, algorithm: str | None = None) -> Keyring:
        """Let the upcoming key sign, retire the one that did, and publish a new upcoming one.

        Args:
            published_for: refuse if the upcoming key was published more recently than this: a verifier that still
                holds the JWKS from before would not know it (P8, J19).
            algorithm: of the new upcoming key; the one of the key that signs, if left out.

        Raises:
            ConfigurationError: it is too early, the algorithms do not mix, or the file cannot be read or written.
        """
        with self._locked():
            stored = self._there()
            ring = stored.rotate(self._where, self._clock(), published_for=published_for, algorithm=algorithm)
            self._write(stored)
            return ring

    def keys(self) -> list[StoredKey]:
        """Return what the file holds, for a console; the JWKs are private ones.

        Raises:
            ConfigurationError: there is no file, or it cannot be read.
        """
        return self._there().keys

    def stored(self) -> StoredRing | None:
        """Return all that the file holds, to be moved to another place; None if there is no file. It is secret.

        Raises:
            ConfigurationError: it cannot be read.
        """
        return self._read()

    def replace(self, ring: StoredRing) -> None:
        """Keep a ring from another place, instead of whatever the file holds.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        with self._locked():
            self._write(ring)

    def _there(self) -> StoredRing:
        stored = self._read()
        if stored is None:
            raise ConfigurationError(f"there is no key file {self.path}")
        return stored

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._where} cannot be read: {error.strerror}") from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> StoredRing | None:
        self._seen = self._stat()
        try:
            if os.stat(self.path).st_mode & 0o077:
                raise ConfigurationError(f"{self._where} may be read by others: chmod 600 it")
            return StoredRing.decode(self.path.read_bytes(), self._where)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._where} cannot be read: {error.strerror}") from None

    def _write(self, stored: StoredRing) -> None:
        try:
            # Durably, the name included: keys that a power cut takes back end every token.
            write_over(os.path.abspath(self.path), stored.encode())
        except OSError as error:
            raise ConfigurationError(f"{self._where} cannot be written: {error.strerror}") from None
        self._seen = self._stat()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        """Let one process at a time make or rotate keys."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self._where} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
