"""`coatcheck audit`: a running application, held against the rules."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import groupby
from textwrap import fill
from typing import Final

import msgspec

from coatcheck import audit as auditing
from coatcheck.audit import Report, SignIn, Target
from coatcheck.cli.main import DONE, NOT_DONE
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import Finding

_PASSWORD: Final = "COATCHECK_AUDIT_PASSWORD"  # noqa: S105 - the name of a variable
_MAX_LINE: Final = 4096
_WIDTH: Final = 110
_NEEDS_SIGN_IN: Final = ("name", "password_stdin", "sign_out_path", "name_field", "password_field", "body")


def audit(arguments: argparse.Namespace) -> int:
    """Audit an application, and return 1 if something is as bad as was asked about, or worse."""
    report = auditing.audit(_target(arguments))
    if arguments.json:
        content = msgspec.to_builtins(report)
        print(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
    else:
        print("\n".join(_lines(report, verbose=arguments.verbose)))
    return NOT_DONE if report.at_or_above(arguments.severity) else DONE


def _target(arguments: argparse.Namespace) -> Target:
    sign_in = None
    if arguments.sign_in_path is None:
        given = [name for name in _NEEDS_SIGN_IN if getattr(arguments, name)]
        if given:
            raise ConfigurationError(f"--{given[0].replace('_', '-')} is of no use without --sign-in-path")
    else:
        fields = {name: getattr(arguments, name) for name in ("body", "name_field", "password_field")}
        sign_in = SignIn(
            arguments.sign_in_path,
            name=arguments.name or "",
            password=_password(from_stdin=arguments.password_stdin),
            **{name: value for name, value in fields.items() if value},
        )
    return Target(
        arguments.url,
        sign_in=sign_in,
        protected_path=arguments.protected_path,
        sign_out_path=arguments.sign_out_path,
    )


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        return os.environ.get(_PASSWORD, "")
    line = sys.stdin.readline(_MAX_LINE)
    if not line.rstrip("\r\n"):
        raise ConfigurationError("there is no password on standard input")
    return line.rstrip("\r\n")


def _lines(report: Report, *, verbose: bool) -> Iterator[str]:
    yield f"{report.url}: {_count(len(report.findings), 'finding')}, by {_count(report.requests, 'request')}"
    if report.sign_ins:
        yield f"It signed in {_count(report.sign_ins, 'time')} and out again, and changed nothing else."
    for severity, found in groupby(report.findings, key=lambda each: each.severity):
        yield f"\n{severity.upper()}"
        for _, alike in groupby(found, key=lambda each: (each.id, each.why, each.fix)):
            yield from _finding(list(alike))
    yield f"\nChecked and found good: {len(report.good)}" + ("" if verbose else " (--verbose says what)")
    yield from (f"  {what}" for what in report.good if verbose)
    if report.unseen:
        yield f"\nNot checked: {len(report.unseen)}"
        for needs in dict.fromkeys(each.needs for each in report.unseen):
            yield f"  for want of {needs}:"
            yield from (f"    {each.what}" for each in report.unseen if each.needs == needs)
    if report.remarks:
        yield "\nBesides"
        yield from (_filled(each, "  ") for each in report.remarks)


def _finding(alike: list[Finding]) -> Iterator[str]:
    first = alike[0]
    where = ", ".join(filter(None, (first.row, first.asvs and f"ASVS {first.asvs}")))
    yield f"  {first.id}" + (f"  ({where})" if where else "")
    for word, text in (*(("seen", each.seen) for each in alike), ("why", first.why), ("do", first.fix)):
        yield _filled(text, f"    {word + ':':6}")


def _filled(text: str, begin: str) -> str:
    return fill(text, _WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
