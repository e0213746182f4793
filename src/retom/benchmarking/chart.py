"""The plots of a benchmark as SVG files, by the frames and axes of the evaluation's report.

Two kinds of plot do not pay for a plotting package: these frames draw the report's already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from retom.benchmarking.lineup import ORACLE, is_oracle
from retom.evaluation.report.axes import Axis, Frame
from retom.evaluation.report.charts import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.benchmarking.result import Bench, Row
    from retom.benchmarking.scaling_result import Scaling

LINE = 22
LABELS = 420
WIDTH = 960
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#222}.tick,.axis{font-size:11px;fill:#555}"
    ".grid{stroke:#ddd}.mark{stroke:#888;stroke-dasharray:4 3}.middle{text-anchor:middle}"
    ".end{text-anchor:end}.bar,.line,circle{stroke-width:2}.line{fill:none}"
    ".title{font-weight:bold}"
    "</style>"
)


def speed_chart(bench: Bench) -> str:
    """The speed-up of every contender with its interval, case by case; the oracle's is hollow."""
    timed = [(case, [row for row in case.rows if row.speedup is not None]) for case in bench.cases]
    ends = [
        v for _, rows in timed for r in rows if r.speedup for v in (r.speedup.low, r.speedup.high)
    ]
    axis = Axis.around([*ends, 1.0], "speed-up over un-merged")
    parts: list[str] = []
    y = LINE
    for case, rows in timed:
        parts.append(f'<text class="title" x="8" y="{y + 4}">{escape(case.name)}</text>')
        y += LINE
        for place, row in enumerate(rows):
            parts.append(_row(row, axis, y, COLOURS[place % len(COLOURS)]))
            y += LINE
        y += LINE // 2
    bottom = y
    for tick in axis.ticks:
        x = _across(axis, tick)
        parts.insert(
            0,
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom}"/>'
            f'<text class="tick middle" x="{x:.1f}" y="{bottom + 16}">{axis.text(tick)}</text>',
        )
    one = _across(axis, 1.0)
    parts.append(f'<line class="mark" x1="{one:.1f}" x2="{one:.1f}" y1="8" y2="{bottom}"/>')
    middle = (LABELS + WIDTH) / 2
    parts.append(
        f'<text class="axis middle" x="{middle}" y="{bottom + 34}">{escape(axis.title)} '
        f"(hollow: {ORACLE}, merging that costs nothing)</text>"
    )
    return as_file(
        f'<svg viewBox="0 0 {WIDTH} {bottom + 44}" role="img" '
        f'aria-label="{escape(bench.model)}">{"".join(parts)}</svg>'
    )


def scaling_chart(scaling: Scaling) -> str:
    """Milliseconds of plan, merge and un-merge against tokens, both axes logarithmic."""
    tokens = [point.tokens for line in scaling.lines for point in line.points]
    times = [1e3 * point.seconds for line in scaling.lines for point in line.points]
    frame = Frame(
        LogAxis.of(tokens, "tokens N", 2), LogAxis.of(times, "plan + merge + un-merge, ms", 10)
    )
    parts: list[str] = []
    for place, line in enumerate(scaling.lines):
        colour = COLOURS[place % len(COLOURS)]
        points = [(math.log10(p.tokens), math.log10(1e3 * p.seconds)) for p in line.points]
        dots = [frame.place(*point) for point in points]
        slope = "" if line.slope is None else f", slope {line.slope.value:.2f}"
        parts.append(
            f'<g fill="{colour}" stroke="{colour}">'
            f'<polyline class="line" points="{frame.points(points)}"/>'
            + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
            + f'<circle cx="{Frame.LEFT + 14}" cy="{Frame.TOP + 12 + 18 * place}" r="4"/></g>'
            f'<text x="{Frame.LEFT + 24}" y="{Frame.TOP + 16 + 18 * place}">'
            f"{escape(line.method)}{slope}</text>"
        )
    return as_file(frame.svg(parts, "plan + merge + un-merge against tokens"))


@dataclass(frozen=True, slots=True)
class LogAxis(Axis):
    """An axis of logarithms to base ten; its ticks are named by the numbers themselves."""

    @staticmethod
    def of(values: Sequence[float], title: str, base: int) -> LogAxis:
        """The axis that holds these values, with a tick at each power of ``base`` or every other.

        Example:
            >>> axis = LogAxis.of([1024, 4096], "tokens", 2)
            >>> [axis.text(tick) for tick in axis.ticks]
            ['1024', '2048', '4096']
        """
        low, high = math.log10(min(values)), math.log10(max(values))
        room = 0.06 * (high - low) or 0.05
        low, high = low - room, high + room
        step = math.log10(base)
        powers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        every = max(1, math.ceil(len(powers) / 9))
        return LogAxis(low, high, tuple(power * step for power in powers[::every]), title)

    def text(self, value: float) -> str:
        """The number that ``value`` is the logarithm of."""
        return f"{round(10**value, 6):g}" if value < 3 else f"{round(10**value)}"


def _row(row: Row, axis: Axis, y: int, colour: str) -> str:
    assert row.speedup is not None
    low, value, high = (
        _across(axis, v) for v in (row.speedup.low, row.speedup.value, row.speedup.high)
    )
    fill = "#fff" if is_oracle(row.method) else colour
    return (
        f'<g><text class="end" x="{LABELS - 14}" y="{y + 4}">'
        f"{escape(row.label)}</text>"
        f'<line class="bar" stroke="{colour}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle fill="{fill}" stroke="{colour}" cx="{value:.1f}" cy="{y}" r="5"/></g>'
    )


def _across(axis: Axis, value: float) -> float:
    return LABELS + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LABELS - 20)


def as_file(svg: str) -> str:
    """A chart of a page as a file of its own."""
    head, rest = svg.split(">", 1)
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{paper}{rest}\n'
