"""The requests of somebody who signs in and out: some sixty, with two sign-ins, and seven that ought to be refused.

Every trial is a thing that ought not to work; what it means is in the table of rules. Sessions that are left over
are signed out at the end.
"""

from __future__ import annotations

import dataclasses
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from coatcheck.audit.browser import Browser
from coatcheck.audit.evidence import (
    JWT,
    Evidence,
    SignedIn,
    cookie_header,
    looks_like_session,
    sent_cookies,
)
from coatcheck.audit.fetch import Answer, Client, NotLooked
from coatcheck.audit.in_address import show_credentials, sign_in_by_get
from coatcheck.audit.target import Origin, SignIn
from coatcheck.audit.visit import STRANGER, UNSIGNED, destination
from coatcheck.inspection.names import for_scripts

_MOST_COOKIES: Final = 4
_DNS_NAME: Final = re.compile(r"(?=.*[a-z])[a-z0-9.-]+", re.IGNORECASE)
_END: Final = 12  # characters at the end of a value: of an id, of a secret, or of a signature
_SCRIPT: Final = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
_NAVIGATES: Final = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def forgeries(origin: Origin) -> dict[str, dict[str, str]]:
    """Return what another site's request carries, by what it is, as browsers old and new send it (F1, F2)."""
    sibling = f"{origin.scheme}://audit-sibling.{origin.authority}"
    return {
        "Sec-Fetch-Site: cross-site": {"Origin": STRANGER, "Sec-Fetch-Site": "cross-site", **_NAVIGATES},
        "Sec-Fetch-Site: same-site": {"Origin": sibling, "Sec-Fetch-Site": "same-site", **_NAVIGATES},
        "a foreign Origin": {"Origin": STRANGER, "Referer": f"{STRANGER}/"},
        "Origin: null": {"Origin": "null"},
    }


def near(origin: Origin) -> dict[str, str]:
    """Return origins that a careless comparison takes for ours; an address has none that others can have."""
    if not _DNS_NAME.fullmatch(origin.host):
        return {}
    return {
        "an Origin that begins like yours": f"{origin.scheme}://{origin.host}.audit.invalid",
        "an Origin that ends like yours": f"{origin.scheme}://audit-{origin.authority}",
    }


class Signing:
    """One audit's sign-ins. `run` is all that others call."""

    def __init__(self, client: Client, evidence: Evidence, sign_in: SignIn) -> None:
        self._evidence = evidence
        self._target = evidence.target
        self._how = sign_in
        self._browser = Browser(client, evidence, sign_in)
        self._alive: list[SignedIn] = []
        # One that is open to everybody tells nothing of who is signed in.
        is_open = any(each.worked for each in evidence.trials.get("protected", ()))
        self._protected = None if is_open else self._target.protected_path
        self._by_token = False  # there is no cookie: what the sign-in gave is a token
        self._shape = random.Random(0)  # noqa: S311 - the id that a client chooses is to be made up, not secret

    def run(self) -> None:
        """Sign in and out in every way, and leave no session behind.

        Raises:
            NotLooked: the sign-in does not work, or the application stopped answering.
        """
        try:
            first = self._first()
            self._in_address(first)
            self._fixation(first)
            self._chosen_id(first)
            self._twice(first)
            self._look_alikes(first)
            self._open_to_strangers(first)
            self._spoilt(first)
            self._by_get()
            self._forged_sign_ins()
            self._sign_outs()
        finally:
            self._leave()

    # -- signing in --------------------------------------------------------------------------------------------

    def _first(self) -> SignedIn:
        evidence = self._evidence
        evidence.first = signed = self._sign_in(evidence.visitor, f"{STRANGER}/")
        if signed.status >= 400 or not (self._works(signed) or self._works_by_token(signed)):
            raise self._no_sign_in(signed)
        if not self._by_token:
            evidence.session_names = self._names(signed)
        if self._protected is not None:
            evidence.protected = self._show(signed)
        return signed

    def _no_sign_in(self, signed: SignedIn) -> NotLooked:
        more = "" if self._protected else "; --protected-path would make it certain"
        return NotLooked(f"the sign-in did not work: {_posted(self._how.path)} answered {signed.status}{more}")

    def _works(self, signed: SignedIn) -> bool:
        if self._protected is not None:
            return bool(signed.jar) and self._opens(signed)
        # A form that is shown again, with 200, may set cookies, too; but a sign-in brings a new one.
        return any(signed.before.get(name) != value for name, value in signed.jar.items() if not for_scripts(name))

    def _works_by_token(self, signed: SignedIn) -> bool:
        self._by_token = signed.token is not None
        return self._by_token and (self._protected is None or self._opens(signed))

    def _sign_in(self, jar: Mapping[str, str], onward: str) -> SignedIn:
        signed = self._browser.sign_in(jar, onward)
        if signed.status == 429:
            raise NotLooked("the application takes no more sign-ins for now (429); try again later")
        self._remember(signed)
        self._onward(signed.answers[0], onward)
        return signed

    def _remember(self, signed: SignedIn) -> None:
        if signed.status < 400:
            self._alive.append(signed)
            self._evidence.sign_ins += 1

    def _live(self) -> SignedIn:
        """Return a session that is alive, by signing in once more if need be."""
        while self._alive:
            if self._protected is None or self._opens(self._alive[-1]):
                return self._alive[-1]
            self._alive.pop()
        signed = self._sign_in({}, "//audit.invalid/")
        if not self._alive or (self._protected is not None and not self._opens(signed)):
            raise self._no_sign_in(signed)
        return signed

    def _names(self, signed: SignedIn) -> frozenset[str]:
        """Find out which cookies a session hangs on: without one of them, the protected path stays shut."""
        candidates = [name for name in signed.jar if not for_scripts(name)][:_MOST_COOKIES]
        if self._protected is not None and len(candidates) > 1:
            needed = [name for name in candidates if not self._opens(signed, _without(signed.jar, name))]
            return frozenset(needed or candidates)
        fresh = {each.name for answer in signed.answers for each in sent_cookies(answer, self._evidence.now)}
        named = [name for name in candidates if looks_like_session(name, signed.jar[name])]
        return frozenset(named or fresh.intersection(candidates) or candidates)

    # -- what opens --------------------------------------------------------------------------------------------

    def _show(
        self, signed: SignedIn, jar: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for the protected path by cookies, or by a token where there are none."""
        used = signed.jar if jar is None else jar
        path = self._protected or self._target.path
        return self._browser.get(path, used, {**self._bearer(signed), **(headers or {})})

    def _bearer(self, signed: SignedIn) -> dict[str, str]:
        return {"Authorization": f"Bearer {signed.token}"} if self._by_token else {}

    def _opens(self, signed: SignedIn, jar: Mapping[str, str] | None = None) -> bool:
        return self._show(signed, jar).is_success

    # -- trials ------------------------------------------------------------------------------------------------

    def _in_address(self, first: SignedIn) -> None:
        """A session id (S17) or an access token (O16) in the address opens nothing."""
        if self._protected is not None:
            show_credentials(self._browser, self._evidence, first, self._protected)

    def _fixation(self, first: SignedIn) -> None:
        """The id that a visitor had before the sign-in opens nothing after it (S4)."""
        names = self._evidence.session_names
        before = {name: value for name, value in first.before.items() if name in names}
        kept = sorted(name for name, value in before.items() if first.jar.get(name) == value)
        seen = f"after the sign-in, {', '.join(kept or sorted(before))} of before"
        if kept:
            self._evidence.tried("old id", f"{seen} is the session's", worked=True)
        elif before and self._protected is not None:
            self._evidence.tried("old id", f"{seen} opens {self._protected}", worked=self._opens(first, before))
        elif names:
            self._evidence.tried("old id", "a visitor has no session before the sign-in", worked=False)

    def _chosen_id(self, first: SignedIn) -> None:
        """An id that the client made up is not adopted (S3); and there is a second session to compare with."""
        names = sorted(self._evidence.session_names & first.jar.keys())
        chosen = {name: self._made_up(first.jar[name]) for name in names}
        second = self._sign_in(chosen, "/\\audit.invalid/")
        adopted = [name for name in names if second.jar.get(name) == chosen[name]]
        works = bool(adopted) and (self._protected is None or self._opens(second))
        if names:
            seen = f"a sign-in that came with {', '.join(names)} of the client's own making"
            self._evidence.tried("chosen id", f"{seen} has made it the session's", worked=works)
        if adopted or second.status >= 400:
            second = self._sign_in({}, "//audit.invalid/")
        if second.status < 400 and second.jar.keys() >= set(names):
            self._evidence.second = second

    def _twice(self, first: SignedIn) -> None:
        """Of two session cookies of one name, none is picked (C13): one may be an attacker's."""
        second = self._evidence.second
        if second is None or self._protected is None or not self._evidence.session_names:
            return
        if not (self._opens(first) and self._opens(second)):
            self._evidence.remarks.append("one sign-in ends the other: two cookies of one name were not tried")
            return
        for one, other, which in ((first, second, "first"), (second, first, "other")):
            header = cookie_header(one.jar, other.jar)
            answer = self._show(one, {}, header)
            names = ", ".join(sorted(self._evidence.session_names))
            seen = f"{answer.to} answered {answer.status} to two cookies {names} of two sessions, the {which} one first"
            self._evidence.tried("two cookies", seen, worked=answer.is_success)

    def _look_alikes(self, first: SignedIn) -> None:
        """Only the exact name counts (C9)."""
        names = self._evidence.session_names
        if not names or self._protected is None:
            return
        for what, change in _LOOK_ALIKES.items():
            jar = {(change(name) if name in names else name): value for name, value in first.jar.items()}
            if jar.keys() != first.jar.keys():
                answer = self._show(first, jar)
                seen = f"{answer.to} answered {answer.status} to a session cookie whose name is {what}"
                self._evidence.tried("look-alike", seen, worked=answer.is_success)

    def _open_to_strangers(self, first: SignedIn) -> None:
        """A page of another origin cannot read what is protected (CORS), and is nowhere sent to."""
        for origin in (STRANGER, "null", *near(self._target.origin).values()):
            answer = self._show(first, headers={"Origin": origin} | _SCRIPT)
            allowed = answer.first("access-control-allow-origin")
            credentials = (answer.first("access-control-allow-credentials") or "").lower() == "true"
            seen = f"{answer.to} lets scripts of Origin: {origin} read its answer, with the user's cookies"
            self._evidence.tried("cors", seen, worked=allowed == origin and credentials)
        self._onward(self._browser.onward_when_signed_in(first), f"{STRANGER}/")

    def _spoilt(self, first: SignedIn) -> None:
        """What was changed opens nothing (S5), and neither does a token that says it was not signed (J3)."""
        if self._protected is None or not self._opens(first):
            return
        for trial, change, what in (
            ("changed value", self._with_another_end, "whose last characters were changed"),
            ("unsigned token", _unsigned, 'with "alg": "none"'),
        ):
            jar = {
                name: change(value) if name in self._evidence.session_names else value
                for name, value in first.jar.items()
            }
            token = change(first.token) if self._by_token and first.token else first.token
            if (jar, token) == (first.jar, first.token):
                continue
            answer = self._show(dataclasses.replace(first, jar=jar, token=token))
            seen = f"{answer.to} answered {answer.status} to a credential {what}"
            self._evidence.tried(trial, seen, worked=answer.is_success)

    def _by_get(self) -> None:
        """A name and a password in the address sign nobody in (F4)."""
        names = self._evidence.session_names
        if not self._how.password or not (names or self._protected):
            return
        signed, worked = sign_in_by_get(self._browser, self._evidence, self._how), False
        if signed is not None:
            new = names.intersection(signed.jar).difference(signed.before)
            worked = self._opens(signed) if self._protected is not None else bool(new)
            if worked:
                self._remember(signed)
        seen = f"GET {self._how.path.partition('?')[0]} signs in by a name and a password in the address"
        self._evidence.tried("sign-in by GET", seen, worked=worked)

    def _onward(self, answer: Answer, asked: str) -> None:
        to = destination(answer)
        leads = to is not None and to.hostname == urlsplit(STRANGER).hostname
        self._evidence.tried("open redirect", f"{answer.to} sends the browser to {asked} if asked to", worked=leads)

    def _forged_sign_ins(self) -> None:
        """Another site cannot have the browser signed in (F6): to the attacker's account, for example."""
        for what, headers in self._forgeries("forged sign-in"):
            signed = self._browser.sign_in_as_told(headers)
            if signed.status == 429:
                return
            got = [name for name in signed.jar if name in self._evidence.session_names]
            worked = signed.status < 400 and bool(got)
            if worked and self._protected is not None:
                worked = self._opens(signed)
            if worked:
                self._remember(signed)
            seen = f"{_posted(self._how.path)} signed in although it came with {what}"
            if self._evidence.session_names:
                self._evidence.tried("forged sign-in", seen, worked=worked)

    def _forgeries(self, trial: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield from forgeries(self._target.origin).items()
        # Who takes any other site takes these as well, and it need not be said twice.
        if not any(each.worked for each in self._evidence.trials.get(trial, ())):
            for what, origin in near(self._target.origin).items():
                yield what, {"Origin": origin, "Referer": f"{origin}/"}

    # -- signing out -------------------------------------------------------------------------------------------

    def _sign_outs(self) -> None:
        path = self._target.sign_out_path
        if path is None:
            return
        if self._evidence.session_names:
            self._forged_sign_outs(path)
        signed = self._live()
        answers = self._browser.sign_out(path, signed, self._bearer(signed))
        answer = answers[0]
        if answer.status >= 400:
            self._evidence.remarks.append(f"{answer.to} answered {answer.status}: what comes after was not checked")
            return
        self._evidence.sign_out = answers
        if self._protected is not None:
            replay = self._show(signed)
            seen = f"{replay.to} answered {replay.status} to the credential of before the sign-out"
            self._evidence.tried("after sign-out", seen, worked=replay.is_success)
            self._token_after_sign_out(signed)
        self._alive.remove(signed)

    def _token_after_sign_out(self, signed: SignedIn) -> None:
        """An access token of the session is as dead as its cookie."""
        if signed.token is None or self._by_token:
            return
        replay = self._show(signed, {}, {"Authorization": f"Bearer {signed.token}"})
        seen = f"{replay.to} answered {replay.status} to the access token of before the sign-out"
        self._evidence.tried("after sign-out", seen, worked=replay.is_success)

    def _forged_sign_outs(self, path: str) -> None:
        """Another site cannot have the browser signed out (F6), and no link or image can (F4)."""
        for what, headers in self._forgeries("forged sign-out"):
            signed = self._live()
            answer = self._browser.sign_out_as_told(path, signed, headers)
            seen = f"{answer.to} signed out although it came with {what}"
            self._evidence.tried("forged sign-out", seen, worked=self._has_ended(signed, answer))
        signed = self._live()
        answer = self._browser.get(path, signed.jar, {"Sec-Fetch-Site": "cross-site", "Referer": f"{STRANGER}/"})
        seen = f"{answer.to} signs out: a link or an image is enough"
        self._evidence.tried("sign-out by GET", seen, worked=self._has_ended(signed, answer))

    def _has_ended(self, signed: SignedIn, answer: Answer) -> bool:
        """Say whether the session is gone, on the server or in the browser."""
        names = self._evidence.session_names
        gone = [each for each in sent_cookies(answer, self._evidence.now) if each.name in names and each.deletes]
        ended = answer.status < 400 and bool(gone)
        ended = ended or (self._protected is not None and not self._opens(signed))
        if ended and self._protected is None:
            self._alive.remove(signed)
        return ended

    def _leave(self) -> None:
        """Sign out whoever is still signed in."""
        path, left = self._target.sign_out_path, 0
        for signed in self._alive:
            try:
                left += path is None or self._browser.sign_out(path, signed, self._bearer(signed))[0].status >= 400
            except NotLooked:
                left += 1
        if left:
            count = "one session was" if left == 1 else f"{left} sessions were"
            self._evidence.remarks.append(f"{count} left behind, until the lifetime ends")

    def _with_another_end(self, value: str) -> str:
        return value[:-_END] + self._made_up(value[-_END:])

    def _made_up(self, value: str) -> str:
        """Return another value of the same form."""
        for letters in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
            value = "".join(self._shape.choice(letters) if each in letters else each for each in value)
        return value


def _unsigned(value: str) -> str:
    """Return a token with the same claims that says it was not signed; what is no token stays as it is."""
    return ".".join((UNSIGNED, value.split(".")[1], "")) if JWT.fullmatch(value) else value


def _posted(path: str) -> str:
    return f"POST {path.partition('?')[0]}"


def _without(jar: Mapping[str, str], name: str) -> dict[str, str]:
    return {each: value for each, value in jar.items() if each != name}


# How a name differs that a lenient parser takes for ours.
_LOOK_ALIKES: Final[Mapping[str, Callable[[str], str]]] = {
    "in other case": str.swapcase,
    "preceded by a no-break space": lambda name: f"\udca0{name}",
    "quoted": lambda name: f'"{name}"',
}
