"""Attempts: how often passwords may be tried, per account and per address; and Alarm, which counts guessed cookies.

An attempt counts from the moment it begins, so that many at once cannot slip through together; a success takes it
back. Names that nobody has count like the others. The counters are documents, one for each name and one for each
address: a restart forgets nothing (only a power cut may), and several processes count together.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from coatcheck import Keyring
from coatcheck.clock import Clock, system_clock
from coatcheck.documents import Documents
from coatcheck.errors import BadSignature, CoatcheckError, CredentialError, Malformed, Revoked, Superseded
from coatcheck.server.accounts import fold
from coatcheck.server.document import pack, unpack, until_committed

WINDOW: Final = 15 * 60 * 1000  # milliseconds
PER_ACCOUNT: Final = 10
PER_ADDRESS: Final = 50
ALARM_AT: Final = 200
_MAX_ADDRESSES = 10_000

_log = logging.getLogger("coatcheck.server")


class TooMany(CoatcheckError):
    """Too many sign-in attempts; `retry_after` is in seconds, at least 1."""

    status = 429
    code = "too_many_attempts"
    oauth_error = "temporarily_unavailable"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Attempt(msgspec.Struct, frozen=True):
    """An attempt that has begun, and where it is counted."""

    id: bytes
    account: str
    address: str


class _Begun(msgspec.Struct, frozen=True, array_like=True):
    """An attempt as it is stored: an id and milliseconds since the epoch."""

    id: bytes
    at: int


_Counted = tuple[_Begun, ...]


class Attempts:
    """Counts the sign-in attempts of the last quarter of an hour. All methods may raise StoreUnavailable.

    Args:
        documents: where they are kept.
        keyring: names and addresses are kept as MACs under a key of it: people type passwords into the wrong field
            (S17). It need not be filled before the first attempt.
        clock: milliseconds since the epoch.
    """

    def __init__(self, documents: Documents, keyring: Keyring, *, clock: Clock = system_clock) -> None:
        self._documents = documents
        self._keyring = keyring
        self._clock = clock

    async def begin(self, name: str, address: str) -> Attempt:
        """Count an attempt to sign in.

        Args:
            name: as it was typed.
            address: of the client; "" counts as an address of its own.

        Raises:
            TooMany: name or address have had theirs; it is not counted then.
        """
        now = self._clock()
        account, source = self._place("account", fold(name)), self._place("address", network(address))
        attempt = Attempt(secrets.token_bytes(8), account, source)

        async def step() -> Attempt | None:
            stored = dict(zip((account, source), await self._documents.get(account, source), strict=True))
            counted = {key: _counted(one, now) for key, one in stored.items()}
            for key, most, words in (
                (account, PER_ACCOUNT, "for this account"),
                (source, PER_ADDRESS, "from this address"),
            ):
                wait = _wait(counted[key], most, now)
                if wait:
                    raise TooMany(f"more than {most} attempts to sign in {words} in 15 minutes", wait)
            writes = {key: pack((*begun, _Begun(attempt.id, now))) for key, begun in counted.items()}
            return attempt if await self._documents.note(stored, writes, expires_at=now + WINDOW) else None

        return await until_committed(step)

    async def succeeded(self, attempt: Attempt) -> None:
        """Take the attempt back, and forget the account's failures; those of the address still count."""
        await self._take_back(attempt, lambda _: ())

    async def undo(self, attempt: Attempt) -> None:
        """Take the attempt back: no password was checked."""
        await self._take_back(attempt, lambda counted: _without(counted, attempt.id))

    async def _take_back(self, attempt: Attempt, remaining: Callable[[_Counted], _Counted]) -> None:
        """Take an attempt back from its address, and leave of its account's what is remaining."""
        now = self._clock()

        async def step() -> bool | None:
            account, source = await self._documents.get(attempt.account, attempt.address)
            left = {
                attempt.account: remaining(_counted(account, now)),
                attempt.address: _without(_counted(source, now), attempt.id),
            }
            stored = {attempt.account: account, attempt.address: source}
            writes = {key: pack(counted) if counted else None for key, counted in left.items()}
            return await self._documents.note(stored, writes, expires_at=now + WINDOW) or None

        await until_committed(step)

    def _place(self, kind: str, value: str) -> str:
        # At every attempt anew: all servers of one store count under the keys that they share.
        key = self._keyring.derive("sign-in attempts")[0]
        return f"attempt/{kind}/{hmac.digest(key, value.encode('utf-8', 'surrogatepass'), 'sha256').hex()}"


class Alarm:
    """Raises an alarm in the log, once a quarter of an hour, when an address presents many dead credentials (S23).

    Whoever guesses needs about 2^384 tries, so nothing is refused for it: behind one address there may be many people
    whose sessions have ended. The counters are in memory, for ten thousand addresses at most (P9).
    """

    def __init__(self, *, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, int]] = {}

    def note(self, refusal: CredentialError | None, address: str) -> None:
        """Count a refused credential; what has expired, or came late with the right secret, is no guess."""
        if isinstance(refusal, Superseded) or not isinstance(refusal, Revoked | BadSignature | Malformed):
            return
        now, source = self._clock(), network(address)
        since, count = self._seen.pop(source, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        # Popped and put back: the oldest entry is the one that was quiet for longest.
        self._seen[source] = (since, count + 1)
        if len(self._seen) > _MAX_ADDRESSES:
            self._seen.pop(next(iter(self._seen)))
        if count + 1 == ALARM_AT:
            _log.warning("alarm: %d refused credentials from %s in 15 minutes", ALARM_AT, source)


def network(address: str) -> str:
    """Return what an address counts as: an IPv6 host has at least 2^64 of them, so its /64 counts."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _counted(stored: bytes | None, now: int) -> _Counted:
    """Return the attempts that count at `now`, oldest first."""
    begun = () if stored is None else unpack(stored, _Counted, "a count of sign-in attempts")
    # Those from the future were noted before a clock was set back: they would lock out until it is there again.
    return tuple(sorted((one for one in begun if now - WINDOW < one.at <= now + WINDOW), key=lambda one: one.at))


def _without(counted: _Counted, id: bytes) -> _Counted:
    return tuple(one for one in counted if one.id != id)


def _wait(counted: _Counted, most: int, now: int) -> int:
    """Return in how many seconds the next attempt may begin, or 0 if it may now."""
    # The attempt that is `most` places back must have left the window.
    return 0 if len(counted) < most else max(1, -((counted[-most].at + WINDOW - now) // -1000))
