"""IssuerKeys: the public keys of an issuer, fetched before they are needed; the last good ones stay when that fails.

when                                       then they are fetched
at first                                   at once, and again every half second until there are some
half of their max-age has passed           again: one failed try is then no reason to meet a key that is not known
that failed                                every 5 s
a token names a key that is not known      at once, but 5 s after the last time at the earliest
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from typing import Final, NoReturn

from coatcheck.core.jwk import MAX_DOCUMENT
from coatcheck.core.keys import Keyring
from coatcheck.errors import CoatcheckError
from coatcheck.remote.origin import Answer, Origin

PATH: Final = "/.well-known/jwks.json"
COOL_DOWN: Final = 5.0  # seconds
LEAST_FRESH: Final = 10  # seconds
MOST_FRESH: Final = 300  # seconds; also where the issuer names no max-age
_FIRST_PAUSES: Final = (0.1, 0.5)
_SECONDS: Final = 5.0
_TYPES: Final = ("application/jwk-set+json", "application/json")
_MAX_AGE: Final = re.compile(r"(?:^|[ ,])max-age=([0-9]{1,9})(?:$|[ ,])", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")

_log = logging.getLogger("coatcheck")


class IssuerKeys:
    """Keeps a ring up to date with what an issuer publishes.

    Args:
        origin: the issuer.
        ring: takes over what is published, whenever it has changed.

    Attributes: `known`, which is set as soon as there are keys.
    """

    def __init__(self, origin: Origin, ring: Keyring) -> None:
        self.known = asyncio.Event()
        self.trouble: str | None = None
        self._origin = origin
        self._ring = ring
        self._wanted = asyncio.Event()
        self._document = b""

    def want(self) -> None:
        """Fetch the keys soon: a token names one that is not known."""
        self._wanted.set()

    async def watch(self) -> NoReturn:
        """Fetch the keys, again and again."""
        while True:
            self._wanted.clear()
            wait = await self._fetch()
            cool_down = min(COOL_DOWN, wait)
            await asyncio.sleep(cool_down)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait - cool_down):
                    await self._wanted.wait()

    async def _fetch(self) -> float:
        """Fetch the keys once, and return for how many seconds that will do."""
        try:
            async with self._origin.get(PATH, accept=", ".join(_TYPES)) as answer:
                answer.require(*_TYPES)
                document = await answer.body(limit=MAX_DOCUMENT, seconds=_SECONDS)
            self._adopt(document)
        except CoatcheckError as error:
            self._note(str(error))
        except Exception:  # noqa: BLE001 - a watch that died would never learn of the next key
            _log.exception("the keys of %s could not be taken over", self._origin.url)
        else:
            self.trouble = None
            self.known.set()
            return _fresh_for(answer) / 2
        return COOL_DOWN if self.known.is_set() else random.uniform(*_FIRST_PAUSES)  # noqa: S311 - it spreads load

    def _adopt(self, document: bytes) -> None:
        if document != self._document:
            self._ring.adopt(Keyring.from_jwks(document))
            self._document = document

    def _note(self, words: str) -> None:
        if words != self.trouble:
            _log.warning("no new keys of %s: %s", self._origin.url, words)
            self.trouble = words


def _fresh_for(answer: Answer) -> int:
    """Return for how many seconds an answer may be kept (RFC 9111, section 4.2), within our bounds."""
    match = _MAX_AGE.search(answer.fields.get("cache-control", ""))
    age = answer.fields.get("age", "")
    left = (MOST_FRESH if match is None else int(match[1])) - (int(age) if _NUMBER.fullmatch(age) else 0)
    return min(max(left, LEAST_FRESH), MOST_FRESH)
