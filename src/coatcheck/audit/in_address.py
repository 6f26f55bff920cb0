"""What is tried with a secret in the address: histories, logs and Referer keep those, so none of it ought to count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from coatcheck.audit.browser import Browser, token_of, with_query
from coatcheck.audit.evidence import Evidence, SignedIn, after
from coatcheck.audit.fetch import Answer
from coatcheck.audit.target import SignIn

_WRONG: Final = "the-password-of-nobody"
_TAG: Final = re.compile(r"<[^>]*>")


def show_credentials(browser: Browser, evidence: Evidence, signed: SignedIn, path: str) -> None:
    """Ask for a protected path with the session's id (S17), or its token (O16), in the address and nowhere else."""
    jar = {name: signed.jar[name] for name in sorted(evidence.session_names & signed.jar.keys())}
    token = {} if signed.token is None else {"access_token": signed.token}
    for trial, what, secrets, places in (
        ("id in address", "a session id", jar, _places_of_ids),
        ("token in address", "an access token", token, _places_of_tokens),
    ):
        if not secrets:
            continue
        # Where a wrong one opens as well it is not the secret that does: some applications have one page for any path.
        wrong = places(path, {name: value[::-1] for name, value in secrets.items()})
        for place, address in places(path, secrets).items():
            answer = _ask(browser, evidence, address)
            worked = answer.is_success and not _ask(browser, evidence, wrong[place]).is_success
            seen = f"{answer.to} answered {answer.status} to {what} in its address, as {place}"
            evidence.tried(trial, seen, worked=worked)


def sign_in_by_get(browser: Browser, evidence: Evidence, sign_in: SignIn) -> SignedIn | None:
    """Sign in by an address with name and password in it (F4); None if the application does not look at them.

    A wrong password tells whether it looks: the right one is not to be in the logs of an application that does not.
    The browser's cookies of before are those that the wrong one has brought, such as a visitor's.
    """
    wrong = {**sign_in.fields, sign_in.password_field: _WRONG}
    without, refused = browser.get(sign_in.path, {}), _ask(browser, evidence, with_query(sign_in.path, wrong))
    if _words(without) == _words(refused):
        return None
    answer = _ask(browser, evidence, with_query(sign_in.path, sign_in.fields))
    return SignedIn((answer,), after({}, refused, evidence.now), after({}, answer, evidence.now), token_of(answer))


def _places_of_ids(path: str, jar: Mapping[str, str]) -> dict[str, str]:
    """Return addresses with an id in them, by where it is: under the cookie's name, and under those of old."""
    before, mark, query = path.partition("?")
    (id, *_) = jar.values()
    return {
        f"?{'=&'.join(jar)}=": with_query(path, jar),
        "?sid=": with_query(path, {"sid": id}),
        ";jsessionid=": f"{before};jsessionid={quote(id, safe='', errors='surrogateescape')}{mark}{query}",
    }


def _places_of_tokens(path: str, token: Mapping[str, str]) -> dict[str, str]:
    """Return the address with a token in it, as in RFC 6750, 2.3."""
    return {"?access_token=": with_query(path, token)}


def _ask(browser: Browser, evidence: Evidence, address: str) -> Answer:
    answer = browser.get(address, {})
    evidence.told.append(answer)
    return answer


def _words(answer: Answer) -> tuple[int, str]:
    """Return what an answer says, without what differs from time to time, such as a CSRF token in a hidden field."""
    return answer.status, _TAG.sub("", answer.body)
