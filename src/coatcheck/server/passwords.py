"""Passwords: Argon2id in a small pool of threads, never on the event loop; and what a new password must be.

At most as many hashes run at once as there are cores. Callers wait two seconds for their turn, then they are told
to come back: a flood of sign-ins costs bounded memory, and the other routes do not feel it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from coatcheck.errors import CoatcheckError, InvalidValue
from coatcheck.server.accounts import fold

T = TypeVar("T")

# NIST SP 800-63B-4, 3.1.1.2: 15 or more where the password is the only factor; at least 64 must be allowed; no
# rules of composition. 256 keeps what is hashed bounded.
MIN_LENGTH: Final = 15
MAX_LENGTH: Final = 256
# What is longer is still too long in normal form C, and takes time that grows with the square of its length.
_MOST_TO_NORMALISE = 4 * MAX_LENGTH + 1

_SALT, _OUTPUT = 16, 32  # bytes
_NICENESS = 10
_MAX_WAITING = 500
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
)
_COMMON = (
    "password",
    "passwort",
    "coatcheck",
    "letmein",
    "welcome",
    "iloveyou",
    "qwerty",
    "qwertz",
    "admin",
    "secret",
)
# What is left of a password once its guessable parts are taken out must still be worth guessing.
_LEAST_LEFT = 8


class Busy(CoatcheckError):
    """Too many passwords are being checked at once; `retry_after` is in seconds."""

    status = 503
    code = "busy"
    oauth_error = "temporarily_unavailable"
    retry_after = 2


class Passwords:
    """Hashes and verifies passwords (RFC 9106).

    Args:
        memory: KiB per hash; OWASP's first choice by default, as are the others.
        passes: over that memory.
        lanes: of each hash.
        at_once: how many hashes may run at once; as many as there are cores, if left out.
        patience: seconds that a caller waits for its turn.
    """

    def __init__(
        self,
        *,
        memory: int = 19 * 1024,
        passes: int = 2,
        lanes: int = 1,
        at_once: int | None = None,
        patience: float = 2.0,
    ) -> None:
        self._memory, self._passes, self._lanes, self._patience = memory, passes, lanes, patience
        slots = at_once or _cores()
        self._parameters = f"$argon2id$v=19$m={memory},t={passes},p={lanes}$"
        self._pool = ThreadPoolExecutor(slots, "coatcheck-passwords", initializer=_be_nice)
        self._slots = asyncio.Semaphore(slots)
        self._waiting = 0
        # The hash of no password: to verify against it costs what any other costs.
        self._nobodys = self._parameters + "$".join(_text(secrets.token_bytes(size)) for size in (_SALT, _OUTPUT))

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of a password, in PHC form.

        Raises:
            Busy: it would have to wait too long.
        """
        octets = _octets(password)
        return await self._take_turn(lambda: self._hash(octets))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Say whether a password is the one that was hashed; None, an account that is not there, costs the same.

        Raises:
            Busy: it would have to wait too long.
        """
        octets, against = _octets(password), stored if stored is not None else self._nobodys
        return await self._take_turn(lambda: _matches(octets, against)) and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        """Say whether a hash was made with other parameters than these."""
        return not stored.startswith(self._parameters)

    def _hash(self, octets: bytes) -> str:
        return Argon2id(
            salt=secrets.token_bytes(_SALT),
            length=_OUTPUT,
            iterations=self._passes,
            lanes=self._lanes,
            memory_cost=self._memory,
        ).derive_phc_encoded(octets)

    async def _take_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MAX_WAITING:
            raise Busy(f"more than {_MAX_WAITING} passwords are waiting to be checked")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire()
        except TimeoutError:
            raise Busy(f"passwords wait at most {self._patience:g} s to be checked; come back later") from None
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()

        def give_back(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._slots.release)

        # The turn ends with the thread's work, not with a caller who gave up waiting for it.
        future = self._pool.submit(work)
        future.add_done_callback(give_back)
        return await asyncio.shield(asyncio.wrap_future(future))


def judge_new(password: str, name: str) -> None:
    """Return if this may become the password of an account of this name.

    Args:
        password: as typed.
        name: of the account.

    Not checked: lists of leaked passwords; none is shipped.

    Raises:
        InvalidValue: it is too short or too long, or among the first that anybody would guess; in words for people.
    """
    normal = _normal(password)
    if len(normal) < MIN_LENGTH:
        raise InvalidValue(f"a password has at least {MIN_LENGTH} characters: a few words that only you would combine")
    if len(normal) > MAX_LENGTH:
        raise InvalidValue(f"a password has at most {MAX_LENGTH} characters")
    if _guessable(normal.casefold(), fold(name)):
        raise InvalidValue("this password is easy to guess: it repeats itself, follows the keyboard, or names you")


def _guessable(password: str, name: str) -> bool:
    parts = [*_COMMON, name] if len(name) > 2 else list(_COMMON)
    for part in sorted(parts, key=len, reverse=True):
        password = password.replace(part, "")
    password = re.sub(r"(.+?)\1+", r"\1", password)
    return len(password) < _LEAST_LEFT or any(password in row or password in row[::-1] for row in _ROWS)


def _matches(octets: bytes, stored: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(octets, stored)
    except InvalidKey:
        return False
    return True


def _normal(password: str) -> str:
    # The same password typed on two systems may arrive composed or decomposed (NIST SP 800-63B-4, 3.1.1.2).
    return unicodedata.normalize("NFC", password[:_MOST_TO_NORMALISE])


def _octets(password: str) -> bytes:
    return _normal(password).encode("utf-8", "surrogatepass")


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii").rstrip("=")


def _cores() -> int:
    # Those that this process may use: a container or taskset may leave it fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _be_nice() -> None:
    # Whoever hashes gives way to the event loop. On Linux priorities belong to threads; elsewhere this would slow
    # the whole process down.
    if os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
