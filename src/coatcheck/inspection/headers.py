"""Headers of requests and responses: Cookie, Authorization, and several at once as tools print them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from coatcheck.core.cookies import PREFIXES, parse_cookies
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import CREDENTIAL_KINDS, role_of
from coatcheck.inspection.reading import base64_octets
from coatcheck.inspection.report import Finding, Part, Report
from coatcheck.inspection.rules import RULES, finding, lesser
from coatcheck.inspection.set_cookie import explain_line
from coatcheck.inspection.set_cookie_checks import SPELT
from coatcheck.inspection.set_cookie_line import Line
from coatcheck.inspection.words import listed, shown

_MOST_OCTETS: Final = 8_192  # C15
_NO_NAME: Final = "a cookie without a name"
_MOST_COOKIES: Final = 50
_MOST_LOOKED_AT: Final = 200
_COOKIE: Final = re.compile(r"cookie\s*:\s*", re.IGNORECASE)
_PAIR: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=[^;\s=][^;]*")
_AUTHORIZATION: Final = re.compile(r"(?:(?:proxy-)?authorization\s*:\s*)?(bearer|basic|dpop)\s+(\S+)", re.IGNORECASE)
_NO_PASSWORDS: Final = (b"", b"x", b"x-oauth-basic")  # beside an API key that stands in place of the name
_DPOP: Final = re.compile(r"dpop\s*:\s*(\S+)", re.IGNORECASE)
# curl -v marks the lines of requests and responses with > and <, and puts lines of its own between them.
_FIELD: Final = re.compile(r"[<> ]{0,2}(:?[A-Za-z][A-Za-z0-9-]*)\s*:[ \t]*(.*)")
_START: Final = re.compile(r"[<> ]{0,2}(?:(HTTP)/[0-9.]+ [0-9]{3}.*|[A-Z]+ \S+ HTTP/[0-9.]+)")
_BLANK: Final = re.compile(r"[<> \t]*")
_OF_CURL: Final = re.compile(r"\*.*|[{}] \[.*")


def block(text: str, looking: Looking) -> Report | None:
    """Explain several headers, one in a line, as curl and browsers show them."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if not _OF_CURL.fullmatch(line)]
    if lines and _START.fullmatch(lines[0]):
        return _messages(lines, looking)
    lines = [line for line in lines if not _BLANK.fullmatch(line)][:_MOST_LOOKED_AT]
    fields = _fields(lines)
    return explain_fields(fields, looking) if len(lines) > 1 and len(fields) == len(lines) else None


def _messages(lines: list[str], looking: Looking) -> Report | None:
    """Explain the headers of requests and responses that begin with a line of their own; bodies are passed over."""
    heads: list[tuple[str, list[str]]] = []
    inside = False
    for line in lines:
        if start := _START.fullmatch(line):
            heads.append(("response" if start[1] else "request", []))
        inside = start is not None or (inside and not _BLANK.fullmatch(line))
        if inside and not start and len(heads[-1][1]) < _MOST_LOOKED_AT:
            heads[-1][1].append(line)
    read = [(name, fields) for name, head in heads[:_MOST_LOOKED_AT] if (fields := _fields(head))]
    if len(read) < 2:
        return explain_fields(read[0][1], looking) if read else None
    return Report(
        kind="headers",
        summary=f"{len(read)} messages; each is looked at by itself.",
        parts=tuple(
            Part(f"{name} {number}", explain_fields(fields, looking)) for number, (name, fields) in enumerate(read, 1)
        ),
    )


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    matches = [_FIELD.fullmatch(line) for line in lines]
    return [(match[1].lower(), match[2].strip()) for match in matches if match]


def explain_fields(fields: list[tuple[str, str]], looking: Looking) -> Report:
    """Explain the headers of a request or a response.

    Args:
        fields: names, in small letters, and values.
        looking: how.
    """
    parts = [Part(f"Set-Cookie {shown(Line.read(value, looking.now).name)}", explain_line(value, looking))
             for name, value in fields if name == "set-cookie"]  # fmt: skip
    cookies = [value for name, value in fields if name == "cookie"]
    if cookies:
        parts.append(Part("Cookie", explain_cookies("; ".join(cookies), looking)))
    for name, value in fields:
        if name in ("authorization", "location", "dpop"):
            parts += looking.into(name.title(), value, "credential")
    return Report(
        kind="headers",
        summary=f"{len(fields)} headers; those that carry cookies and tokens are looked at.",
        facts={"headers": listed([name for name, _ in fields])},
        findings=tuple(_of_response(fields, looking.now)),
        parts=tuple(parts),
    )


def cookie_header(text: str, looking: Looking) -> Report | None:
    """Explain a Cookie header, with or without its name."""
    match = _COOKIE.match(text)
    if match is None and not all(_PAIR.fullmatch(pair.strip()) for pair in text.rstrip("; ").split(";")):
        return None
    return explain_cookies(text[match.end() if match else 0 :], looking)


def explain_cookies(text: str, looking: Looking) -> Report:
    """Explain the value of a Cookie header."""
    octets = text.encode("utf-8", "surrogateescape")
    pairs = [(_text(name), _text(value)) for name, value in parse_cookies([octets])]
    parts = tuple(
        part
        for name, value in pairs[:_MOST_LOOKED_AT]
        for part in looking.into(name or _NO_NAME, value.strip('"'), role_of(name))
    )
    return Report(
        kind="Cookie header",
        summary="What a browser sends back: names and values, without the attributes that they were set with.",
        facts={"cookies": str(len(pairs)), "size": f"{len(octets)} octets of about {_MOST_OCTETS}"},
        findings=tuple(_of_cookies(pairs, len(octets), parts)),
        parts=parts,
    )


def authorization(text: str, looking: Looking) -> Report | None:
    """Explain an Authorization header, with or without its name, or a DPoP header."""
    if proof := _DPOP.fullmatch(text):
        parts = looking.into("proof", proof[1], "credential")
        return Report(kind="DPoP header", summary="Proof that the sender has a key (RFC 9449).", parts=parts)
    match = _AUTHORIZATION.fullmatch(text)
    if match is None:
        return None
    scheme, credential = match[1].lower(), match[2]
    if scheme == "basic":
        return _basic(credential)
    return Report(
        kind="Authorization header",
        summary=f"A token in a header ({scheme.title() if scheme == 'bearer' else 'DPoP'}): "
        "browsers do not add it by themselves, so other sites cannot have it sent.",
        facts={"scheme": scheme},
        parts=looking.into("token", credential, "credential"),
    )


def _basic(credential: str) -> Report:
    octets = base64_octets(credential)
    name, colon, password = (octets or b"").partition(b":")
    facts = {"scheme": "basic", "name": shown(_text(name)) if colon else "it cannot be read"}
    if colon and name and password in _NO_PASSWORDS:
        facts["name"] = f"{len(name)} octets, which may be the secret, for the password is none"
    elif colon:
        facts["password"] = f"there is one, of {len(password)} octets" if password else "empty"
    return Report(
        kind="Authorization header",
        summary="A name and a password, in base64, which hides nothing.",
        facts=facts,
        findings=(finding("basic-auth", "the scheme is Basic"),),
    )


def _of_response(fields: list[tuple[str, str]], now: int) -> list[Finding]:
    lines = [Line.read(value, now) for name, value in fields if name == "set-cookie"]
    found: list[Finding] = []
    if twice := [name for name, count in Counter(line.name for line in lines).items() if count > 1]:
        found.append(finding("set-cookie-twice", f"set twice: {listed(twice)}"))
    cache = [value.lower() for name, value in fields if name == "cache-control"]
    signs_in = [line.name for line in lines if role_of(line.name) == "credential" and not line.deletes]
    if signs_in and not any("no-store" in value for value in cache):
        found.append(finding("no-store", f"it sets {listed(signs_in)} and may be kept by caches"))
    return found


def _of_cookies(pairs: list[tuple[str, str]], size: int, parts: tuple[Part, ...]) -> list[Finding]:
    found: list[Finding] = []
    credentials = {part.name for part in parts if part.report.kind in CREDENTIAL_KINDS}
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1 and name:
            severe = role_of(name) == "credential" or name in credentials
            level = RULES["cookie-twice"].severity
            words = f"{shown(name)} is there {count} times"
            found.append(finding("cookie-twice", words, level if severe else lesser(level)))
    if alike := _look_alikes([name for name, _ in pairs]):
        found.append(finding("look-alike", f"they look like others: {listed(alike)}"))
    if size > _MOST_OCTETS:
        found.append(finding("header-size", f"it has {size} octets"))
    if len(pairs) > _MOST_COOKIES:
        found.append(finding("many-cookies", f"there are {len(pairs)} cookies"))
    return found


def _look_alikes(names: list[str]) -> list[str]:
    """Return names that differ from another one by their case only, and those with a prefix in another case (C9)."""
    spellings = Counter(name.lower() for name in set(names))
    alike = {name for name in names if spellings[name.lower()] > 1}
    alike |= {name for name in names if name.lower().startswith(tuple(PREFIXES)) and not name.startswith(SPELT)}
    return sorted(alike)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
