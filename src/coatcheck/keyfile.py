"""KeyFile: keeps a Keyring in a file, rotates it there, and lets running processes adopt what changed.

    rotate:   upcoming -> signing -> retired -> forgotten
              (published in advance)  (until the last token it signed has expired)

The file is private (0600) and replaced atomically, so that a reader sees all of the old ring or of the new.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

from coatcheck.clock import Clock, system_clock
from coatcheck.core import base64url
from coatcheck.core.algorithms import named
from coatcheck.core.keys import Key, Keyring
from coatcheck.core.policy import MAX_ACCESS_LIFETIME, MAX_LEEWAY, milliseconds
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.stores.file_system import write_over

DEFAULT_ALGORITHM = "RS256"
# How long verifiers may go on with a JWKS they have fetched: the `max-age` that it is served with.
PUBLISH_AHEAD = timedelta(minutes=5)
# Nothing that a key has signed is accepted this long after its retirement.
_KEEP_RETIRED = MAX_ACCESS_LIFETIME + MAX_LEEWAY
_FORMAT = 1


class StoredKey(msgspec.Struct, kw_only=True):
    """A key in the file. Times are milliseconds since the epoch; `retired_at` is 0 for a key in use."""

    role: Literal["signing", "upcoming", "retired"]
    made_at: int
    jwk: dict[str, str]
    retired_at: int = 0

    def __repr__(self) -> str:
        return f"<StoredKey {self.role} kid={self.jwk.get('kid')!r}>"  # the JWK is a private one

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("role", self.role), ("kid", self.jwk.get("kid"))]


class _Stored(msgspec.Struct, kw_only=True):
    format: int
    secret: str
    keys: list[StoredKey]


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
                stored = self._first()
                self._write(stored)
            return _ring(stored)

    def changed(self) -> Keyring | None:
        """Return the ring if the file has changed since this object last read it, else None; costs one stat.

        Raises:
            ConfigurationError: the file is damaged or gone.
        """
        if self._stat() == self._seen:
            return None
        stored = self._read()
        if stored is None:
            raise ConfigurationError(f"the key file {self.path} is gone")
        return _ring(stored)

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
            stored, now = self._read(), self._clock()
            if stored is None:
                raise ConfigurationError(f"there is no key file {self.path}")
            upcoming = next((key for key in stored.keys if key.role == "upcoming"), None)
            wait = 0 if upcoming is None else upcoming.made_at + milliseconds(published_for) - now
            if wait > 0:
                raise ConfigurationError(
                    f"the upcoming key was published too recently; try again in {-(wait // -1000)} s"
                )
            self._rotate(stored, now, algorithm)
            ring = _ring(stored)
            self._write(stored)
            return ring

    def keys(self) -> list[StoredKey]:
        """Return what the file holds, for a console; the JWKs are private ones.

        Raises:
            ConfigurationError: there is no file, or it cannot be read.
        """
        stored = self._read()
        if stored is None:
            raise ConfigurationError(f"there is no key file {self.path}")
        return stored.keys

    def _first(self) -> _Stored:
        secret = base64url.encode(secrets.token_bytes(32))
        keys = [self._made("signing", self._algorithm), self._made("upcoming", self._algorithm)]
        return _Stored(format=_FORMAT, secret=secret, keys=keys)

    def _made(self, role: Literal["signing", "upcoming"], algorithm: str) -> StoredKey:
        return StoredKey(role=role, made_at=self._clock(), jwk=Key.generate(algorithm).private_jwk())

    def _rotate(self, stored: _Stored, now: int, algorithm: str | None) -> None:
        by_role = {key.role: key for key in stored.keys}
        if not by_role.keys() >= {"signing", "upcoming"}:
            raise ConfigurationError("the key file is damaged: it has no signing or no upcoming key")
        by_role["signing"].role, by_role["signing"].retired_at = "retired", now
        by_role["upcoming"].role = "signing"
        oldest = now - milliseconds(_KEEP_RETIRED)
        stored.keys = [key for key in stored.keys if key.role == "signing" or key.retired_at > oldest]
        stored.keys.append(self._made("upcoming", algorithm or by_role["upcoming"].jwk["alg"]))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"the key file {self.path} cannot be read: {error.strerror}") from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> _Stored | None:
        self._seen = self._stat()
        try:
            if os.stat(self.path).st_mode & 0o077:
                raise ConfigurationError(f"the key file {self.path} may be read by others: chmod 600 it")
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"the key file {self.path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigurationError(f"the key file {self.path} is damaged") from None
        if stored.format != _FORMAT:
            raise ConfigurationError(f"the key file {self.path} was made by a newer version")
        return stored

    def _write(self, stored: _Stored) -> None:
        try:
            # Durably, the name included: keys that a power cut takes back end every token.
            write_over(os.path.abspath(self.path), msgspec.json.encode(stored))
        except OSError as error:
            raise ConfigurationError(f"the key file {self.path} cannot be written: {error.strerror}") from None
        self._seen = self._stat()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        """Let one process at a time make or rotate keys."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the key file {self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _ring(stored: _Stored) -> Keyring:
    try:
        by_role: dict[str, list[Key]] = {"signing": [], "upcoming": [], "retired": []}
        for key in sorted(stored.keys, key=lambda stored_key: -stored_key.retired_at):
            by_role[key.role].append(Key.from_jwk(key.jwk))
        [signing] = by_role["signing"]
        upcoming = by_role["upcoming"][0] if by_role["upcoming"] else None
        return Keyring(signing, upcoming=upcoming, retired=by_role["retired"], secret=base64url.decode(stored.secret))
    except (CoatcheckError, KeyError, ValueError):
        raise ConfigurationError("the key file is damaged: its keys do not make a ring") from None
