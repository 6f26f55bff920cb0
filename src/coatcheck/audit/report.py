"""The judgement: every rule looks at the evidence, and the report says what was found, found good, and not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from coatcheck.audit.evidence import Evidence
from coatcheck.audit.rules import RULES, Rule
from coatcheck.inspection.report import SEVERITIES, Finding, Severity
from coatcheck.inspection.words import shown

__all__ = ["Finding", "Report", "judge"]

_MOST: Final = 5  # findings of one rule; more are counted
_LONGEST: Final = 300  # characters


class Unseen(msgspec.Struct, frozen=True):
    """Something that could not be checked, and what that would take."""

    what: str
    needs: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit has found.

    Args:
        url: what was looked at.
        requests: how many were sent.
        sign_ins: how many of them signed somebody in.
        findings: what is wrong, the worst first.
        good: what was checked and is as it ought to be.
        unseen: what could not be checked.
        remarks: what else there is to know.
    """

    url: str
    requests: int
    sign_ins: int
    findings: tuple[Finding, ...]
    good: tuple[str, ...]
    unseen: tuple[Unseen, ...]
    remarks: tuple[str, ...]

    def at_or_above(self, severity: Severity) -> list[Finding]:
        """Return the findings that are so bad, or worse."""
        least = SEVERITIES.index(severity)
        return [each for each in self.findings if SEVERITIES.index(each.severity) >= least]


def judge(evidence: Evidence, *, url: str, requests: int) -> Report:
    """Hold the evidence against every rule."""
    findings: list[Finding] = []
    good: list[str] = []
    unseen: list[Unseen] = []
    for rule in RULES:
        seen = rule.look(evidence)
        if seen is None:
            unseen += [Unseen(rule.good, rule.needs)] if rule.needs else []
        elif seen:
            findings += _findings(rule, list(dict.fromkeys(seen)))
        else:
            good.append(rule.good)
    findings.sort(key=lambda each: -SEVERITIES.index(each.severity))
    return Report(
        url=url,
        requests=requests,
        sign_ins=evidence.sign_ins,
        findings=tuple(findings),
        good=tuple(good),
        unseen=tuple(unseen),
        remarks=tuple(dict.fromkeys(shown(each, _LONGEST) for each in [*evidence.remarks, *evidence.elsewhere])),
    )


def _findings(rule: Rule, seen: list[str | Finding]) -> Iterator[Finding]:
    for number, each in enumerate(seen[:_MOST], 1):
        if isinstance(each, Finding):
            yield each
            continue
        more = len(seen) - _MOST
        words = f"{each} (and {more} more)" if number == _MOST and more > 0 else each
        yield Finding(
            id=rule.id,
            severity=rule.severity,
            seen=shown(words, _LONGEST),
            why=rule.why,
            fix=rule.fix,
            row=rule.row,
            asvs=rule.asvs,
        )
