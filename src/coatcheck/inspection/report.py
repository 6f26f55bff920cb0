"""Reports: what a text is, facts about it in words, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import msgspec

Severity = Literal["note", "low", "medium", "high"]

SEVERITIES: Final[tuple[Severity, ...]] = ("note", "low", "medium", "high")


class Rule(NamedTuple):
    """What is found by a rule, and what to do then; see `coatcheck.inspection.rules`."""

    severity: Severity
    row: str
    asvs: str
    why: str
    fix: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong.

    Args:
        id: of the rule, see `coatcheck.inspection.rules`.
        severity: how bad it is.
        seen: what was seen, in words.
        why: why it matters.
        fix: what to do.
        row: of docs/requirements.md; "" if there is none.
        asvs: the requirement of OWASP ASVS 5.0; "" if there is none.
    """

    id: str
    severity: Severity
    seen: str
    why: str
    fix: str
    row: str = ""
    asvs: str = ""


class Part(msgspec.Struct, frozen=True):
    """Something that was found inside, under its name there."""

    name: str
    report: Report


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say about a text.

    Args:
        kind: what it is, in a few words.
        summary: what that means, in a sentence.
        facts: what can be read in it, in words, by name.
        findings: what is wrong with it.
        parts: what is inside it.
    """

    kind: str
    summary: str
    facts: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
    parts: tuple[Part, ...] = ()

    def all_findings(self) -> Iterator[Finding]:
        """Yield the findings, and those of its parts."""
        yield from self.findings
        for part in self.parts:
            yield from part.report.all_findings()

    def worst(self) -> Severity | None:
        """Return the highest severity of all findings, or None without any."""
        found = [SEVERITIES.index(finding.severity) for finding in self.all_findings()]
        return SEVERITIES[max(found)] if found else None
