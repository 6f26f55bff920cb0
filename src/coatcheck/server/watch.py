"""Watch: does what a server has to do now and then, beside its requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from coatcheck.errors import ConfigurationError, StoreUnavailable

_log = logging.getLogger("coatcheck.server")
_ROUND_SECONDS: Final = 1.0

Duty = Callable[[], Awaitable[object]]


class Watch:
    """Runs duties, one after the other; a trouble is logged once, and the others go on.

    Args:
        duties: each with the number of rounds after which it is due again. A round takes a second, and what is done
            in it.
    """

    def __init__(self, *duties: tuple[int, Duty]) -> None:
        self._duties = duties
        self._troubles: dict[Duty, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._task is not None

    def start(self) -> None:
        """Begin, with the first round in a second."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; calling it again does nothing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(_ROUND_SECONDS)
            for every, duty in self._duties:
                if number % every == 0:
                    await self._do(duty)

    async def _do(self, duty: Duty) -> None:
        try:
            await duty()
            self._troubles.pop(duty, None)
        except (ConfigurationError, StoreUnavailable) as error:
            if str(error) not in self._troubles.values():
                _log.warning("%s", error)
            self._troubles[duty] = str(error)
        except Exception:  # noqa: BLE001 - a watch that died would never adopt a key, nor finish what was begun
            _log.exception("watching goes on")
