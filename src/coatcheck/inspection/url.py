"""URLs: whether one carries what must not be in a URL (S17). Values are never shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import CREDENTIAL_KINDS, HARMLESS, role_of
from coatcheck.inspection.report import Finding, Part, Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed, shown

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s]+")
_MOST: Final = 200
_MATRIX: Final = re.compile(r";([A-Za-z_.]{1,40})=([^;/]+)")


def explain(text: str, looking: Looking) -> Report | None:
    """Explain a URL."""
    if not _URL.fullmatch(text):
        return None
    try:
        url = urlsplit(text)
        where = f"{url.scheme}://{url.hostname or ''}" + (f":{url.port}" if url.port else "")
        pairs = _parameters(url)
    except ValueError:
        return None
    parts = tuple(part for name, value in pairs for part in _part(name, value, looking))
    carried = [part.name for part in parts]
    found: list[Finding] = []
    if carried:
        found.append(finding("in-url", f"it carries {listed(carried)}"))
    if url.password is not None:
        found.append(finding("url-password", "it has a password before its host"))
    return Report(
        kind="URL",
        summary="An address; what is in it is copied to many places.",
        facts={"where": shown(where)} | ({"parameters": listed([name for name, _ in pairs])} if pairs else {}),
        findings=tuple(found),
        parts=parts,
    )


def _parameters(url: SplitResult) -> list[tuple[str, str]]:
    """Return what a URL carries, by name: in its query, its fragment, and long parts of its path."""
    fields = [*url.query.split("&")[:_MOST], *url.fragment.split("&")[:_MOST]]
    path = [
        (f"path {number}", unquote(each)) for number, each in enumerate(url.path.split("/")[:_MOST]) if len(each) > 40
    ]
    of_path = _MATRIX.findall(url.path)[:_MOST]  # ;jsessionid=...
    return [*parse_qsl("&".join(fields)), *of_path, *path]


def _part(name: str, value: str, looking: Looking) -> tuple[Part, ...]:
    """Return what a parameter carries, if that is worth a word: a credential's own faults are said, not a text's."""
    role = "anything" if name in HARMLESS else role_of(name)
    [part] = looking.into(name, value, "anything") or (None,)
    if part is None or (role == "anything" and part.report.kind not in CREDENTIAL_KINDS):
        return ()
    return (part,)
