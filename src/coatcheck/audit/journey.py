"""The whole audit: where to go, in which order, and what is made of it."""

from __future__ import annotations

import dataclasses
import time

from coatcheck.audit.evidence import Evidence
from coatcheck.audit.fetch import Client
from coatcheck.audit.report import Report, judge
from coatcheck.audit.signing import Signing
from coatcheck.audit.target import Target
from coatcheck.audit.visit import OWN_PAGE, destination, visit


def audit(target: Target) -> Report:
    """Look at a running application, and say what is wrong with its cookies, headers and sign-in.

    It sends at most 120 requests, as a rule 5 without a sign-in and 70 with one, one after the other, to the
    one host of the target. It changes nothing but by signing in and out.

    Args:
        target: what to look at.

    Raises:
        NotLooked: the application does not answer, or the sign-in does not work.

    Not checked: what takes two accounts, time or a browser: timeouts, the ends of other sessions, scripts; and
    whether the pages that are not named here are any better.
    """
    target, spent = _encrypted(target)
    client = Client(target.origin)
    evidence = Evidence(target=target, now=time.time_ns() // 1_000_000, answers=client.answers)
    visit(client, evidence)
    if target.sign_in is not None:
        Signing(client, evidence, target.sign_in).run()
    return judge(evidence, url=f"{target.origin}{target.path.partition('?')[0]}", requests=client.requests + spent)


def _encrypted(target: Target) -> tuple[Target, int]:
    """Return the target by https, if that is where the application itself sends everybody, and the requests spent."""
    if target.origin.is_https or target.origin.is_loopback:
        return target, 0
    to = destination(Client(target.origin).ask("GET", target.path, OWN_PAGE))
    if to is None or to.scheme != "https" or to.hostname != target.origin.host:
        return target, 1
    return dataclasses.replace(target, url=f"https://{to.netloc}{target.path}"), 1
