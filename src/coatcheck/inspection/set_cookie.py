"""Set-Cookie lines, explained."""

from __future__ import annotations

import re
from typing import Final

from coatcheck.core.cookies import MAX_PAIR
from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import CREDENTIAL_KINDS, role_of
from coatcheck.inspection.report import Report
from coatcheck.inspection.set_cookie_checks import KNOWN, findings_of
from coatcheck.inspection.set_cookie_line import Line
from coatcheck.inspection.words import moment, shown

_HEADER: Final = re.compile(r"set-cookie\s*:\s*", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(rf";[ \t]*({'|'.join(KNOWN)})[ \t]*(=|;|$)", re.IGNORECASE)

_SAME_SITE: Final = {"Default": "none is said, and browsers differ in what they make of that"}


def explain(text: str, looking: Looking) -> Report | None:
    """Explain a Set-Cookie line, with or without the name of the header."""
    match = _HEADER.match(text)
    if match is None and not _ATTRIBUTE.search(text):
        return None
    return explain_line(text[match.end() if match else 0 :], looking)


def explain_line(text: str, looking: Looking) -> Report:
    """Explain what follows the name of the header."""
    line = Line.read(text, looking.now)
    parts = looking.into(line.name or "value", line.value.strip('"'), role_of(line.name))
    credential = role_of(line.name) == "credential" or any(part.report.kind in CREDENTIAL_KINDS for part in parts)
    deletes = " deletion" if line.deletes else ""
    return Report(
        kind=f"Set-Cookie{deletes}",
        summary=_summary(line),
        facts=_facts(line),
        findings=tuple(findings_of(line, credential=credential)),
        parts=() if line.deletes else parts,
    )


def _summary(line: Line) -> str:
    if line.stored is None:
        return f"A browser ignores this line{', and keeps the cookie that it was to delete' if line.deletes else ''}."
    if line.deletes:
        return "A browser forgets the cookie of this name, Domain and Path."
    return "A browser keeps this cookie, and sends it back."


def _facts(line: Line) -> dict[str, str]:
    facts = {"name": shown(line.name) or "none", "size": f"{line.size} octets of {MAX_PAIR}"}
    if line.stored is None or line.deletes:
        return facts
    stored = line.stored
    facts["sent to"] = f"{shown(stored.domain)} and all below it" if stored.domain else "the host that set it, no other"
    path = "those below the page that set it" if stored.path is None else shown(stored.path.decode("latin-1"))
    facts["paths"] = "all" if path == "/" else path
    facts["over"] = "https only" if stored.secure else "http and https"
    facts["scripts"] = "cannot read it" if stored.http_only else "can read it"
    facts["SameSite"] = _SAME_SITE.get(stored.same_site, stored.same_site)
    ends = stored.expires_at
    facts["lives"] = "until the browser ends" if ends is None else f"until {moment(ends // 1000, line.now)}"
    return facts
