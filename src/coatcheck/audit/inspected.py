"""Looks that `coatcheck inspect` does: cookies, tokens and keys are judged there, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from coatcheck.audit.evidence import JWT, Evidence, SentCookie
from coatcheck.core.keys import Key
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import SEVERITIES, Finding, Severity, inspect, keys_of


def session_cookies(evidence: Evidence) -> Sequence[Finding] | None:
    """The lines that set what a session hangs on."""
    cookies = evidence.session_cookies()
    return [each for cookie in cookies for each in _of(cookie, evidence)] if cookies else None


def other_cookies(evidence: Evidence) -> Sequence[Finding] | None:
    """The lines that set anything else: what is wrong with these costs less."""
    cookies = {
        each.name: each for each in evidence.cookies() if not evidence.is_session(each) and not each.deletes
    }.values()
    found = [each for cookie in cookies for each in _of(cookie, evidence)]
    return [replace(each, severity=_least(each.severity, "low")) for each in found] if cookies else None


def tokens(evidence: Evidence) -> Sequence[Finding] | None:
    """The tokens that the sign-in handed out, in its body; those in cookies are looked at with these."""
    signed = [each for each in (evidence.first, evidence.second) if each is not None and each.token is not None]
    if not signed:
        return None
    keys, (first, *_) = _keys(evidence), signed
    report = inspect((first.token or "").encode(), now=evidence.now, keys=keys)
    return [_at(each, f"the token of {first.answers[0].to}") for each in report.all_findings()]


def jwks(evidence: Evidence) -> Sequence[Finding] | None:
    """The keys that are published."""
    if evidence.jwks is None:
        return None
    report = inspect(evidence.jwks.body.encode(), now=evidence.now)
    return [_at(each, evidence.jwks.to) for each in report.all_findings()]


def _of(cookie: SentCookie, evidence: Evidence) -> list[Finding]:
    line = f"Set-Cookie: {cookie.line.text}".encode("utf-8", "surrogateescape")
    keys = _keys(evidence) if JWT.fullmatch(cookie.value) else ()
    name = cookie.name or "a cookie without a name"
    found = inspect(line, now=evidence.now, keys=keys).all_findings()
    return [_at(each, f"{name}, set by {cookie.answer.to}") for each in found]


def _keys(evidence: Evidence) -> tuple[Key, ...]:
    try:
        return () if evidence.jwks is None else keys_of(evidence.jwks.body.encode())
    except ConfigurationError:
        return ()


def _at(found: Finding, where: str) -> Finding:
    return replace(found, seen=f"{where}: {found.seen}")


def _least(one: Severity, other: Severity) -> Severity:
    return one if SEVERITIES.index(one) <= SEVERITIES.index(other) else other
