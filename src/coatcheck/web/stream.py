"""Stream: a response in parts that a server asks for one by one, cut once what it came with has ended (F11).

Nothing has to tick for it. Before a part leaves, it is looked whether revocations were heard since the one before (a
number), and whether a time has passed; only then is it judged anew. While the application has nothing to send, nothing
leaves, and nobody looks.
"""

from __future__ import annotations

import errno
import logging

from coatcheck.compose import Coatcheck
from coatcheck.errors import CoatcheckError, StoreUnavailable
from coatcheck.exchange import Exchange
from coatcheck.standing import AskInSilence, ExchangeStanding

_log = logging.getLogger("coatcheck")


class Stream:
    """One of them; made once it has begun, or is about to.

    Args:
        exchange: of the request.
        coatcheck: whose revocations, clock and policy count.
    """

    __slots__ = ("_applied", "_ask", "_ends_at", "_error", "_standing", "_verifier")

    def __init__(self, exchange: Exchange, coatcheck: Coatcheck) -> None:
        self._verifier = coatcheck.verifier
        self._standing = ExchangeStanding(exchange, coatcheck.sessions, coatcheck.verifier)
        self._applied = -1  # what was heard since the request came is news
        self._ends_at: int | None = None
        self._ask = AskInSilence(coatcheck.verifier)
        self._error: CoatcheckError | None = None

    async def judge(self) -> None:
        """Let the next part leave, or cut the stream, for good.

        Raises:
            BrokenPipeError: it is cut; what servers take for a client that has left, and end the connection for.
        """
        if self._error is None:
            try:
                if self._is_due():
                    await self._standing.renew()
                    self._ends_at = self._standing.ends_at()
            except CoatcheckError as error:
                self._error = error
                _log.info("an open connection is cut: %s", error)
            except Exception:  # noqa: BLE001 - a store that is not ours may raise anything
                self._error = StoreUnavailable("an open connection could not be judged")
                _log.exception("an open connection is cut: %s", self._error)
        if self._error is not None:
            raise BrokenPipeError(errno.EPIPE, "this connection was cut: " + self._error.code)

    def _is_due(self) -> bool:
        if self._ends_at is None:
            self._ends_at = self._standing.ends_at()
        applied = self._verifier.revocations.applied
        news, self._applied = applied != self._applied, applied
        return self._verifier.clock() >= self._ends_at or (news and self._standing.is_suspect()) or self._ask()
