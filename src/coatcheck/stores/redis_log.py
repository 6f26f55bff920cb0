"""Log: waits until a server has written into its log what it has done in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Final

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis_drive import Drive
from coatcheck.stores.redis_scripts import BEHIND, Command
from coatcheck.stores.redis_url import Address
from coatcheck.stores.redis_waiting import UNWRITTEN
from coatcheck.stores.redis_wire import Reply

_PART: Final = 0.8  # of a call's time: what is late should be called pending, and not late


class Log:
    """Asks servers whether their logs are behind, for all that wait for them, in one event loop or without one.

    Args:
        exchange: sends commands to a server, over any connection.
        drive: how coroutines are driven here.
        timeout: how long a call may take, in seconds.
    """

    def __init__(
        self, exchange: Callable[[Address, Sequence[Command]], Awaitable[list[Reply]]], drive: Drive, timeout: float
    ) -> None:
        self._exchange, self._drive, self._patience = exchange, drive, timeout * _PART
        self._ask = drive.together(self._ask_all)

    async def pending(self, address: Address, run: Any) -> str:
        """Wait until a server's log has what was written before, and return what is missing, if that takes too long.

        It is asked over any connection, so that none is held for as long. But a server that was started again would
        say that its log has all, and what was not in there is gone: so it must be the same process.

        Args:
            address: which server.
            run: which process it is, by its `run_id`; an error if it does not say so.

        Raises:
            StoreUnavailable: it does not answer.
        """
        until = monotonic() + self._patience
        while isinstance(run, bytes) and monotonic() < until:
            await self._drive.pause()
            behind, about = await self._ask(address)
            if not isinstance(about, bytes) or b"run_id:" + run not in about:
                break
            if behind == b"":
                return ""
        return UNWRITTEN

    async def _ask_all(self, addresses: Sequence[Address]) -> Sequence[list[Reply] | Exception]:
        several = list(dict.fromkeys(addresses))
        found = dict(zip(several, await self._drive.all(map(self._ask_one, several)), strict=True))
        return [found[address] for address in addresses]

    async def _ask_one(self, address: Address) -> list[Reply] | Exception:
        try:
            return await self._exchange(address, [("EVAL", BEHIND, 0), ("INFO", "server")])
        except StoreUnavailable as error:
            return error
