"""The rules that an inspection holds texts against: one line of the table for each thing that can be wrong.

Rows are those of docs/requirements.md, ASVS is OWASP ASVS 5.0.0. A severity can be lowered where it is found.

high      somebody can act as somebody else, or sessions do not work at all
medium    a defence is missing, or some verifiers and browsers refuse it
low       worth doing
note      good to know
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coatcheck.inspection.report import SEVERITIES, Finding, Rule, Severity
from coatcheck.inspection.rules_cookies import COOKIE_HEADER, SET_COOKIE
from coatcheck.inspection.rules_tokens import KEYS, TOKENS, VALUES

RULES: Final[Mapping[str, Rule]] = {**SET_COOKIE, **COOKIE_HEADER, **VALUES, **TOKENS, **KEYS}


def finding(id: str, seen: str, severity: Severity | None = None) -> Finding:
    """Return a finding by the rule of this id.

    Args:
        id: a key of RULES.
        seen: what was seen, in words; never a secret.
        severity: instead of the rule's.
    """
    rule = RULES[id]
    level = rule.severity if severity is None else severity
    return Finding(id=id, severity=level, seen=seen, why=rule.why, fix=rule.fix, row=rule.row, asvs=rule.asvs)


def lesser(severity: Severity) -> Severity:
    """Return the next lower severity."""
    return SEVERITIES[max(SEVERITIES.index(severity) - 1, 0)]
