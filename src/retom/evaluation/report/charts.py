"""Charts as SVG: quality against speed with the Pareto front, and the error by noise level."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from retom.evaluation.measures import ERROR, SPEED, Measure
from retom.evaluation.report.axes import Axis, Frame
from retom.evaluation.results import pareto
from retom.evaluation.tables import between, sorted_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.results import Results, Row

# Okabe and Ito's colours, told apart by every kind of sight; black and yellow replaced by greys.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#767676",
)  # fmt: skip
MOST_LINES = 6


def colours_of(results: Results) -> dict[str, str]:
    """A colour for each family of methods; the last is shared where there are many."""
    families = list(dict.fromkeys(row.family for row in results.merged))
    return {name: COLOURS[min(i, len(COLOURS) - 1)] for i, name in enumerate(families)}


def quality_against_speed(results: Results, measure: Measure, numbers: dict[str, int]) -> str:
    """A dot with its intervals for each contender that has both; nothing where none has."""
    rows = [r for r in results.merged if SPEED.key in r.values and measure.key in r.values]
    if not rows:
        return ""
    x = Axis.around([v for r in rows for v in _ends(r, SPEED)] + [1.0], SPEED.title)
    y = Axis.around([v for r in rows for v in _ends(r, measure)], measure.title)
    frame = Frame(x, y)
    colours = colours_of(results)
    front = pareto(rows, SPEED.key, measure.key, higher_is_better=measure.higher_is_better)
    steps = _steps(front, measure)
    parts = [
        frame.vertical(1.0, "un-merged"),
        f'<polyline class="front" points="{frame.points(steps)}"/>',
        *(_dot(row, measure, frame, colours[row.family], numbers[row.name]) for row in rows),
    ]
    better = "up" if measure.higher_is_better else "down"
    title = f"{measure.title} against speed"
    note = f"Better is right and {better}. The line is the Pareto front; numbers are the tables'."
    named = {row.family: colours[row.family] for row in rows}
    return _figure(title, frame.svg(parts, title), note, _legend(named))


def by_noise(results: Results, numbers: dict[str, int]) -> str:
    """Error at each noise level of the first few contenders, each ratio's best and the baseline."""
    rows: list[Row] = []
    for group in results.groups:
        ranked = [row for row in sorted_by(results.of(group), ERROR) if row.by_level]
        rows += ranked[: max(1, MOST_LINES // len(results.groups))]
        rows += [row for row in ranked if row.method == results.baseline and row not in rows]
    if not rows or len(results.timesteps) < 2:
        return ""
    x = Axis.around([float(t) for t in results.timesteps], "timestep (more noise to the right)")
    y = Axis.around([0.0, *(v for row in rows for v in row.by_level)], "denoiser error")
    frame = Frame(x, y)
    parts: list[str] = []
    named: dict[str, str] = {}
    for place, row in enumerate(rows):
        colour = named[f"{numbers[row.name]} {row.method}"] = COLOURS[place % len(COLOURS)]
        points = list(zip(map(float, results.timesteps), row.by_level, strict=True))
        # Marks stand at different levels, so that they do not hide each other.
        shown = points[-1 - place % len(points)]
        parts.append(
            f'<g style="--c:{colour}"><title>{escape(row.name)}</title>'
            f'<polyline class="line" points="{frame.points(points)}"/>'
            f"{_mark(frame, *shown, numbers[row.name])}</g>"
        )
    title = "Denoiser error by noise level"
    note = "The best of each ratio and the baseline; numbers are the tables'."
    return _figure(title, frame.svg(parts, title), note, _legend(named))


def _dot(row: Row, measure: Measure, frame: Frame, colour: str, number: int) -> str:
    speed, quality = row.values[SPEED.key], row.values[measure.key]
    title = (
        f"{row.name}: {measure.title} {between(quality, measure.digits)}, {SPEED.title} "
        f"{between(speed, SPEED.digits)}"
    )
    across = [(speed.low, quality.value), (speed.high, quality.value)]
    along = [(speed.value, quality.low), (speed.value, quality.high)]
    return (
        f'<g class="dot" style="--c:{colour}"><title>{escape(title)}</title>'
        f'<polyline class="bar" points="{frame.points(across)}"/>'
        f'<polyline class="bar" points="{frame.points(along)}"/>'
        f"{_mark(frame, speed.value, quality.value, number)}</g>"
    )


def _mark(frame: Frame, x: float, y: float, number: int) -> str:
    (cx, cy) = frame.place(x, y)
    return (
        f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="10"/>'
        f'<text class="number" x="{cx:.1f}" y="{cy + 4:.1f}">{number}</text>'
    )


def _steps(front: Sequence[Row], measure: Measure) -> list[tuple[float, float]]:
    """The front as a staircase: what can be had at least at each speed."""
    points = [(row.values[SPEED.key].value, row.values[measure.key].value) for row in front]
    found: list[tuple[float, float]] = []
    for place, (x, y) in enumerate(points):
        if place:
            found.append((points[place - 1][0], y))
        found.append((x, y))
    return found


def _ends(row: Row, measure: Measure) -> tuple[float, float]:
    return row.values[measure.key].low, row.values[measure.key].high


def _legend(colours: dict[str, str]) -> str:
    items = [f'<li><i style="--c:{c}"></i>{escape(name)}</li>' for name, c in colours.items()]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _figure(title: str, svg: str, note: str, legend: str) -> str:
    return (
        f"<figure><figcaption><strong>{escape(title)}</strong> {escape(note)}</figcaption>"
        f'<div class="scroll">{svg}</div>{legend}</figure>'
    )
