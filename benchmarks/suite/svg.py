"""Charts as SVG: bars and lines, whose colours follow what the reader's browser prefers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from suite.harness import Spread, short

WIDTH: Final = 760
LABELS: Final = 230  # of the width
TOP: Final = 64
BAR, GAP = 16, 8
PLOT: Final = 300  # the height of a line chart's inside
# Ours in colour, others in grey; each colour has a contrast of 3 to 1 or more with its background.
STYLE: Final = """\
svg { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; --ink: #1f2328; --soft: #59636e; --paper: #ffffff;
  --rule: #d1d9e0; --ours: #0969da; --other: #818b98; --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df;
  --c4: #bf3989; --c5: #59636e; --c6: #6e7781; --c7: #818b98; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #f0f6fc; --soft: #9198a1; --paper: #0d1117; --rule: #3d444d; --ours: #4493f8; --other: #6e7681;
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #f778ba; --c5: #b1bac4; --c6: #9198a1;
    --c7: #7d8590; }
}
text { fill: var(--ink); }
.soft { fill: var(--soft); font-size: 12px; }
.head { font-size: 15px; font-weight: 600; }
.paper { fill: var(--paper); stroke: var(--rule); }
.rule { stroke: var(--rule); }
.ours { fill: var(--ours); }
.other { fill: var(--other); }
.spread { stroke: var(--ink); stroke-width: 1.4; }
.line { fill: none; stroke-width: 2.2; }
.dash { stroke-dasharray: 5 4; }
"""


@dataclass(frozen=True)
class Row:
    """One bar, or one line: its name, whether it is ours, and its figures from left to right."""

    name: str
    ours: bool
    figures: Sequence[Spread]


def bars(title: str, unit: str, rows: Sequence[Row]) -> str:
    """Return a chart of one bar a row, with the quartiles as a line across its end."""
    most = max(row.figures[0].high for row in rows)
    room = WIDTH - LABELS - 80
    height = TOP + len(rows) * (BAR + GAP) + GAP

    def at(figure: float) -> float:
        return LABELS + max(0.0, figure) / most * room

    lines: list[str] = []
    for number, row in enumerate(rows):
        figure, top = row.figures[0], TOP + number * (BAR + GAP)
        middle = top + BAR / 2
        lines += [
            f'<text x="{LABELS - 8}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(row.name)}</text>',
            _bar("ours" if row.ours else "other", top, at(figure.median) - LABELS),
            _rule("spread", at(figure.low), middle, at(figure.high), middle),
            f'<text class="soft" x="{at(figure.high) + 8:.1f}" y="{middle + 4.5:.1f}">{short(figure.median)}</text>',
        ]
    return _drawing(title, unit, height, lines)


def lines(title: str, unit: str, steps: Sequence[str], along: str, rows: Sequence[Row]) -> str:
    """Return a chart of one line a row, from zero up; the steps are as far from each other as they are in powers."""
    marks = _marks(max(figure.median for row in rows for figure in row.figures))
    most = marks[-1]
    left, right, foot = 64, WIDTH - LABELS, TOP + PLOT

    def x(step: int) -> float:
        return left + step * (right - left) / (len(steps) - 1)

    def y(figure: float) -> float:
        return foot - figure / most * PLOT

    drawn = [part for figure in marks for part in _mark(figure, y(figure), left, right)]
    for number, step in enumerate(steps):
        drawn.append(f'<text class="soft" x="{x(number):.1f}" y="{foot + 18}" text-anchor="middle">{step}</text>')
    drawn.append(
        f'<text class="soft" x="{(left + right) / 2}" y="{foot + 38}" text-anchor="middle">{escape(along)}</text>'
    )
    ends = _apart([y(row.figures[-1].median) for row in rows])
    for number, (row, end) in enumerate(zip(rows, ends, strict=True)):
        points = " ".join(f"{x(i):.1f},{y(figure.median):.1f}" for i, figure in enumerate(row.figures))
        colour, dash = f"var(--c{number % 8})", "" if row.ours else " dash"
        drawn += [
            f'<polyline class="line{dash}" style="stroke: {colour}" points="{points}"/>',
            f'<text x="{right + 10}" y="{end + 4.5:.1f}" style="fill: {colour}">{escape(row.name)}</text>',
        ]
    return _drawing(title, unit, foot + 54, drawn)


def _bar(kind: str, top: float, width: float) -> str:
    return f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" rx="2"/>'


def _mark(figure: float, height: float, left: float, right: float) -> Iterator[str]:
    yield _rule("rule", left, height, right, height)
    yield f'<text class="soft" x="{left - 8}" y="{height + 4:.1f}" text-anchor="end">{figure:g}</text>'


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _drawing(title: str, unit: str, height: float, inside: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
        ' role="img" aria-labelledby="t">'
    )
    return "\n".join(
        (
            head,
            f'<title id="t">{escape(title)}: {escape(unit)}</title>',
            f"<style>\n{STYLE}</style>",
            f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="6"/>',
            f'<text class="head" x="16" y="27">{escape(title)}</text>',
            f'<text class="soft" x="16" y="46">{escape(unit)}</text>',
            *inside,
            "</svg>\n",
        )
    )


def _marks(most: float) -> list[float]:
    """Return where the horizontal rules are: round figures from zero up, of which the last is not below the most."""
    power = 10.0 ** math.floor(math.log10(most))
    step = next(part * power for part in (0.25, 0.5, 1, 2) if most <= 5 * part * power)
    return [round(number * step, 6) for number in range(math.ceil(most / step) + 1)]


def _apart(heights: Sequence[float], least: float = 17) -> list[float]:
    """Return heights moved so that no two labels lie upon each other, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = [heights[index] for index in order]
    for _ in range(100):
        for lower, upper in pairwise(range(len(moved))):
            missing = least - (moved[upper] - moved[lower])
            if missing > 0:
                moved[lower] -= missing / 2
                moved[upper] += missing / 2
    return [moved[order.index(index)] for index in range(len(heights))]
