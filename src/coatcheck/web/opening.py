"""When a coatcheck is opened: with its application, or else at a request, which waits for a second at most (P6)."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from coatcheck.compose import Coatcheck
from coatcheck.core import credentials
from coatcheck.errors import CredentialError, StoreUnavailable
from coatcheck.request_head import RequestHead

OPENING_SECONDS: Final = 1.0
"""So long a request waits for the store to be opened; that goes on for those who come later (P6)."""

_log = logging.getLogger("coatcheck")


async def open_with_application(coatcheck: Coatcheck) -> None:
    """Open a coatcheck as its application starts; without a store it starts nevertheless, and requests try again."""
    try:
        await coatcheck.open()
    except StoreUnavailable as error:
        _log.warning("not opened at start-up: %s (%s)", error, error.__cause__ or "no more is known")


async def open_for(head: RequestHead, coatcheck: Coatcheck) -> None:
    """Open a coatcheck for a request.

    Raises:
        StoreUnavailable: it cannot be opened, or not in time, and the request has a credential.
    """
    try:
        async with asyncio.timeout(OPENING_SECONDS):
            await coatcheck.open()
    except (StoreUnavailable, TimeoutError) as error:
        refuse_if_needed(head, coatcheck, error)


def refuse_if_needed(head: RequestHead, coatcheck: Coatcheck, error: Exception) -> None:
    """Refuse a request for which the store could not be opened; who comes without a credential needs none.

    Raises:
        StoreUnavailable: the request has a credential.
    """
    try:
        presented = credentials.read(head.headers, coatcheck.policy.cookie_names)
    except CredentialError:
        return  # it is refused without a look into the store
    if presented is not None:
        raise StoreUnavailable("the store is not open yet") from error
