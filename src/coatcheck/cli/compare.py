"""`coatcheck compare`: the table of sessions, cookies and tokens, measured here and now."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from coatcheck.comparison import KINDS, Report, as_json, compare, report

_NARROWEST, _WIDEST = 80, 100
_TITLE: Final = 11
_GAP: Final = "  "
_HOW: Final = (
    "CPU is what a request takes over the same page without sessions. The other process is played by a second "
    "Coatcheck, which shares nothing with the first but files."
)


def show(arguments: argparse.Namespace) -> None:
    """Measure for two seconds, and print."""
    if not arguments.json and sys.stderr.isatty():
        sys.stderr.write("measuring for about two seconds ...\n")
    found = report(compare())
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(as_json(found)), indent=2).decode())
        return
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    for line in lines(found, width):
        print(line)


def lines(found: Report, width: int) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        found: the report.
        width: columns that a line may take; at least 80.
    """
    marks = _marks(found.proofs)
    yield from _table(found, marks, width)
    yield ""
    yield from _filled(f"Measured: {found.where}.", width)
    yield from _filled(_HOW, width)
    for title, traded in (("Taught, and gone:", found.gone), ("Still true:", found.left)):
        yield ""
        yield title
        for each in traded:
            yield from _filled(f'"{each.taught}"', width, "- ")
            yield from _filled(each.here + marks(each.proofs), width, "  ")
    yield ""
    yield "What was not measured is proved by these tests:"
    yield from _by_file(found.proofs)


def _table(found: Report, marks: Callable[[Sequence[str]], str], width: int) -> Iterator[str]:
    each = (width - _TITLE) // len(KINDS) - len(_GAP)
    rule = _GAP.join(["-" * _TITLE, *["-" * each] * len(KINDS)])
    yield from _row("", list(KINDS.values()), each)
    yield rule
    for row in found.words:
        yield from _row(row.title, [row.cells[kind].text + marks(row.cells[kind].proofs) for kind in KINDS], each)
        yield rule if row is found.words[-1] else ""
    for row in found.figures:
        yield from _row(row.title, [row.cells[kind].text for kind in KINDS], each)


def _row(title: str, texts: Sequence[str], width: int) -> Iterator[str]:
    columns = [textwrap.wrap(title, _TITLE), *(textwrap.wrap(text, width) for text in texts)]
    for number in range(max(map(len, columns))):
        cells = [column[number] if number < len(column) else "" for column in columns]
        yield _GAP.join([cells[0].ljust(_TITLE), *(cell.ljust(width) for cell in cells[1:])]).rstrip()


def _filled(text: str, width: int, first: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)


def _marks(proofs: Sequence[str]) -> Callable[[Sequence[str]], str]:
    """Return what makes of the tests that prove some words the numbers that stand behind these."""
    numbers = {proof: str(number) for number, proof in enumerate(proofs, 1)}
    return lambda named: f" [{','.join(numbers[proof] for proof in named)}]" if named else ""


def _by_file(proofs: Sequence[str]) -> Iterator[str]:
    for file in sorted({proof.partition("::")[0] for proof in proofs}):
        yield f"  {file}"
        for number, proof in enumerate(proofs, 1):
            if proof.startswith(f"{file}::"):
                yield f"    {number:2} {proof.partition('::')[2]}"
