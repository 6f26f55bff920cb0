"""Writes docs/requirements.md: which test proves which row of the requirements.

A test names the rows that it proves in its name (`test_c8_prefix_rules`) or in its docstring ("... (S16)").

    python3 tools/requirements.py          writes the table
    python3 tools/requirements.py --check  exits with 1 if the table is not what the tests say, or a row has no test
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "requirements.md"

# Row -> what it asks, in our words. The groups are cookies, sessions, cross-site requests and headers, tokens, and
# revocation as others hear it.
ROWS = {
    "C1": "Set-Cookie is only ever sent in the strict grammar; nothing can split a header",
    "C2": "no nameless cookie, no attribute twice, one line a name in a response",
    "C3": "4096 octets for name and value, 1024 for an attribute, checked before sending",
    "C4": "lifetimes are capped at 400 days",
    "C5": "a session cookie has no lifetime, a persistent one has Max-Age and Expires",
    "C6": "a deletion repeats name, Domain, Path and what the prefix demands",
    "C7": "the defaults: `__Host-`, Secure, HttpOnly, SameSite=Lax, Path=/, no Domain",
    "C8": "the four prefixes are enforced at construction, whatever their case",
    "C9": "prefixed names are read case-sensitively",
    "C10": "SameSite=None only with Secure; unknown values are refused",
    "C11": "Partitioned only with Secure; deletion carries it",
    "C12": "several Cookie headers, any order, nameless cookies, quotes that stay",
    "C13": "a duplicate of our cookie's name is refused, never first-wins",
    "C14": "any one cookie may vanish",
    "C15": "the size of the Cookie header is bounded, and `audit` reports the sum",
    "C16": "no cookie says who somebody is",
    "C17": "sealed values: AEAD, key id, purpose and name bound, rotation",
    "C18": "no-store where a session id is set, Vary where the session was read",
    "C19": "sign-out takes the cookie back and clears what the site stored",
    "C20": "cookies do not isolate by port or path: the documentation says it, and `audit` warns",
    "C21": "the production names work on http://localhost",
    "C22": "the Set-Cookie parser follows the user agent's algorithm",
    "S1": "ids and secrets from the system's generator, 128 bits and more",
    "S2": "a dump of the store signs nobody in",
    "S3": "an unknown id is never adopted",
    "S4": "a new id at sign-in and re-authentication, the old one dead at once",
    "S5": "what the client can see and change decides nothing",
    "S6": "the idle timeout is the server's",
    "S7": "the absolute timeout is not extended by use; re-authentication resets both",
    "S8": "presets for the three assurance levels",
    "S9": "timeouts are visible to an auditor",
    "S10": "sign-out ends the session at the backend, tokens included",
    "S11": "disabling an account ends all its sessions and tokens",
    "S12": "after a password change the other sessions end",
    "S13": "an administrator can end one subject's sessions, or everyone's",
    "S14": "people see their sessions and end them after a recent sign-in",
    "S15": "step-up for sensitive operations",
    "S16": "no session without the person's own action",
    "S17": "the session's secret is in no URL, log or page",
    "S18": "HSTS and secure cookies: no way back to http",
    "S19": "rotation in mid-session fails no request in flight, and leaves one id alive",
    "S20": "concurrent writers lose nothing",
    "S21": "an untouched session writes nothing; anonymous requests create nothing",
    "S22": "the life of a session is told: who, where from, why",
    "S23": "guessing of ids raises an alarm",
    "S24": "remembered sessions do not replace a recent sign-in",
    "F1": "unsafe requests of other sites are refused by Sec-Fetch-Site",
    "F2": "without it, by the exact Origin, then Referer",
    "F3": "plain http is judged by Origin",
    "F4": "no state changes on GET, HEAD, OPTIONS",
    "F5": "signed tokens, bound to the session, for browsers without either",
    "F6": "sign-in and sign-out are protected too",
    "F7": "the API takes JSON only",
    "F8": "SameSite is never relied upon: sibling subdomains are refused",
    "F9": "Vary names what the verdict depends on; prefetching changes nothing",
    "F10": "the server's pages: strict CSP, no framing, nosniff, referrer, COOP, CORP",
    "F11": "a WebSocket's handshake is judged by Origin and session; it and streams are cut on revocation",
    "F12": "redirect targets stay on our own origin",
    "J1": "the algorithm is never taken from the token",
    "J2": "one key, one algorithm; contradicting JWKs are refused",
    "J3": "`none` is neither made nor taken",
    "J4": "HMAC keys have 32 random bytes; passwords are no keys",
    "J5": "RSA of 2048 bits and more, no weak or mixed keys, no duplicate kid",
    "J6": "ECDSA: exact r and s, on the curve",
    "J7": "compact form only, strictly",
    "J8": "a JWE never counts as verified",
    "J9": "`crit` and `b64` are refused",
    "J10": "keys in the header are never used",
    "J11": "`kid` is opaque, bounded, looked up in the ring only",
    "J12": "iss, aud and sub match exactly",
    "J13": "times are numbers; leeway is 60 s at most",
    "J14": "explicit types: no kind of token is taken for another",
    "J15": "no duplicate members, no BOM, no NaN; bounded",
    "J16": "sizes are bounded; nothing is decompressed",
    "J17": "any bytes give a value or our own error; MACs compare in constant time",
    "J18": "asymmetric between processes; Ed25519 by its new and its old name",
    "J19": "JWKS: public members only, thumbprints, published before use, kept after",
    "J20": "access tokens follow RFC 9068",
    "J21": "an ID token is no access token",
    "J22": "no subject is called like a client",
    "R1": "status list: 1, 2, 4 or 8 bits, lowest first, zlib at its best, base64url",
    "R2": "status list token: its own URI, ttl, media type, gzip, CORS, content negotiation",
    "R3": "who reads a status list refuses what cannot be decided",
    "R4": "indexes are random and never used again, and lists have a least size",
    "R5": "sizes are quoted beside those of others",
    "R6": "security events: `sub_id`, one event, no `sub` and no `exp`",
    "R7": "CAEP: session-revoked, token-claims-change, credential-change",
    "R8": "push: 202, or 400 with `err`",
    "R9": "poll: what is not acknowledged comes again",
    "R10": "the transmitter's metadata, streams and verification events",
}

# Rows of which a part waits for something that is not there yet.
NOTES = {
    "S9": "the limit of sessions a subject may have is not there yet",
    "S23": "the alarm is there; hooks that force a step-up are not",
    "J11": "there is no JWKS download yet, so an unknown kid never causes one",
    "R10": "streams are made and changed by the settings, not by requests",
    "J16": "there is no JWE here; tokens with five parts or compression are refused unread",
}

GROUPS = {
    "C": "Cookies",
    "S": "Sessions",
    "F": "Cross-site requests, headers, redirects",
    "J": "Tokens and keys",
    "R": "Revocation, as others hear it",
}

_IN_NAME = re.compile(r"(?<![a-z0-9])([csfjr]\d{1,2})(?=_)")
_IN_TEXT = re.compile(r"\b([CSFJR]\d{1,2})\b")


def proofs() -> dict[str, list[str]]:
    """Return the tests of each row, as "path::name"."""
    found: dict[str, list[str]] = {row: [] for row in ROWS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, docstring in _tests(ast.parse(path.read_text(encoding="utf-8"))):
            rows = {row.upper() for row in _IN_NAME.findall(name)} | set(_IN_TEXT.findall(docstring))
            for row in rows & found.keys():
                found[row].append(f"{path.relative_to(ROOT)}::{name}")
    return found


def _tests(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""


def render() -> str:
    """Return the document."""
    lines = [
        "# Requirements, and the tests that prove them",
        "",
        "What the specifications and OWASP's and NIST's advice ask of sessions, cookies and tokens, row by row, with",
        "the tests that prove it. This table is written by `python3 tools/requirements.py` from the tests themselves,",
        "and a test fails if it is out of date or a row has no proof.",
    ]
    found = proofs()
    for letter, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| row | what it asks | proven by |", "|---|---|---|"]
        for row, words in ROWS.items():
            if row.startswith(letter):
                note = f"<br>*Not all of it yet: {NOTES[row]}.*" if row in NOTES else ""
                lines.append(f"| {row} | {words}{note} | {'<br>'.join(f'`{_short(test)}`' for test in found[row])} |")
    return "\n".join(lines) + "\n"


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def problems() -> list[str]:
    """Return what is wrong with the table, in words."""
    missing = [f"no test names the row {row}" for row, tests in proofs().items() if not tests]
    current = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    stale = [] if current == render() else ["docs/requirements.md is out of date: python3 tools/requirements.py"]
    return missing + stale


def main() -> int:
    """Write the table, or check it."""
    if "--check" not in sys.argv:
        DOCUMENT.write_text(render(), encoding="utf-8")
        return 0
    found = problems()
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
