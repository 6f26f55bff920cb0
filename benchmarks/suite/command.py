"""What every benchmark can be told."""

from __future__ import annotations

import argparse


def parser(doc: str | None, *, rounds: int = 9) -> argparse.ArgumentParser:
    """Return a parser of the words that all of them know."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    found.add_argument("--only", default="", help="a word that a row's name holds")
    found.add_argument("--rounds", type=int, default=rounds, help="turns of each case")
    found.add_argument("--quick", action="store_true", help="see that it works: the figures mean nothing")
    found.add_argument("--record", action="store_true", help="keep the result, and show it in docs/benchmarks.md")
    return found


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what was said."""
    options = parser.parse_args()
    if options.record and (options.only or options.quick):
        parser.error("a part, or a quick look, is not recorded")
    if options.quick:
        options.rounds = 2
    return options
