"""Looks at answers: headers, and what must not be in a body or an address. None: there was nothing to look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from coatcheck.audit.evidence import JWT, Evidence
from coatcheck.audit.fetch import Answer
from coatcheck.audit.visit import destination

Seen = list[str] | None

YEAR: Final = 365 * 24 * 3600  # seconds: the least that HSTS is to last (S18)

_KEPT_APART: Final = frozenset({"no-store", "private"})
_ASKED_FIRST: Final = _KEPT_APART | {"no-cache"}
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]+)", re.IGNORECASE)
_IN_URL = re.compile(
    r"(?<![a-z0-9])(jsessionid|phpsessid|aspsessionid\w*|sid|sessionid|session_id|access_token|id_token)=[^&#\"'\s]{8}",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:href|src|action)\s*=\s*[\"']([^\"']{1,4096})[\"']", re.IGNORECASE)
_INSIDE = re.compile(
    r"Traceback \(most recent call last\)|File \"[^\"\n]+\.py\", line \d+|Werkzeug Debugger|DEBUG = True"
    r"|\bat [\w.$]+\([\w]+\.(?:java|kt|scala):\d+\)|\bat .{1,200}\.(?:js|ts):\d+:\d+|goroutine \d+ \[running\]"
    r"|PHP (?:Fatal|Parse) error|(?:Warning|Notice|Deprecated)(?:</b>)?: .{1,300} on line (?:<b>)?\d+|ORA-\d{5}: "
    r"|SQLSTATE\[|\.rb:\d+:in |System\.\w+Exception:"
)
_VERSIONED = re.compile(r"[/ ]v?\d+\.\d+")


def set_cookie_stored(evidence: Evidence) -> Seen:
    """Answers that hand out a session and that a cache may keep (C18)."""
    answers = {id(cookie.answer): cookie.answer for cookie in evidence.session_cookies()}
    stored = [each for each in answers.values() if not each.words_of("cache-control") & _KEPT_APART]
    found = [f"{each.to} sets a session cookie without Cache-Control: no-store" for each in stored]
    return found if answers else None


def protected_stored(evidence: Evidence) -> Seen:
    """Answers for one user that a cache may give to another (C18)."""
    answer = evidence.protected
    if answer is None or not answer.is_success:
        return None
    varies = answer.words_of("vary") & {"*", "cookie", "authorization"}
    if varies or answer.words_of("cache-control") & _ASKED_FIRST:
        return []
    return [f"{answer.to} has neither Cache-Control: no-store or private, nor Vary: Cookie"]


def plain_http(evidence: Evidence) -> Seen:
    """Pages that are served without encryption (S18)."""
    origin = evidence.target.origin
    if not origin.is_https:
        return None if origin.is_loopback else [f"{origin} is asked for without encryption, and answers"]
    if evidence.plain is None:
        return [] if evidence.plain_is_shut else None
    to = destination(evidence.plain)
    if to is not None and to.scheme == "https":
        return []
    return [f"http://{origin.host} answers {evidence.plain.status}, and does not lead to https"]


def downgrade(evidence: Evidence) -> Seen:
    """Redirects that lead from https to http (S18)."""
    if not evidence.target.origin.is_https:
        return None
    return [f"{each.to} leads to http://" for each in _encrypted(evidence) if _leads_to_http(each)]


def no_hsts(evidence: Evidence) -> Seen:
    """Pages that do not tell browsers to keep to https."""
    if evidence.page is None or not evidence.target.origin.is_https:
        return None
    missing = [each.to for each in _pages(evidence) if each.first("strict-transport-security") is None]
    return [f"{to} has no Strict-Transport-Security" for to in missing]


def short_hsts(evidence: Evidence) -> Seen:
    """Strict-Transport-Security for less than a year, or without the subdomains."""
    if evidence.page is None or not evidence.target.origin.is_https:
        return None
    found: list[str] = []
    for each in _pages(evidence):
        value = each.first("strict-transport-security")
        if value is None:
            continue
        age = _MAX_AGE.search(value)
        if age is None or int(age[1]) < YEAR:
            found.append(f"{each.to} has Strict-Transport-Security: {value[:80]}")
        elif "includesubdomains" not in value.lower():
            found.append(f"{each.to} has Strict-Transport-Security without includeSubDomains")
    return found


def no_policy(evidence: Evidence) -> Seen:
    """Pages without a Content-Security-Policy."""
    return _each_page(evidence, lambda page: not _policies(page), "has no Content-Security-Policy")


def weak_policy(evidence: Evidence) -> Seen:
    """Policies that let scripts of strangers run."""
    pages = [page for page in _html(evidence) if _policies(page)]
    found = [f"{page.to}: {weakness}" for page in pages for weakness in _weaknesses(_policies(page))]
    return found if pages else None


def framing(evidence: Evidence) -> Seen:
    """Pages that any site may show in a frame."""
    return _each_page(evidence, lambda page: not _in_no_frame(page), "may be shown in a frame by any site")


def sniffing(evidence: Evidence) -> Seen:
    """Answers whose kind browsers may guess."""
    return [
        f"{each.to} has no X-Content-Type-Options: nosniff"
        for each in _pages(evidence)
        if (each.first("x-content-type-options") or "").strip().lower() != "nosniff"
    ]


def referrer(evidence: Evidence) -> Seen:
    """Pages that tell other sites their whole address."""

    def talks(page: Answer) -> bool:
        policies = (page.first("referrer-policy") or "").lower().replace(" ", "").split(",")
        return policies[-1] in {"", "unsafe-url", "no-referrer-when-downgrade"}

    return _each_page(evidence, talks, "has no Referrer-Policy, or one that tells everything")


def id_in_address(evidence: Evidence) -> Seen:
    """Session ids and tokens in addresses, where logs and histories keep them (S17)."""
    secrets, found = evidence.secrets(), list[str]()
    for answer in evidence.untold():
        addresses = [
            *answer.every("location"),
            *answer.every("link"),
            *(_LINK.findall(answer.body) if answer.is_html else ()),
        ]
        for address in addresses:
            match = _IN_URL.search(address)
            if match is not None and _is_ours(address, evidence):
                found.append(f"{answer.to} leads to an address with {match[1]}= in it")
            elif any(secret in address for secret in secrets):
                found.append(f"{answer.to} leads to an address with the session's secret in it")
    return found


def id_in_body(evidence: Evidence) -> Seen:
    """Session cookies whose value scripts can read all the same, in a body."""
    cookies = [cookie for cookie in evidence.session_cookies() if len(cookie.value) >= 12]
    found = [
        f"{answer.to} has the value of {cookie.name} in its body"
        for answer in evidence.untold()
        for cookie in cookies
        if cookie.value in answer.body
    ]
    return found if cookies else None


def password_in_answer(evidence: Evidence) -> Seen:
    """Answers that repeat the password."""
    password = evidence.target.sign_in.password if evidence.target.sign_in is not None else ""
    if len(password) < 6:
        return None  # a short one occurs by chance
    texts = ((each, [each.body, *(value for _, value in each.headers)]) for each in evidence.untold())
    return [
        f"{answer.to} has the password in its answer"
        for answer, parts in texts
        if any(password in part for part in parts)
    ]


def insides(evidence: Evidence) -> Seen:
    """Errors that show what the application looks like inside."""
    return [
        f"{each.to} answered {each.status} with a stack trace or a page for developers"
        for each in evidence.answers
        if each.status >= 400 and _INSIDE.search(each.body)
    ]


def breaks(evidence: Evidence) -> Seen:
    """Requests that break the application instead of being refused."""
    odd = evidence.broken[-1] if evidence.broken else None
    return [
        f"{each.to} answered {each.status}" + (" to a cookie that no browser sends" if each is odd else "")
        for each in evidence.answers
        if each.status >= 500 and each.status != 503
    ]


def versions(evidence: Evidence) -> Seen:
    """Headers that name a program's version."""
    return [
        f"{name}: {value[:80]}"
        for each in _pages(evidence)
        for name, value in each.headers
        if name in {"server", "x-powered-by", "x-aspnet-version"} and _VERSIONED.search(value)
    ]


def challenge(evidence: Evidence) -> Seen:
    """Answers 401 that do not say how to do better (O16)."""
    refused = [each for each in evidence.unauthorized if each.status == 401]
    if not refused:
        return None
    found = [f"{each.to} answered 401 without WWW-Authenticate" for each in refused if not _challenge(each)]
    for each in refused:
        told = "error=" in _challenge(each)
        if each is evidence.unauthorized[0] and told:
            found.append(f"{each.to} tells an error to who has presented nothing")
        elif each is not evidence.unauthorized[0] and _challenge(each).lower().startswith("bearer") and not told:
            found.append(f"{each.to} does not tell that the token is the error")
    return found


def tokens_for_scripts(evidence: Evidence) -> Seen:
    """Tokens in cookies that scripts can read (O24)."""
    tokens = [cookie for cookie in evidence.cookies() if JWT.fullmatch(cookie.value)]
    found = [
        f"{each.name} is a token, and has no HttpOnly"
        for each in tokens
        if "httponly" not in each.attributes and not evidence.is_session(each)
    ]
    return found if tokens else None


def _is_ours(address: str, evidence: Evidence) -> bool:
    try:
        return evidence.target.origin.has(urlsplit(address))
    except ValueError:
        return False


def _pages(evidence: Evidence) -> list[Answer]:
    """What a browser has shown, each address once."""
    shown = [evidence.page, evidence.sign_in_page, evidence.protected]
    return [each for each in shown if each is not None]


def _html(evidence: Evidence) -> list[Answer]:
    """The pages of the application; what a framework says to a wrong address is none of these."""
    return [each for each in _pages(evidence) if each.is_html and each.status < 400]


def _encrypted(evidence: Evidence) -> list[Answer]:
    return [each for each in evidence.answers if each.origin.is_https]


def _leads_to_http(answer: Answer) -> bool:
    to = destination(answer)
    return to is not None and to.scheme == "http"


def _each_page(evidence: Evidence, wrong: Callable[[Answer], bool], words: str) -> Seen:
    pages = _html(evidence)
    return [f"{each.to} {words}" for each in pages if wrong(each)] if pages else None


def _policies(page: Answer) -> list[dict[str, list[str]]]:
    """Return the policies of a page: the sources of each directive; the first of a name counts (CSP3, 2.2.1)."""
    policies: list[dict[str, list[str]]] = []
    for text in (part for value in page.every("content-security-policy") for part in value.split(",")):
        policy: dict[str, list[str]] = {}
        for directive in text.split(";"):
            name, *sources = directive.split() or [""]
            policy.setdefault(name.lower(), [source.lower() for source in sources])
        policies.append(policy)
    return policies


def _weaknesses(policies: list[dict[str, list[str]]]) -> list[str]:
    found = [_weakness(policy) for policy in policies]
    return min(found, key=len) if found else []  # all policies apply: the strictest one counts


def _weakness(policy: dict[str, list[str]]) -> list[str]:
    default = policy.get("default-src")
    scripts = policy.get("script-src", default)
    found: list[str] = []
    if scripts is None:
        found.append("its policy says nothing of scripts")
    else:
        bound = any(source.startswith(("'nonce-", "'sha")) for source in scripts)
        if "'unsafe-inline'" in scripts and not bound:
            found.append("its policy lets inline scripts run ('unsafe-inline')")
        if {"*", "https:", "http:", "data:"} & set(scripts) and "'strict-dynamic'" not in scripts:
            found.append("its policy lets scripts of any host run")
    if policy.get("object-src", default) != ["'none'"] and "object-src" not in policy and default is None:
        found.append("its policy says nothing of plug-ins (object-src)")
    if "base-uri" not in policy:
        found.append("its policy says nothing of base-uri")
    return found


def _in_no_frame(page: Answer) -> bool:
    listed = any(policy["frame-ancestors"] != ["*"] for policy in _policies(page) if "frame-ancestors" in policy)
    return listed or (page.first("x-frame-options") or "").strip().lower() in {"deny", "sameorigin"}


def _challenge(answer: Answer) -> str:
    return answer.first("www-authenticate") or ""
