"""How a keyring is stored: its keys, each with a role and its times, and its secret. Where is for others to say.

rotate:   upcoming -> signing -> retired -> forgotten
          (published in advance)  (until the last token it signed has expired)
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final, Literal, Self

import msgspec

from coatcheck.core import base64url
from coatcheck.core.keys import Key, Keyring
from coatcheck.core.policy import MAX_ACCESS_LIFETIME, MAX_LEEWAY, milliseconds
from coatcheck.errors import CoatcheckError, ConfigurationError

DEFAULT_ALGORITHM: Final = "RS256"
# How long verifiers may go on with a JWKS they have fetched: the `max-age` that it is served with.
PUBLISH_AHEAD: Final = timedelta(minutes=5)
# Nothing that a key has signed is accepted this long after its retirement.
_KEEP_RETIRED: Final = MAX_ACCESS_LIFETIME + MAX_LEEWAY
_FORMAT: Final = 1


class StoredKey(msgspec.Struct, kw_only=True):
    """A key as it is stored. Times are milliseconds since the epoch; `retired_at` is 0 for a key in use."""

    role: Literal["signing", "upcoming", "retired"]
    made_at: int
    jwk: dict[str, str]
    retired_at: int = 0

    def __repr__(self) -> str:
        return f"<StoredKey {self.role} kid={self.jwk.get('kid')!r}>"  # the JWK is a private one

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("role", self.role), ("kid", self.jwk.get("kid"))]


class StoredRing(msgspec.Struct, kw_only=True):
    """A keyring as it is stored: JSON, led by the number of its format."""

    format: int
    secret: str
    keys: list[StoredKey]

    def __repr__(self) -> str:
        return f"<StoredRing keys={self.keys!r}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("keys", self.keys)]

    @classmethod
    def first(cls, algorithm: str, now: int) -> Self:
        """Return a ring with a new secret, a signing and an upcoming key; making RSA keys takes a while."""
        secret = base64url.encode(secrets.token_bytes(32))
        return cls(
            format=_FORMAT, secret=secret, keys=[_made("signing", algorithm, now), _made("upcoming", algorithm, now)]
        )

    @classmethod
    def decode(cls, octets: bytes, where: str) -> Self:
        """Return the ring that `encode` has written.

        Args:
            octets: as they were stored.
            where: in words, for the error.

        Raises:
            ConfigurationError: it is damaged, or of a newer version.
        """
        try:
            ring = msgspec.json.decode(octets, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigurationError(f"{where} is damaged") from None
        if ring.format != _FORMAT:
            raise ConfigurationError(f"{where} was made by a newer version")
        return ring

    def encode(self) -> bytes:
        """Return the ring as octets; all of it is secret."""
        return msgspec.json.encode(self)

    def rotate(self, where: str, now: int, *, published_for: timedelta, algorithm: str | None) -> Keyring:
        """Let the upcoming key sign, retire the one that did, add a new upcoming one, and return the ring that makes.

        Args:
            where: it is stored, in words, for the error.
            now: milliseconds since the epoch.
            published_for: refuse if the upcoming key was published more recently than this: a verifier that still
                holds the JWKS from before would not know it (P8, J19).
            algorithm: of the new upcoming key; the one of the key that signs, if left out.

        Raises:
            ConfigurationError: it is too early, the algorithms do not mix, or there is no upcoming key.
        """
        by_role = {key.role: key for key in self.keys}
        if not by_role.keys() >= {"signing", "upcoming"}:
            raise ConfigurationError(f"{where} is damaged: it has no signing or no upcoming key")
        signing, upcoming = by_role["signing"], by_role["upcoming"]
        wait = upcoming.made_at + milliseconds(published_for) - now
        if wait > 0:
            raise ConfigurationError(f"the upcoming key was published too recently; try again in {-(wait // -1000)} s")
        signing.role, signing.retired_at = "retired", now
        upcoming.role = "signing"
        oldest = now - milliseconds(_KEEP_RETIRED)
        self.keys = [key for key in self.keys if key.role == "signing" or key.retired_at > oldest]
        self.keys.append(_made("upcoming", algorithm or upcoming.jwk["alg"], now))
        return self.keyring(where)

    def keyring(self, where: str) -> Keyring:
        """Return the ring to work with.

        Raises:
            ConfigurationError: the keys do not make one.
        """
        try:
            by_role: dict[str, list[Key]] = {"signing": [], "upcoming": [], "retired": []}
            for key in sorted(self.keys, key=lambda stored_key: -stored_key.retired_at):
                by_role[key.role].append(Key.from_jwk(key.jwk))
            [signing] = by_role["signing"]
            upcoming = by_role["upcoming"][0] if by_role["upcoming"] else None
            secret = base64url.decode(self.secret)
            return Keyring(signing, upcoming=upcoming, retired=by_role["retired"], secret=secret)
        except ConfigurationError as error:  # such as a weak key, whose words say so
            raise ConfigurationError(f"{where} holds keys that cannot be used: {error}") from None
        except (CoatcheckError, KeyError, ValueError):
            raise ConfigurationError(f"{where} is damaged: its keys do not make a ring") from None


def _made(role: Literal["signing", "upcoming"], algorithm: str, now: int) -> StoredKey:
    return StoredKey(role=role, made_at=now, jwk=Key.generate(algorithm).private_jwk())
