"""SealedKeys: a keyring that all servers of one store share, in a document that is sealed under their secret.

Whoever can read the store, or a copy of it, has no key; whoever can write to it can bring back an older ring, and no
other. The server that commits first makes the ring, and the others adopt it.

A secret is replaced in three steps, each at all servers: "OLD NEW", then "NEW OLD", which seals anew, then "NEW".
"""

from __future__ import annotations

import builtins
import secrets as randomness
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coatcheck import Keyring
from coatcheck.clock import Clock, system_clock
from coatcheck.core.seal import NONCE_SIZE, seal, unseal
from coatcheck.documents import MAX_VALUE, Documents
from coatcheck.errors import BadSignature, ConfigurationError, Malformed
from coatcheck.keyfile import DEFAULT_ALGORITHM, PUBLISH_AHEAD
from coatcheck.run import offload
from coatcheck.server.document import until_committed
from coatcheck.stored_ring import StoredKey, StoredRing

KEYS: Final = "keys"
_WHERE: Final = "the keyring in the store"
_PURPOSE: Final = "keyring of the servers"


class SealedKeys:
    """A keyring in the store. All methods raise StoreUnavailable where it does not answer.

    Args:
        documents: where it is kept; whoever uses this opens them.
        secrets: random text, 32 characters or more each; the first seals, and all are tried. See
            `coatcheck.server.settings`.
        algorithm: of the keys that `open` makes. What is in the store already stays as it is.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self,
        documents: Documents,
        secrets: Sequence[str],
        *,
        algorithm: str = DEFAULT_ALGORITHM,
        clock: Clock = system_clock,
    ) -> None:
        self._documents = documents
        self._sealing = [_sealing_key(secret) for secret in secrets]
        self._algorithm = algorithm
        self._clock = clock
        self._seen: bytes | None = None

    async def open(self) -> Keyring:
        """Return the ring in the store; make it first if there is none, and seal anew what an older secret seals.

        Raises:
            ConfigurationError: none of the secrets opens it, it is damaged, or of a newer version.
        """
        ring = await until_committed(self._open)
        return ring.keyring(_WHERE)

    async def changed(self) -> Keyring | None:
        """Return the ring if it has changed since this object last read it, else None.

        Raises:
            ConfigurationError: as `open`; or it is gone.
        """
        [stored] = await self._documents.get(KEYS)
        if stored == self._seen:
            return None
        if stored is None:
            raise ConfigurationError(f"{_WHERE} is gone")
        ring = self._unseal(stored, self._sealing).keyring(_WHERE)
        self._seen = stored
        return ring

    async def rotate(self, *, published_for: timedelta = PUBLISH_AHEAD) -> Keyring:
        """Let the upcoming key sign, retire the one that did, and publish a new upcoming one; see `KeyFile.rotate`.

        Raises:
            ConfigurationError: it is too early, or there is no ring that this can open.
        """

        async def step() -> Keyring | None:
            stored, ring = await self._there()
            rotated = await offload(
                lambda: ring.rotate(_WHERE, self._clock(), published_for=published_for, algorithm=None)
            )
            return rotated if await self._commit(stored, ring) else None

        return await until_committed(step)

    async def keys(self) -> builtins.list[StoredKey]:
        """Return what the ring holds, for a console; the JWKs are private ones.

        Raises:
            ConfigurationError: there is no ring that this can open.
        """
        return (await self._there())[1].keys

    async def stored(self) -> StoredRing | None:
        """Return all that is kept, to be moved to another place; None if there is nothing. It is secret.

        Raises:
            ConfigurationError: none of the secrets opens it, it is damaged, or of a newer version.
        """
        [stored] = await self._documents.get(KEYS)
        return None if stored is None else self._unseal(stored, self._sealing)

    async def replace(self, ring: StoredRing) -> None:
        """Keep a ring from another place, instead of whatever is kept here."""

        async def step() -> bool | None:
            [stored] = await self._documents.get(KEYS)
            return await self._commit(stored, ring) or None

        await until_committed(step)

    async def _there(self) -> tuple[bytes, StoredRing]:
        [stored] = await self._documents.get(KEYS)
        if stored is None:
            raise ConfigurationError("there are no keys in the store: `coatcheck serve` makes them")
        return stored, self._unseal(stored, self._sealing)

    async def _open(self) -> StoredRing | None:
        [stored] = await self._documents.get(KEYS)
        if stored is None:
            ring = await offload(lambda: StoredRing.first(self._algorithm, self._clock()))
            return ring if await self._commit(None, ring) else None
        try:
            ring = self._unseal(stored, self._sealing[:1])
        except ConfigurationError:
            ring = self._unseal(stored, self._sealing)
            return ring if await self._commit(stored, ring) else None
        self._seen = stored
        return ring

    async def _commit(self, stored: bytes | None, ring: StoredRing) -> bool:
        nonce = randomness.token_bytes(NONCE_SIZE)
        text = seal(ring.encode(), keys=self._sealing, purpose=_PURPOSE, name=KEYS, nonce=nonce, limit=MAX_VALUE)
        sealed = text.encode("ascii")
        if not await self._documents.commit({KEYS: stored}, {KEYS: sealed}):
            return False
        self._seen = sealed
        return True

    def _unseal(self, stored: bytes, keys: Sequence[bytes]) -> StoredRing:
        try:
            octets = unseal(stored, keys=keys, purpose=_PURPOSE, name=KEYS, limit=MAX_VALUE)
        except BadSignature:
            raise ConfigurationError(
                "COATCHECK_SECRET is not the one that sealed the keys in the store: all servers of a store share it"
            ) from None
        except Malformed:
            raise ConfigurationError(f"{_WHERE} is damaged") from None
        return StoredRing.decode(octets, _WHERE)


def _sealing_key(secret: str) -> bytes:
    info = b"coatcheck keys in the store"
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret.encode("utf-8"))
