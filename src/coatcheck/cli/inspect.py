"""`coatcheck inspect`: one text, explained in words. Nothing is sent anywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Final

import msgspec

from coatcheck import Key, inspection
from coatcheck.cli.main import DONE, NOT_DONE, CannotLook
from coatcheck.clock import system_clock
from coatcheck.errors import ConfigurationError
from coatcheck.inspection import SEVERITIES, Finding, Report

_MOST_KEYS: Final = 262_144  # octets of a JWKS
_WIDTH: Final = 110
_SEEN_BY_OTHERS: Final = (
    "coatcheck: other users of this machine can see what is on a command line, and the shell keeps it\n"
)


def inspect(arguments: argparse.Namespace) -> int:
    """Explain one text, and return 1 if something is wrong with it."""
    if arguments.words:
        raise ConfigurationError("the text is read from standard input; --text takes it from the command line")
    if arguments.file and arguments.text is not None:
        raise ConfigurationError("give --file or --text, or neither: then it is read from standard input")
    keys = _keys(arguments.jwks) if arguments.jwks else ()
    report = inspection.inspect(_octets(arguments), now=system_clock(), keys=keys)
    if report.kind in ("nothing", "too large"):
        raise CannotLook(report.summary)
    if arguments.json:
        content = msgspec.to_builtins(report) | {"worst": report.worst()}
        print(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
    else:
        print("\n".join(_lines(report, "")))
    return exit_code(report.all_findings(), arguments.severity)


def exit_code(findings: Iterator[Finding], severity: str) -> int:
    """Return 1 if a finding is as bad as asked about, or worse; else 0."""
    asked = [str(each) for each in SEVERITIES].index(severity)
    return NOT_DONE if any(SEVERITIES.index(finding.severity) >= asked for finding in findings) else DONE


def finding_lines(finding: Finding, margin: str) -> Iterator[str]:
    """Yield a finding in lines: what was seen, why it matters, what to do."""
    where = ", ".join(filter(None, (finding.row, finding.asvs and f"ASVS {finding.asvs}")))
    yield f"{margin}{finding.severity.upper():6}  {finding.id}" + (f"  ({where})" if where else "")
    for word, text in (("seen", finding.seen), ("why", finding.why), ("do", finding.fix)):
        begin = f"{margin}        {word + ':':6}"
        yield fill(text, _WIDTH, initial_indent=begin, break_on_hyphens=False, subsequent_indent=" " * len(begin))


def _octets(arguments: argparse.Namespace) -> bytes:
    most = inspection.MAX_TEXT + 1
    if arguments.text is not None:
        sys.stderr.write(_SEEN_BY_OTHERS)
        return str(arguments.text).encode("utf-8", "surrogateescape")
    if arguments.file:
        return _read(arguments.file, most)
    if sys.stdin.isatty():
        sys.stderr.write("Paste it, then press Enter and Ctrl-D.\n")
    return sys.stdin.buffer.read(most)


def _keys(path: str) -> tuple[Key, ...]:
    return inspection.keys_of(_read(path, _MOST_KEYS))


def _read(path: str, most: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "this is no path"
        raise CannotLook(f"{path}: {reason}") from None


def _lines(report: Report, margin: str) -> Iterator[str]:
    yield f"{margin}{report.kind}"
    yield fill(
        report.summary, _WIDTH, initial_indent=f"{margin}  ", break_on_hyphens=False, subsequent_indent=f"{margin}  "
    )
    width = max(map(len, report.facts), default=0)
    for name, words in report.facts.items():
        begin = f"{margin}  {name:{width}}  "
        yield fill(words, _WIDTH, initial_indent=begin, break_on_hyphens=False, subsequent_indent=" " * len(begin))
    for finding in report.findings:
        yield from finding_lines(finding, f"{margin}  ")
    for part in report.parts:
        yield f"{margin}  in it, as {part.name}:"
        yield from _lines(part.report, f"{margin}    ")
