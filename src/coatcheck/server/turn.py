"""Turn: of several servers of one store, one at a time does what one is enough for.

It is a courtesy and no lock: what must not happen twice is guarded where it happens. A server that was killed loses its
turn after some seconds.
"""

from __future__ import annotations

import secrets
from typing import Final

from coatcheck.clock import Clock
from coatcheck.documents import Documents
from coatcheck.server.document import pack, unpack

LASTS_MS: Final = 6_000
RENEW_SECONDS: Final = 2.0


class Turn:
    """One thing that servers take turns at.

    Args:
        documents: where it is noted whose turn it is.
        key: of that document.
        clock: milliseconds since the epoch; those of two servers may differ by a second or so.
    """

    def __init__(self, documents: Documents, key: str, *, clock: Clock) -> None:
        self._documents = documents
        self._key = key
        self._clock = clock
        self._ours = secrets.token_hex(8)

    async def take(self) -> bool:
        """Say whether it is our turn, for some seconds from now; to be asked again before they are over.

        Raises:
            StoreUnavailable
        """
        now = self._clock()
        [stored] = await self._documents.get(self._key)
        holder, until = ("", 0) if stored is None else unpack(stored, tuple[str, int], "a turn")
        # A time that is too far ahead is from a clock that was: it must not keep everybody waiting (P7).
        if holder != self._ours and now < until <= now + 2 * LASTS_MS:
            return False
        until = now + LASTS_MS
        return await self._documents.note({self._key: stored}, {self._key: pack((self._ours, until))}, expires_at=until)

    async def give_up(self) -> None:
        """Let the next server begin at once, if it is our turn.

        Raises:
            StoreUnavailable
        """
        [stored] = await self._documents.get(self._key)
        if stored is not None and unpack(stored, tuple[str, int], "a turn")[0] == self._ours:
            await self._documents.note({self._key: stored}, {self._key: None})
