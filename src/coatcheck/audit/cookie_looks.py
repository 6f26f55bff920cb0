"""Looks at cookies: evidence in, what is wrong out. None says that there was nothing to look at."""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from coatcheck.audit.evidence import JWT, Evidence, SentCookie, sent_cookies

Found = list[str] | None

MAX_SUM: Final = 6144  # octets of all cookies: servers stop at 8192 of a header (C15)
LONG: Final = 30 * 24 * 3600  # seconds: the longest overall lifetime of NIST's AAL1 (S8)
GUESSABLE: Final = 64  # bits: NIST's least (S1)

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+", re.ASCII)
_SHORTEST = 4  # characters that two values have in common by more than chance

# What gives an application away, by the name of a cookie (C20).
_FAMILIES: Final = {
    "phpsessid": "PHP",
    "laravel_session": "Laravel",
    "jsessionid": "a Java server",
    "asp.net_sessionid": "ASP.NET",
    "connect.sid": "Express",
    "sessionid": "Django",
    "csrftoken": "Django",
    "beaker.session.id": "Beaker",
    "__host-session": "coatcheck",
}


def for_every_site(evidence: Evidence) -> Found:
    """Session cookies that the requests of every site carry."""
    return _each(evidence, lambda cookie: cookie.attributes.get("samesite", "").lower() == "none", "has SameSite=None")


def lifetime(evidence: Evidence) -> Found:
    """Session cookies that live longer than anybody ought to be signed in."""
    cookies = evidence.session_cookies()
    lives = {cookie.name: cookie.line.seconds or 0 for cookie in cookies}
    found = [f"{name} lives for {seconds // 86400} days" for name, seconds in lives.items() if seconds > LONG]
    return found if cookies else None


def repeated(evidence: Evidence) -> Found:
    """Answers that set a cookie of one name twice."""
    seen: dict[tuple[int, str], int] = {}
    for cookie in evidence.cookies():
        key = (id(cookie.answer), cookie.name)
        seen[key] = seen.get(key, 0) + 1
    by_answer = {id(answer): answer for answer in evidence.answers}
    found = [f"{by_answer[answer].to} sets {name} {times} times" for (answer, name), times in seen.items() if times > 1]
    return found if seen else None


def sum_of_sizes(evidence: Evidence) -> Found:
    """All cookies of one browser together (C15)."""
    jars = [evidence.visitor, *(signed.jar for signed in (evidence.first, evidence.second) if signed is not None)]
    largest = max(sum(len(name) + len(value) + 3 for name, value in jar.items()) for jar in jars)
    if not any(jars):
        return None
    return [f"the browser's Cookie header has {largest} octets"] if largest > MAX_SUM else []


def personal(evidence: Evidence) -> Found:
    """Cookies in which it can be read who somebody is."""
    name = evidence.target.sign_in.name.lower() if evidence.target.sign_in is not None else ""
    cookies = {cookie.name: cookie for cookie in evidence.cookies() if not cookie.deletes}
    found: list[str] = []
    for cookie in cookies.values():
        text = " ".join(readings(cookie.value))
        if name and re.search(rf"(?<![0-9a-z]){re.escape(name)}(?![0-9a-z])", text.lower()):
            found.append(f"{cookie.name} has the account's name in it")
        elif _EMAIL.search(text):
            found.append(f"{cookie.name} has an e-mail address in it")
    return found if cookies else None


def guessable(evidence: Evidence) -> Found:
    """Session ids of two sign-ins that are too much alike."""
    cookies = evidence.session_cookies()
    if not cookies or evidence.first is None or evidence.second is None:
        return None
    one, other = evidence.first.jar, evidence.second.jar
    names = {each.name for each in cookies if not (is_data(each.value) or JWT.fullmatch(each.value))}
    estimates = {name: bits(one[name], other[name]) for name in sorted(names & one.keys() & other.keys())}
    return [
        f"at most {estimate:.0f} bits of {name} differ between two sign-ins"
        for name, estimate in estimates.items()
        if estimate < GUESSABLE
    ]


def for_visitors(evidence: Evidence) -> Found:
    """Sessions that are made before anybody has done anything (S21)."""
    if evidence.page is None:
        return None
    found = [
        cookie.name for cookie in evidence.cookies() if cookie.name in evidence.visitor and evidence.is_session(cookie)
    ]
    return [f"{name} is set for a visitor who only looks" for name in sorted(set(found))]


def several_applications(evidence: Evidence) -> Found:
    """Cookies of more than one application on this host (C20)."""
    names = {cookie.name for cookie in evidence.cookies()}
    families = sorted({_FAMILIES[name.lower()] for name in names if name.lower() in _FAMILIES})
    paths = sorted({cookie.attributes["path"] for cookie in evidence.cookies() if _is_folder(cookie)})
    found = [f"there are cookies of {' and of '.join(families)}"] if len(families) > 1 else []
    found += [f"a session cookie has Path={path}" for path in paths]
    return found if names else None


def not_taken_back(evidence: Evidence) -> Found:
    """Session cookies that a sign-out leaves in the browser, or tries to take back in vain (C6)."""
    if not evidence.sign_out or not evidence.session_names:
        return None
    if any({'"cookies"', '"*"'} & answer.words_of("clear-site-data") for answer in evidence.sign_out):
        return []
    first = evidence.sign_out[0]
    lines = [cookie for answer in evidence.sign_out for cookie in sent_cookies(answer, evidence.now)]
    set_by = {cookie.name: cookie for cookie in evidence.session_cookies()}
    found: list[str] = []
    for name in sorted(evidence.session_names):
        taken = [line for line in lines if line.name == name]
        if not taken:
            found.append(f"{first.to} leaves {name} in the browser")
        elif all(line.line.stored is None for line in taken):
            found.append(f"{first.to} takes {name} back in a way that browsers ignore")
        elif name in set_by and all(_place(line) != _place(set_by[name]) for line in taken):
            found.append(f"{first.to} takes {name} back from another Path or Domain than it has")
    return found


def readings(value: str) -> list[str]:
    """Return what can be read in a value without any key: as it is, and what base64 in it means."""
    plain = unquote(value).strip('"')
    texts = [plain]
    for part in re.split(r"[.:|&=~]|--", plain):
        raw = _decoded(part)
        if raw is not None:
            texts.append(raw)
    return texts


def is_data(value: str) -> bool:
    """Return whether a value says something, and is not only an id."""
    return any(re.match(r"\s*[\[{].*[:,].*[\]}]\s*\Z", text, re.DOTALL) for text in readings(value))


def bits(value: str, other: str) -> float:
    """Estimate from above how many bits of a value are hard to guess for who has another one.

    Args:
        value: a session cookie's.
        other: of another session. What both begin or end with is no secret.
    """
    start = _common(value, other)
    value, other = value[start:], other[start:]
    end = _common(value[::-1], other[::-1])
    text = "".join(each for each in value[: len(value) - end] if each.isalnum())
    return len(text) * math.log2(_alphabet(text)) if text else 0.0


def _each(evidence: Evidence, wrong: Callable[[SentCookie], bool], words: str) -> Found:
    cookies = evidence.session_cookies()
    found = [f"{cookie.name}, set by {cookie.answer.to}, {words}" for cookie in cookies if wrong(cookie)]
    return found if cookies else None


def _is_folder(cookie: SentCookie) -> bool:
    return cookie.attributes.get("path", "/") not in {"/", ""} and not cookie.deletes


def _place(cookie: SentCookie) -> tuple[str, str]:
    attributes = cookie.attributes
    path = attributes.get("path", "")
    if not path.startswith("/"):  # the directory of the address that set it (6265bis 5.1.4)
        path = cookie.answer.path.partition("?")[0].rpartition("/")[0] or "/"
    return path, attributes.get("domain", "").removeprefix(".").lower()


def _decoded(part: str) -> str | None:
    text = part.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        if raw[:1] == b"\x78":
            raw = zlib.decompressobj().decompress(raw, 65536)
        decoded = raw.decode("utf-8")
    except (binascii.Error, ValueError, zlib.error):
        return None
    return decoded if len(decoded) >= _SHORTEST and decoded.isprintable() else None


def _common(one: str, other: str) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count if count >= _SHORTEST or count == len(one) == len(other) else 0


def _alphabet(text: str) -> int:
    for letters, size in ((r"[0-9]*", 10), (r"[0-9a-f]*|[0-9A-F]*", 16), (r"[0-9a-z]*|[0-9A-Z]*", 36)):
        if re.fullmatch(letters, text):
            return size
    return 64
