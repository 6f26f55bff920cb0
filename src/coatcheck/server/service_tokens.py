"""ServiceTokens: bearer tokens that are shared with services, not with people: of the feed, of receivers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from coatcheck.errors import BadSignature, Malformed, Missing


class ServiceTokens:
    """Knows whose a token is.

    Args:
        tokens: each with whose it is.
        kind: what they are called in errors.
    """

    def __init__(self, tokens: Iterable[tuple[str, str]], kind: str) -> None:
        self._digests = [(_digest(token.encode("utf-8")), owner) for token, owner in tokens]
        self._kind = kind

    def owner(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return whose the token in a request's headers is; tokens are compared in constant time.

        Raises:
            Missing, Malformed, BadSignature
        """
        found = [value for name, value in headers if name == b"authorization"]
        if not found:
            raise Missing(f"this needs a {self._kind} token")
        scheme, _, token = found[0].partition(b" ")
        if len(found) > 1 or scheme.lower() != b"bearer":
            raise Malformed(f"this needs a {self._kind} token, as a bearer token")
        presented = _digest(token.strip(b" "))
        owners = [owner for digest, owner in self._digests if hmac.compare_digest(presented, digest)]
        if not owners:
            raise BadSignature(f"this is no {self._kind} token of this server")
        return owners[0]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
