"""Done-when 4: `audit` finds every fault that was planted in a deliberately bad application, and nothing else."""

from __future__ import annotations

import re

import pytest
from bad_app import NAME, PASSWORD, BadApp
from stage import Stage, stage

from coatcheck.audit import Report, SignIn, Target, audit
from coatcheck.audit.rules import RULES
from coatcheck.audit.target import Body
from coatcheck.inspection import RULES as OF_INSPECT

__all__ = ["stage"]  # a fixture: pytest finds it by this name

# Faults that are planted together -> the ids of all that is to be found.
BY_FORM: dict[tuple[str, ...], set[str]] = {
    (): set(),
    # what only looks like a fault
    ("a page about stack traces",): set(),
    ("taken back a page later",): set(),
    ("one session each",): set(),
    ("one page for every path",): set(),
    ("repeats the address",): set(),
    # the session cookie
    ("no Secure", "no prefix"): {"no-secure", "no-prefix"},
    ("no Secure",): {"cookie-prefix", "cookie-left-behind"},
    ("no HttpOnly",): {"no-httponly"},
    ("no SameSite",): {"no-samesite"},
    ("SameSite=None",): {"for-every-site"},
    ("domain", "no prefix"): {"cookie-shared"},
    ("domain",): {"cookie-prefix", "cookie-left-behind"},
    ("no prefix",): {"no-prefix"},
    ("a year",): {"long-session", "one-lifetime"},
    ("counted ids",): {"guessable-id"},
    ("short ids",): {"guessable-id", "id-short"},
    ("name in a cookie",): {"name-in-cookie"},
    ("set twice",): {"cookie-set-twice"},
    ("fat cookies",): {"many-octets"},
    ("session for visitors",): {"session-for-visitors"},
    ("two applications",): {"several-applications", "no-prefix"},
    ("cookie left behind",): {"cookie-left-behind"},
    ("taken back elsewhere", "no prefix"): {"cookie-left-behind", "no-prefix"},
    ("taken back elsewhere",): {"cookie-left-behind"},
    ("stored sign-in",): {"session-stored"},
    ("shared answers",): {"answer-shared"},
    # the sign-in
    ("open to visitors",): {"unprotected"},
    ("unsigned tokens",): {"unsigned-token"},
    ("sessions are tokens",): set(),
    ("sessions are tokens", "takes alg none"): {"unsigned-token"},
    ("half of the id counts",): {"changed-value"},
    ("takes ids from its own parameter",): {"id-in-address"},
    ("takes ids from ?sid=",): {"id-in-address"},
    ("takes ids from ;jsessionid=", "one page for every path"): {"id-in-address"},
    ("takes ids from ?sid=", "sessions are tokens", "repeats the address"): {"id-in-address"},
    ("sign-in by GET",): {"sign-in-by-get"},
    ("sign-in by GET", "shows the form again", "repeats the address"): {"sign-in-by-get", "no-prefix"},
    ("sign-in by GET", "session for visitors"): {"sign-in-by-get", "session-for-visitors"},
    ("same id after sign-in",): {"fixation"},
    ("old id stays alive",): {"fixation"},
    ("adopts any id",): {"chosen-id"},
    ("first of two", "no prefix"): {"two-cookies", "no-prefix"},
    ("first of two",): {"two-cookies-host"},
    ("loose names",): {"look-alike", "two-cookies-host"},
    ("any origin reads",): {"cross-origin-reads"},
    ("origins that begin like ours read",): {"cross-origin-reads"},
    ("origins that end like ours read",): {"cross-origin-reads"},
    ("open redirect",): {"open-redirect"},
    ("asks for a url",): {"open-redirect"},
    ("redirect checks for // only",): {"open-redirect"},
    ("redirects who is signed in",): {"open-redirect"},
    ("alive after sign-out",): {"alive-after-sign-out"},
    # other sites
    ("no defence against other sites",): {"forged-sign-in", "forged-sign-out"},
    ("takes same-site",): {"forged-sign-in", "forged-sign-out"},
    ("takes Origin: null",): {"forged-sign-in", "forged-sign-out"},
    ("knows Sec-Fetch-Site only",): {"forged-sign-in", "forged-sign-out"},
    ("compares how an Origin begins",): {"forged-sign-in", "forged-sign-out"},
    ("compares how an Origin ends",): {"forged-sign-in", "forged-sign-out"},
    ("sign-out by GET",): {"sign-out-by-get"},
    # tokens and keys
    ("token for scripts",): {"token-for-scripts", "no-httponly"},
    ("private key published",): {"private-published"},
    ("short RSA key published",): {"rsa-short"},
    ("no challenge",): {"challenge"},
    # pages
    ("no policy",): {"no-policy"},
    ("weak policy",): {"weak-policy"},
    ("framed",): {"framed"},
    ("sniffed",): {"sniffed"},
    ("referrer",): {"referrer"},
    ("versions",): {"versions"},
    ("id in the address",): {"secret-in-address"},
    ("id in the body",): {"secret-in-body"},
    ("repeats the password",): {"password-repeated"},
    ("traceback",): {"insides"},
    ("warnings",): {"insides"},
    ("breaks on odd cookies",): {"breaks"},
    # many at once hide nothing
    ("no prefix", "no HttpOnly", "adopts any id", "alive after sign-out", "no policy", "open redirect"): {
        "no-prefix", "no-httponly", "chosen-id", "alive-after-sign-out", "no-policy", "open-redirect",
    },
}  # fmt: skip
BY_JSON: dict[tuple[str, ...], set[str]] = {
    (): set(),
    ("token only",): set(),
    ("token only", "unsigned tokens"): {"unsigned-token", "changed-value"},
    ("no defence against other sites",): {"forged-sign-out"},
    ("no defence against other sites", "any content type"): {"forged-sign-in", "forged-sign-out"},
    ("token alive after sign-out",): {"alive-after-sign-out"},
    ("token alive after sign-out", "token only"): {"alive-after-sign-out"},
    ("takes tokens from ?access_token=",): {"token-in-address"},
    ("takes tokens from ?access_token=", "token only"): {"token-in-address"},
    ("takes tokens from ?access_token=", "repeats the address"): {"token-in-address"},
    ("sign-in by GET",): {"sign-in-by-get"},
    ("sign-in by GET", "token only"): {"sign-in-by-get"},
    ("token for months",): {"long-life"},
    ("token without end",): {"exp-missing"},
    ("alive after sign-out",): {"alive-after-sign-out"},
    ("same id after sign-in", "session for visitors"): {"fixation", "session-for-visitors"},
}


def audited(stage: Stage, body: Body, *faults: str) -> Report:
    stage.app = BadApp(*faults)
    sign_in = SignIn("/sign-in", name=NAME, password=PASSWORD, body=body)
    return audit(Target(stage.url, sign_in=sign_in, protected_path="/me", sign_out_path="/sign-out"))


def ids_of(report: Report) -> set[str]:
    return {finding.id for finding in report.findings}


@pytest.mark.parametrize("faults", BY_FORM, ids=lambda faults: ", ".join(faults)[:60] or "none")
def test_a_planted_fault_is_found_and_nothing_else(stage: Stage, faults: tuple[str, ...]) -> None:
    report = audited(stage, "form", *faults)
    assert ids_of(report) == BY_FORM[faults], report.findings


@pytest.mark.parametrize("faults", BY_JSON, ids=lambda faults: ", ".join(faults) or "none")
def test_a_fault_that_is_planted_in_an_api_is_found_and_nothing_else(stage: Stage, faults: tuple[str, ...]) -> None:
    report = audited(stage, "json", *faults)
    assert ids_of(report) == BY_JSON[faults], report.findings


@pytest.mark.parametrize(
    "fault", ["", "knows Sec-Fetch-Site only", "sign-out by GET", "sign-in by GET", "adopts any id"]
)
def test_without_a_protected_path_cookies_tell_what_a_request_has_done(stage: Stage, fault: str) -> None:
    stage.app = app = BadApp(fault)
    sign_in = SignIn("/sign-in", name=NAME, password=PASSWORD)
    report = audit(Target(stage.url, sign_in=sign_in, sign_out_path="/sign-out"))
    assert ids_of(report) == BY_FORM[(fault,) if fault else ()]
    assert not any(app.sessions.values())
    assert "a credential is dead after the sign-out" in {each.what for each in report.unseen}


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("takes same-site", {"Sec-Fetch-Site: same-site"}),
        ("takes Origin: null", {"Origin: null"}),
        ("compares how an Origin begins", {"an Origin that begins like yours"}),
        ("compares how an Origin ends", {"an Origin that ends like yours"}),
        ("knows Sec-Fetch-Site only", {"a foreign Origin", "Origin: null"}),
        (
            "no defence against other sites",
            {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "a foreign Origin", "Origin: null"},
        ),
    ],
)
def test_f1_f2_f6_it_is_said_which_request_of_another_site_was_taken(stage: Stage, fault: str, seen: set[str]) -> None:
    report = audited(stage, "form", fault)
    for id in ("forged-sign-in", "forged-sign-out"):
        said = {each.seen.rpartition("it came with ")[2] for each in report.findings if each.id == id}
        assert said == seen


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("takes ids from its own parameter", "?__Host-sid="),
        ("takes ids from ?sid=", "?sid="),
        ("takes ids from ;jsessionid=", ";jsessionid="),
    ],
)
def test_s17_it_is_said_where_in_the_address_an_id_was_taken(stage: Stage, fault: str, place: str) -> None:
    (found,) = audited(stage, "form", fault).findings
    assert (found.id, found.row, found.asvs) == ("id-in-address", "S17", "14.2.1")
    assert found.seen == f"GET /me answered 200 to a session id in its address, as {place}"


def test_c15_the_sum_of_all_cookies_is_reported_in_octets(stage: Stage) -> None:
    (found,) = audited(stage, "form", "fat cookies").findings
    assert (found.id, found.row) == ("many-octets", "C15")
    assert re.fullmatch(r"the browser's Cookie header has 7\d{3} octets", found.seen)


def test_c20_two_applications_on_one_host_are_a_note(stage: Stage) -> None:
    (found,) = (each for each in audited(stage, "form", "two applications").findings if each.row == "C20")
    assert (found.severity, found.seen) == ("note", "there are cookies of Django and of PHP")


def test_every_rule_that_needs_no_encryption_has_a_fault_that_is_planted_for_it() -> None:
    planted = set[str]().union(*BY_FORM.values(), *BY_JSON.values())
    on_the_way = {"plain-http", "downgrade", "no-hsts", "short-hsts"}  # see test_https.py
    by_inspect = {"session-cookie", "other-cookie", "token", "keys"}  # their findings are those of `inspect`
    assert {rule.id for rule in RULES} - planted - on_the_way - by_inspect == set()
    assert planted - {rule.id for rule in RULES} <= set(OF_INSPECT)


def test_no_two_rules_have_one_id_and_every_one_says_why_and_what_to_do() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    of_inspect = {"session-cookie", "other-cookie", "token", "keys"}
    assert [rule.id for rule in RULES if rule.id not in of_inspect and not (rule.why and rule.fix)] == []
