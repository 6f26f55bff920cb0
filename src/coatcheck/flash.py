"""Flashes: messages for the next page that a person sees, each shown once.

Each waits in a sealed cookie of its own. So nobody needs a session for it, it outlives a sign-in and a sign-out, and
two requests at once lose nothing: neither overwrites the other's, and a page takes back only those that it has shown.
Two pages that load at the same moment may both show one; a message that is shown twice is better than one that is lost.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Final

import msgspec

from coatcheck.clock import Clock
from coatcheck.cookie_jar import MAX_TOGETHER, CookieJar
from coatcheck.core.own_cookies import SealedCookie
from coatcheck.errors import InvalidValue

MAX_MESSAGE: Final = 1000  # octets of a message and its category, in JSON
MAX_WAITING: Final = 4096  # octets of all that wait in one browser, if there is room; the oldest make some

# No more than 35 fit. Who sends thousands of such names is no browser of ours.
_MAX_ADDED = 40
_MAX_NAMES = 2 * _MAX_ADDED
_SUFFIX = re.compile(r"-[0-9A-Za-z_-]{11}")


class Flash(msgspec.Struct, frozen=True):
    """A message to be shown once.

    Args:
        message: plain text; escape it where it is shown.
        category: a word for how to show it, such as "error"; may be empty.
    """

    message: str
    category: str = ""


class _Waiting(msgspec.Struct, frozen=True, array_like=True):
    """A message in its cookie."""

    at: int
    place: int  # among those of one response
    subject: str | None
    flash: Flash


class Flashes:
    """The messages of one browser; true where some are to be sent. Handlers use `exchange.flash` and `take_flashes`.

    Args:
        jar: the cookies of the request.
        kind: what the messages' cookies are like; each has a name of its own.
        clock: milliseconds since the epoch.
    """

    __slots__ = ("_added", "_clock", "_jar", "_kind")

    def __init__(self, jar: CookieJar, kind: SealedCookie, clock: Clock) -> None:
        self._jar = jar
        self._kind = kind
        self._clock = clock
        self._added: list[Flash] = []

    def __bool__(self) -> bool:
        return bool(self._added)

    def add(self, message: str, category: str = "") -> None:
        """Keep a message for the next page.

        Raises:
            InvalidValue: it is too long, or no text.
        """
        flash = Flash(str(message), str(category))
        if len(_encoded(flash)) > MAX_MESSAGE:
            raise InvalidValue(f"a message and its category take {MAX_MESSAGE} octets at most")
        self._added = [*self._added, flash][-_MAX_ADDED:]

    def take(self, subject: str | None) -> list[Flash]:
        """Return the messages for whoever sees this page, the oldest first, and take their cookies back.

        Args:
            subject: who is signed in. What was meant for somebody else stays where it is.
        """
        found: list[tuple[int, int, Flash]] = []
        for kind, waiting in self._waiting():
            if waiting is not None and waiting.subject in (None, subject):
                found.append((waiting.at, waiting.place, waiting.flash))
                self._jar.take_back(kind)
        taken = [flash for _, _, flash in sorted(found, key=lambda each: each[:2])]
        taken += self._added
        self._added = []
        return taken

    def send(self, subject: str | None) -> None:
        """Send the messages that were added and not taken.

        Args:
            subject: who is signed in when the response leaves; nobody else will see them. None: whoever comes next.
        """
        now = self._clock()
        for place, flash in enumerate(self._added):
            kind = replace(self._kind, name=f"{self._kind.name}-{secrets.token_urlsafe(8)}")
            self._jar.send(kind, _encoded(_Waiting(now, place, subject, flash)).decode())
        self._added = []
        self.make_room()

    def make_room(self) -> None:
        """Give up the oldest messages, where they or all cookies would be more than may be (C15)."""
        waiting, sizes = sorted(self._waiting(), key=_age), self._jar.sizes()
        total = sum(sizes[kind.name] for kind, _ in waiting)
        room = MAX_TOGETHER - (self._jar.together() - total)
        # Where there is none even without them, it does not matter any more.
        over = total - (min(room, MAX_WAITING) if room >= 0 else MAX_WAITING)
        for kind, _ in waiting:
            if over <= 0:
                return
            self._jar.take_back(kind)
            over -= sizes[kind.name]

    def _waiting(self) -> list[tuple[SealedCookie, _Waiting | None]]:
        """Return what waits in the browser, each with its cookie; None for what cannot be read any more."""
        prefix = self._kind.name
        names = [
            name for name in self._jar.sizes() if name.startswith(prefix) and _SUFFIX.fullmatch(name[len(prefix) :])
        ]
        kinds = [replace(self._kind, name=name) for name in names[-_MAX_NAMES:]]
        return [(kind, _decoded(self._jar.read(kind))) for kind in kinds]


def _encoded(value: Flash | _Waiting) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise InvalidValue("a message has no lone surrogates") from None


def _decoded(text: str | None) -> _Waiting | None:
    # What is genuine is ours, of this version or one to come.
    try:
        return None if text is None else msgspec.json.decode(text, type=_Waiting)
    except msgspec.MsgspecError:
        return None


def _age(each: tuple[SealedCookie, _Waiting | None]) -> tuple[int, int]:
    return (0, 0) if each[1] is None else (each[1].at, each[1].place)
