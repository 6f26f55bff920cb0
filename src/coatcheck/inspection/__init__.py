"""Inspection: says what a cookie, a token, a key or a header is, and what is wrong with it.

It judges by what can be seen, and sends nothing anywhere. Whether one of our own values is genuine it cannot say; of a
JWT it can, when it is given the issuer's keys. No report repeats a secret: of a value it says what kind it is, how
long, and what identifies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coatcheck.core.keys import Key
from coatcheck.inspection import answer, headers, ids, jwe, jwk, jwt, ours, peers, pem, set_cookie, url
from coatcheck.inspection.jwk import keys_of
from coatcheck.inspection.looking import Explain, Looking
from coatcheck.inspection.reading import MAX_TEXT, as_text
from coatcheck.inspection.report import SEVERITIES, Finding, Part, Report, Severity
from coatcheck.inspection.rules import RULES

__all__ = ["MAX_TEXT", "RULES", "SEVERITIES", "Finding", "Part", "Report", "Severity", "inspect", "keys_of"]

# Tried in this order: what is certain comes first, and what any text could be comes last.
_KINDS: Final[tuple[tuple[str, Explain], ...]] = (
    ("headers, one in a line", headers.block),
    ("an Authorization or DPoP header", headers.authorization),
    ("a Set-Cookie line", set_cookie.explain),
    ("a JWK or JWKS", jwk.explain),
    ("a key or certificate in PEM", pem.explain),
    ("JSON with tokens in it", answer.explain),
    ("a URL", url.explain),
    ("several JWTs", jwt.several),
    ("a JWE", jwe.explain),
    ("a JWT", jwt.explain),
    ("a session cookie of coatcheck", ours.session_cookie),
    ("a sealed session of coatcheck", ours.sealed_session),
    ("a note of coatcheck about a sealed session", ours.note),
    ("a signed value of coatcheck", ours.signed_value),
    ("a refresh token of coatcheck", ours.refresh_token),
    ("a session of Flask or Starlette", peers.itsdangerous),
    ("a signed value of Django", peers.django),
    ("a signed value of Express", peers.express),
    ("a Fernet token", peers.fernet),
    ("a Cookie header", headers.cookie_header),
    ("a UUID", ids.uuid),
    ("a number", ids.number),
    ("a sealed value of coatcheck", ours.sealed_value),
    ("a random id", ids.random_text),
)


def inspect(octets: bytes, *, now: int, keys: Sequence[Key] = ()) -> Report:
    """Return what there is to say about one text; whatever the octets are, it does not raise.

    Args:
        octets: a cookie's value, a header, a token, a key, a URL.
        now: milliseconds since the epoch.
        keys: what the signature of a JWT is checked with; `keys_of` reads them from a JWKS.

    Not checked: whether a session lives, or was ended; and who sent this.
    """
    if len(octets) > MAX_TEXT:
        return Report(kind="too large", summary=f"It is too large: {MAX_TEXT} octets are looked at, at most.")
    return _look(as_text(octets), Looking(now=now, keys=tuple(keys), look=_look))


def _look(text: str, looking: Looking) -> Report:
    if not text:
        return Report(kind="nothing", summary="There is nothing to look at.")
    for _, explain in _KINDS:
        report = explain(text, looking)
        if report is not None:
            return report
    return Report(
        kind="unknown",
        summary=f"A text of {len(text)} characters that is nothing known here.",
        facts={"compared with": ", ".join(name for name, _ in _KINDS)},
    )
