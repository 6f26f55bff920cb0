"""JSON with tokens in it: the answer of a token endpoint, mostly."""

from __future__ import annotations

from coatcheck.inspection.looking import Looking
from coatcheck.inspection.names import HARMLESS, role_of
from coatcheck.inspection.reading import json_object
from coatcheck.inspection.report import Report
from coatcheck.inspection.rules import finding
from coatcheck.inspection.words import listed

_MOST = 50


def explain(text: str, looking: Looking) -> Report | None:
    """Explain a JSON object that has credentials among its members."""
    read = json_object(text.encode("utf-8", "surrogateescape")) if text.startswith("{") else None
    if read is None:
        return None
    carried = [
        (name, value.encode("utf-8", "replace").decode())  # JSON may hold lone surrogates, which no octets stand for
        for name, value in read.members.items()
        if isinstance(value, str) and role_of(name) == "credential" and name not in HARMLESS
    ][:_MOST]
    parts = tuple(part for name, value in carried for part in looking.into(name, value))
    if not parts:
        return None
    return Report(
        kind="JSON",
        summary="An object with what signs somebody in, as sign-ins and token endpoints answer with.",
        facts={"members": listed(list(read.members))},
        findings=(finding("json-loose", read.problem),) if read.problem else (),
        parts=parts,
    )
