"""What can be wrong with a Set-Cookie line: a table of checks, each of which says what it has seen, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from coatcheck.core.cookies import MAX_ATTRIBUTE, MAX_LIFETIME, MAX_PAIR, PREFIXES, unmet_promise
from coatcheck.inspection.names import for_scripts
from coatcheck.inspection.report import Finding
from coatcheck.inspection.rules import RULES, finding, lesser
from coatcheck.inspection.set_cookie_line import Line, is_ignored
from coatcheck.inspection.words import listed, shown, span

KNOWN: Final = ("expires", "max-age", "domain", "path", "secure", "httponly", "samesite", "partitioned")
SPELT: Final = ("__Secure-", "__Host-Http-", "__Host-", "__Http-")
_PREFIXES: Final = tuple(PREFIXES)
_OF_CHROMIUM: Final = ("priority",)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")
# A day more: what is made of a date is never exact.
_LONGEST: Final = MAX_LIFETIME.total_seconds() + 86_400


def findings_of(line: Line, *, credential: bool) -> list[Finding]:
    """Return what is wrong with a line.

    Args:
        line: taken apart.
        credential: whether the cookie's value signs somebody in; what is missing is worse then.
    """
    found: list[Finding] = []
    for id, applies, look in _CHECKS:
        seen = look(line) if applies(line) else ""
        if seen:
            level = RULES[id].severity
            found.append(finding(id, seen, lesser(level) if id in _LESS_FOR_OTHERS and not credential else level))
    return found


# -- to which lines a check applies


def _dropped(line: Line) -> bool:
    return line.stored is None


def _kept(line: Line) -> bool:
    return line.stored is not None and not line.deletes


def _deletes(line: Line) -> bool:
    return line.deletes


def _any(_: Line) -> bool:
    return True


# -- what makes a browser ignore it


def _control(line: Line) -> str:
    return "there is a control character in it" if _CONTROL.search(line.text) else ""


def _empty(line: Line) -> str:
    return "" if line.name or line.value else "it has no name and no value"


def _size(line: Line) -> str:
    return f"it has {line.size} octets" if line.size > MAX_PAIR else ""


def _foreign_domain(line: Line) -> str:
    return "" if line.counts.get("domain", "").isascii() else "Domain is not ASCII"


def _unmet(line: Line) -> str:
    if not line.name and line.value.lower().startswith(_PREFIXES):
        return "a nameless cookie whose value begins like a prefix"
    met = {
        "Secure": "secure" in line.counts,
        "HttpOnly": "httponly" in line.counts,
        "Path=/": line.counts.get("path") == "/",
        "no Domain": not line.counts.get("domain", "").removeprefix("."),
    }
    unmet = unmet_promise(line.name, met)
    return "" if unmet is None else f"the prefix of {shown(line.name)} demands {unmet}"


def _none_insecure(line: Line) -> str:
    return "SameSite=None without Secure" if _same_site(line) == "none" and "secure" not in line.counts else ""


def _partitioned_insecure(line: Line) -> str:
    return "Partitioned without Secure" if "partitioned" in line.counts and "secure" not in line.counts else ""


# -- what it should not keep as it is


def _no_secure(line: Line) -> str:
    return "" if "secure" in line.counts else "Secure is missing"


def _no_http_only(line: Line) -> str:
    return "" if "httponly" in line.counts or for_scripts(line.name) else "HttpOnly is missing"


def _no_same_site(line: Line) -> str:
    return "" if "samesite" in line.counts else "SameSite is missing"


def _unknown_same_site(line: Line) -> str:
    known = "samesite" not in line.counts or _same_site(line) in ("strict", "lax", "none")
    return "" if known else f"SameSite={shown(_same_site(line), 20)}"


def _no_prefix(line: Line) -> str:
    plain = not line.name.lower().startswith(_PREFIXES) and not _domain(line)
    return f"{shown(line.name) or 'it'} has no prefix" if plain else ""


def _shared(line: Line) -> str:
    return f"Domain={shown(_domain(line))}" if _domain(line) else ""


def _prefix_case(line: Line) -> str:
    odd = line.name.lower().startswith(_PREFIXES) and not line.name.startswith(SPELT)
    return f"{shown(line.name)} has a prefix in another case" if odd else ""


def _too_old(line: Line) -> str:
    seconds = line.seconds or 0
    return f"it is to live for {span(seconds)}" if seconds > _LONGEST else ""


def _one_lifetime(line: Line) -> str:
    found = [name for name in ("max-age", "expires") if name in line.counts]
    return f"there is only {found[0]}" if len(found) == 1 else ""


def _bad_lifetime(line: Line) -> str:
    bad = [name for name, value in line.attributes if name in ("max-age", "expires") and is_ignored(name, value)]
    return f"{listed(bad)} cannot be read" if bad else ""


def _twice(line: Line) -> str:
    twice = [name for name, count in Counter(name for name, _ in line.attributes if name).items() if count > 1]
    return f"twice there: {listed(twice)}" if twice else ""


def _too_long(line: Line) -> str:
    names = [name for name, value in line.attributes if len(value) > MAX_ATTRIBUTE]
    return f"too long: {listed(names)}" if names else ""


def _unknown(line: Line) -> str:
    names = sorted({name for name, _ in line.attributes if name} - {*KNOWN, *_OF_CHROMIUM})
    return f"unknown: {listed(names)}" if names else ""


def _no_path(line: Line) -> str:
    path = line.counts.get("path", "/")
    return "" if path.startswith("/") else f"Path={shown(path, 20)}"


def _grammar(line: Line) -> str:
    if _CONTROL.search(line.text):
        return ""
    if line.name and not _NAME.fullmatch(line.name):
        return "its name has signs that no token has"
    return "" if _VALUE.fullmatch(line.value) else "its value has signs that no cookie-octets are"


def _nameless(line: Line) -> str:
    return "it has no name" if line.value and not line.name else ""


def _deletion_path(line: Line) -> str:
    return "" if "path" in line.counts else "it has no Path"


def _same_site(line: Line) -> str:
    return line.counts.get("samesite", "").lower()


def _domain(line: Line) -> str:
    return line.counts.get("domain", "").removeprefix(".")


_CHECKS: Final[tuple[tuple[str, Callable[[Line], bool], Callable[[Line], str]], ...]] = (
    ("cookie-control", _dropped, _control),
    ("cookie-empty", _dropped, _empty),
    ("cookie-size", _dropped, _size),
    ("cookie-domain", _dropped, _foreign_domain),
    ("cookie-prefix", _dropped, _unmet),
    ("cookie-none-insecure", _dropped, _none_insecure),
    ("cookie-partitioned-insecure", _dropped, _partitioned_insecure),
    ("no-secure", _kept, _no_secure),
    ("no-httponly", _kept, _no_http_only),
    ("no-samesite", _kept, _no_same_site),
    ("no-prefix", _kept, _no_prefix),
    ("cookie-shared", _kept, _shared),
    ("over-400-days", _kept, _too_old),
    ("deletion-path", _deletes, _deletion_path),
    ("samesite-unknown", _any, _unknown_same_site),
    ("prefix-case", _any, _prefix_case),
    ("one-lifetime", _any, _one_lifetime),
    ("bad-lifetime", _any, _bad_lifetime),
    ("attribute-twice", _any, _twice),
    ("attribute-size", _any, _too_long),
    ("attribute-unknown", _any, _unknown),
    ("path-ignored", _any, _no_path),
    ("cookie-grammar", _any, _grammar),
    ("nameless", _any, _nameless),
)
# Worse for what signs somebody in than for a preference.
_LESS_FOR_OTHERS: Final = ("no-secure", "no-httponly", "no-samesite", "no-prefix", "cookie-shared")
