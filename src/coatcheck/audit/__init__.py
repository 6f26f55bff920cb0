"""coatcheck audit: a running application's cookies, headers and sign-in, held against the rules.

    target.py     what to look at, checked once
    fetch.py      one request: bounded in time and size, and to the one host named
    evidence.py   what was seen, and what was tried
    visit.py      the requests of a visitor
    browser.py    the steps of signing in and out, as a user or as another site has them made
    signing.py    what is tried with them
    in_address.py what is tried with a secret in the address
    ..._looks.py  pure: evidence in, what is wrong out; inspected.py has `coatcheck inspect` look
    rules.py      the table of all rules: severity, row, ASVS id, the look, why, and fix
    report.py     the judgement of all of them
    journey.py    all of it, in order

Fetching and judging are apart: a look asks for nothing, and what has been fetched is judged by every rule.
It needs nothing but the core's dependencies.
"""

from __future__ import annotations

from coatcheck.audit.fetch import NotLooked
from coatcheck.audit.journey import audit
from coatcheck.audit.report import Report
from coatcheck.audit.target import SignIn, Target

__all__ = ["NotLooked", "Report", "SignIn", "Target", "audit"]
