"""The requests of a visitor, who has no account: about five."""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from coatcheck.audit.evidence import Evidence, after, cookie_header, looks_like_session
from coatcheck.audit.fetch import Answer, Client, NotLooked
from coatcheck.audit.target import Origin, Target

STRANGER: Final = "https://audit.invalid"  # a host that exists nowhere (RFC 6761, 6.4)
REDIRECTS: Final = (301, 302, 303, 307, 308)
MAX_REDIRECTS: Final = 4
_SLASHES: Final = re.compile(r"^((?:https?:)?)/{2,}", re.IGNORECASE)
_AS_THEY_ARE: Final = string.punctuation  # escapes are there already, and what is no ASCII gets one

AGENT: Final = {"User-Agent": "coatcheck-audit", "Accept": "text/html,application/json;q=0.9,*/*;q=0.8"}
OWN_PAGE: Final = {
    **AGENT,
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


def visit(client: Client, evidence: Evidence) -> None:
    """Look at what anybody may see, and ask for what nobody should get."""
    target = evidence.target
    evidence.page = _page(client, evidence)
    _plain(client, evidence)
    # Names that no application knows, and octets that no browser sends: what it says when it is taken aback.
    evidence.broken = [
        client.ask("GET", f"/coatcheck-audit-{secrets.token_hex(4)}", OWN_PAGE),
        client.ask("GET", target.path, {**OWN_PAGE, **_garbage(evidence)}),
    ]
    if target.protected_path is not None:
        _unauthorized(client, evidence, target.protected_path)
    found = client.ask("GET", "/.well-known/jwks.json", OWN_PAGE)
    evidence.jwks = found if found.is_success and "json" in (found.first("content-type") or "") else None


def follow(
    client: Client, evidence: Evidence, answer: Answer, jar: dict[str, str]
) -> tuple[list[Answer], dict[str, str]]:
    """Follow redirects on our own host, by GET, and return the answers and the cookies at the end.

    Args:
        answer: the first one; its cookies are in `jar` already.
    """
    answers: list[Answer] = []
    for _ in range(MAX_REDIRECTS):
        path = _onward(answer, evidence)
        if path is None:
            break
        answer = client.ask("GET", path, {**OWN_PAGE, "Sec-Fetch-Site": "same-origin", **cookie_header(jar)})
        answers.append(answer)
        jar = after(jar, answer, evidence.now)
    return answers, jar


def destination(answer: Answer) -> SplitResult | None:
    """Return where a redirect leads as a browser understands it, or None if it is none."""
    location = answer.first("location")
    if answer.status not in REDIRECTS or location is None:
        return None
    # The URL Standard: TAB, CR and LF are dropped, a backslash is a slash, and many slashes are as good as two.
    text = "".join(each for each in location if each not in "\t\r\n").strip().replace("\\", "/")
    try:
        return urlsplit(_SLASHES.sub(r"\1//", text))
    except ValueError:
        return None


def _onward(answer: Answer, evidence: Evidence) -> str | None:
    to = destination(answer)
    if to is None:
        return None
    own = evidence.target.origin
    if not own.has(to):
        if to.hostname != urlsplit(STRANGER).hostname:
            host = to.netloc.rpartition("@")[2]
            evidence.elsewhere.append(f"{answer.to} leads to {to.scheme or own.scheme}://{host}")
        return None
    try:
        joined = urlsplit(urljoin(answer.path, SplitResult("", "", to.path, to.query, "").geturl()))
    except ValueError:  # such as "/[", which is nowhere
        return None
    path = joined.path if joined.path.startswith("/") else f"/{joined.path}"
    return quote(path + (f"?{joined.query}" if joined.query else ""), safe=_AS_THEY_ARE, encoding="latin-1")


def _page(client: Client, evidence: Evidence) -> Answer:
    answer = client.ask("GET", evidence.target.path, OWN_PAGE)
    answers, jar = follow(client, evidence, answer, after({}, answer, evidence.now))
    evidence.visitor = jar
    return (answers or [answer])[-1]


def _plain(client: Client, evidence: Evidence) -> None:
    """Ask for the page without encryption, where it can be told which port that is."""
    origin = evidence.target.origin
    if origin.is_https and origin.port == 443:
        try:
            evidence.plain = client.ask("GET", evidence.target.path, OWN_PAGE, origin=Origin("http", origin.host, 80))
        except NotLooked:
            evidence.plain_is_shut = True


def _garbage(evidence: Evidence) -> dict[str, str]:
    names = [name for name in evidence.visitor if looks_like_session(name, "")] or ["session"]
    return cookie_header(dict.fromkeys(names, '"\\377%00{;=\udcff'))


def _unauthorized(client: Client, evidence: Evidence, path: str) -> None:
    forged = unsigned_token(evidence.target)
    nothing = client.ask("GET", path, OWN_PAGE)
    bearer = client.ask("GET", path, {**OWN_PAGE, "Authorization": f"Bearer {forged}"})
    evidence.unauthorized = [nothing, bearer]
    evidence.tried("protected", f"{nothing.to} answered {nothing.status} to a visitor", worked=nothing.is_success)
    if not nothing.is_success:
        seen = f'{bearer.to} answered {bearer.status} to a token with "alg": "none"'
        evidence.tried("unsigned token", seen, worked=bearer.is_success)


def _part(member: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(member).encode()).rstrip(b"=").decode("ascii")


# The header of a token that nobody has signed (RFC 7519, 6).
UNSIGNED: Final = _part({"alg": "none", "typ": "at+jwt"})


def unsigned_token(target: Target) -> str:
    """Return a JWT without a signature that says it is the account's (RFC 7519, 6)."""
    name = target.sign_in.name if target.sign_in is not None else ""
    claims = {"sub": name or "admin", "iat": 1_700_000_000, "exp": 4_102_444_800}
    return ".".join((UNSIGNED, _part(claims), ""))
