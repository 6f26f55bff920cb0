"""What an audit has seen (answers, cookies, tokens) and tried (trials, each of which ought to fail)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from coatcheck.audit.fetch import Answer
from coatcheck.audit.target import Target
from coatcheck.inspection.names import for_scripts, role_of
from coatcheck.inspection.set_cookie_line import Line

JWT: Final = re.compile(r"eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]*")


@dataclass(frozen=True)
class SentCookie:
    """A Set-Cookie line, and the answer that it came with."""

    answer: Answer
    line: Line = field(repr=False)

    @property
    def name(self) -> str:
        """Of the cookie; "" for one without."""
        return self.line.name

    @property
    def value(self) -> str:
        """Of the cookie: perhaps a secret."""
        return self.line.value

    @property
    def deletes(self) -> bool:
        """Whether it is to make the browser forget the cookie."""
        return self.line.deletes

    @property
    def attributes(self) -> Mapping[str, str]:
        """What the line says after the value, names in lower case."""
        return self.line.counts


@dataclass(frozen=True)
class Trial:
    """Something that ought not to work, whether it did, and what was seen."""

    worked: bool
    seen: str


@dataclass(frozen=True)
class SignedIn:
    """One sign-in: its answers, the browser's cookies before and after, and a token from the body."""

    answers: tuple[Answer, ...]
    before: Mapping[str, str] = field(repr=False)
    jar: Mapping[str, str] = field(repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def status(self) -> int:
        """What the POST was answered."""
        return self.answers[0].status


@dataclass(kw_only=True)
class Evidence:
    """All that has been found out; the journey fills it in, and the looks only read it.

    What is None, or has no trial under its name, was not found out.
    """

    target: Target
    now: int
    answers: list[Answer]
    page: Answer | None = None
    plain: Answer | None = None
    plain_is_shut: bool = False  # nothing answers without encryption
    told: list[Answer] = field(default_factory=list[Answer])  # a secret in the address, which they may well repeat
    broken: list[Answer] = field(default_factory=list[Answer])  # to what no browser sends
    unauthorized: list[Answer] = field(default_factory=list[Answer])  # to nothing, then to a token that is none
    jwks: Answer | None = None
    sign_in_page: Answer | None = None
    visitor: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    elsewhere: list[str] = field(default_factory=list[str])
    first: SignedIn | None = None
    second: SignedIn | None = None
    session_names: frozenset[str] = frozenset()
    sign_ins: int = 0
    protected: Answer | None = None
    sign_out: tuple[Answer, ...] = ()
    trials: dict[str, list[Trial]] = field(default_factory=dict[str, list[Trial]])
    remarks: list[str] = field(default_factory=list[str])

    def tried(self, name: str, seen: str, *, worked: bool) -> None:
        """Write a trial down."""
        self.trials.setdefault(name, []).append(Trial(worked, seen))

    def untold(self) -> list[Answer]:
        """The answers that know no secret but from a cookie, a header or a body."""
        return [answer for answer in self.answers if answer not in self.told]

    def cookies(self) -> Iterator[SentCookie]:
        """Every Set-Cookie line of every answer."""
        for answer in self.answers:
            yield from sent_cookies(answer, self.now)

    def session_cookies(self) -> list[SentCookie]:
        """The lines that set what a session hangs on, the last one of each name."""
        found = {each.name: each for each in self.cookies() if self.is_session(each) and not each.deletes}
        return list(found.values())

    def is_session(self, cookie: SentCookie) -> bool:
        """Whether a session hangs on the cookie: found out by a sign-in, or guessed by its name and value."""
        if self.session_names:
            return cookie.name in self.session_names
        return looks_like_session(cookie.name, cookie.value)

    def secrets(self) -> set[str]:
        """Every session cookie's value and every token that was handed out."""
        found = {each.value for each in self.cookies() if self.is_session(each) and not each.deletes}
        found |= {signed.token for signed in (self.first, self.second) if signed is not None and signed.token}
        return {secret for secret in found if len(secret) >= 12}  # shorter ones occur by chance


def sent_cookies(answer: Answer, now: int) -> list[SentCookie]:
    """Return the Set-Cookie lines of an answer."""
    lines = (line.encode("latin-1").decode("utf-8", "surrogateescape") for line in answer.every("set-cookie"))
    return [SentCookie(answer, Line.read(line, now)) for line in lines]


def after(jar: Mapping[str, str], answer: Answer, now: int) -> dict[str, str]:
    """Return the cookies that a forgiving browser has after an answer: one that keeps what others drop, too."""
    changed = dict(jar)
    for cookie in sent_cookies(answer, now):
        if cookie.deletes:
            changed.pop(cookie.name, None)
        else:
            changed[cookie.name] = cookie.value
    return changed


def looks_like_session(name: str, value: str) -> bool:
    """Guess whether a session hangs on a cookie."""
    return role_of(name) == "credential" or (JWT.fullmatch(value) is not None and not for_scripts(name))


def cookie_header(*jars: Mapping[str, str]) -> dict[str, str]:
    """Return the Cookie header of some cookies, or nothing if there are none."""
    pairs = (f"{name}={value}" if name else value for jar in jars for name, value in jar.items())
    text = "; ".join(pairs).encode("utf-8", "surrogateescape").decode("latin-1")  # a header's letters are octets
    return {"Cookie": text} if text else {}
