"""Results as Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.evaluation.against import halves_label
from retom.evaluation.equivalence import EXPLAINED, JUDGED, judgements, margins
from retom.evaluation.measures import (
    ALIGNMENT,
    ARTEFACTS,
    COSINE,
    ERROR,
    FRECHET,
    KID,
    PSNR,
    SPEED,
    SSIM,
    Measure,
)
from retom.evaluation.provenance import caption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retom.evaluation.results import Results, Row
    from retom.metrics import Estimate

PICTURE_MEASURES: tuple[Measure, ...] = (PSNR, SSIM, COSINE, ARTEFACTS, KID, FRECHET, ALIGNMENT)
COMPARED: tuple[Measure, ...] = (PSNR, SSIM, KID, FRECHET, ALIGNMENT)
"""Measures whose difference to the baseline stands in the tables."""


def markdown(results: Results) -> str:
    """Everything as Markdown: settings, a table of the screening and one of pictures by group."""
    parts = ["### Settings\n\n" + "\n".join(f"- {line}" for line in setting_lines(results))]
    for group in results.groups:
        title = f"ratio {group[0]:g}, scope {group[1]}"
        rows = sorted_by(results.of(group), ERROR)
        if rows:
            references = [r for r in results.rows if r.ratio is None and ERROR.key in r.values]
            screened = _screening(results, [*rows, *references])
            parts.append(f"### Denoiser error, {title}\n\n{screened}")
        rows = sorted_by(results.of(group), PSNR)
        if rows:
            references = [row for row in results.rows if row.ratio is None and row.pictures]
            parts.append(f"### Pictures, {title}\n\n{_pictures(results, [*rows, *references])}")
            judged = _against_unmerged(results, [*rows, *references])
            if judged:
                parts.append(f"### Against un-merged, {title}\n\n{judged}")
    if results.left_out:
        lines = [f"- {name}: {reason}" for name, reason in results.left_out.items()]
        parts.append("### Left out\n\n" + "\n".join(lines))
    meanings = [f"- {m.title}: {m.meaning}" for m in used_measures(results)]
    parts.append("### Measures\n\n" + "\n".join([*meanings, f"- {BRACKETS}"]))
    parts.append(caption(results.sources[-1]))
    return "\n\n".join(parts) + "\n"


BRACKETS = (
    "Brackets: 95 % bootstrap intervals, over prompts for pictures and errors, over rounds for "
    "speed, over pictures for KID and Fréchet. Differences are paired. An interval that holds 0 is "
    "no difference."
)


def setting_lines(results: Results) -> list[str]:
    """What the numbers depend on, one line each."""
    content, settings = results.content, results.settings
    prompts, seeds = len(settings["prompts"]), list(settings["seeds"])
    lines = [
        f"model: {results.model} ({content['model']})",
        f"{prompts} prompts x seeds {', '.join(map(str, seeds))}, {content['steps']} steps, "
        f"guidance {content['guidance']:g}, {content['height']}x{content['width']} px (height x "
        "width)",
        f"levels: {settings['levels']}, {content['dtype']} on {content['device']}",
    ]
    if settings.get("screened"):
        lines.append(f"screened: the first {settings['screened']} prompts, at the first seed")
    if results.extractor:
        lines.append(f"features: {results.extractor}")
    if results.reference:
        lines.append(f"KID and Fréchet distance to {results.reference}")
    commits = sorted({str(source["commit"])[:12] for source in results.sources})
    lines.append(f"measured at commit: {', '.join(commits)}")
    return lines + results.notes


def used_measures(results: Results) -> list[Measure]:
    """Measures that occur, in their order."""
    every = (SPEED, ERROR, *PICTURE_MEASURES)
    return [m for m in every if any(m.key in row.values for row in results.rows)]


def sorted_by(rows: Iterable[Row], measure: Measure) -> list[Row]:
    """Rows that have a measure, the best first."""
    sign = -1 if measure.higher_is_better else 1
    having = [row for row in rows if measure.key in row.values]
    return sorted(having, key=lambda row: sign * row.values[measure.key].value)


def between(estimate: Estimate | None, digits: int, *, signed: bool = False) -> str:
    """An estimate as text: ``1.32 [1.30, 1.35]``; nothing for None."""
    if estimate is None:
        return ""
    value, low, high = written(estimate, digits, signed=signed)
    return f"{value} [{low}, {high}]"


def written(estimate: Estimate, digits: int, *, signed: bool = False) -> tuple[str, str, str]:
    """Its value and its interval's ends as text; a floor that such digits cannot show as a power.

    Example:
        >>> from retom.metrics import Estimate
        >>> written(Estimate("error", 0.0512, 0.05, 0.0524, 16), 4)
        ('0.0512', '0.0500', '0.0524')
        >>> written(Estimate("error", 2.1e-7, 2e-7, 2.4e-7, 16), 4)
        ('2e-07', '2e-07', '2e-07')
    """
    tiny = not signed and 0 < estimate.value < 0.5 * 10**-digits
    form = ".0e" if tiny else f"{'+' if signed else ''}.{digits}f"
    value, low, high = (f"{n:{form}}" for n in (estimate.value, estimate.low, estimate.high))
    return value, low, high


def label(row: Row) -> str:
    """A row's method, marked where it computes on other tokens."""
    return row.method + (" †" if row.other_tokens else "")


def _screening(results: Results, rows: Sequence[Row]) -> str:
    compared = results.baseline is not None
    header = ["method", "n", ERROR.title, *([f"minus {results.baseline}"] if compared else [])]
    header += [*(f"t={t}" for t in results.timesteps), SPEED.title]
    cells: list[list[str]] = []
    for row in rows:
        own = [label(row), str(row.values["error"].n), between(row.values["error"], ERROR.digits)]
        if compared:
            own.append(between(row.differences.get("error"), ERROR.digits, signed=True))
        least = 0.5 * 10**-ERROR.digits
        own += [f"{e:.0e}" if 0 < e < least else f"{e:.{ERROR.digits}f}" for e in row.by_level]
        cells.append([*own, between(row.values.get("speedup"), SPEED.digits)])
    return table(header, cells)


def _pictures(results: Results, rows: Sequence[Row]) -> str:
    measures = [m for m in PICTURE_MEASURES if any(m.key in row.values for row in rows)]
    compared = COMPARED if results.baseline is not None else ()
    header = ["method", "n"]
    for measure in measures:
        header.append(measure.title)
        if measure in compared:
            header.append(f"minus {results.baseline}")
    header.append(SPEED.title)
    cells: list[list[str]] = []
    for row in rows:
        own = [label(row), str(len(row.pictures))]
        for measure in measures:
            own.append(between(row.values.get(measure.key), measure.digits))
            if measure in compared:
                other = row.differences.get(measure.key)
                own.append(between(other, measure.digits, signed=True))
        cells.append([*own, between(row.values.get("speedup"), SPEED.digits)])
    if results.floors:
        cells.append(_halves(results, measures))
    return table(header, cells)


def _halves(results: Results, measures: Sequence[Measure]) -> list[str]:
    """The floor of sets: one half of the real pictures against the other."""
    cells = [halves_label(), str(next(iter(results.floors.values())).n)]
    for measure in measures:
        cells.append(between(results.floors.get(measure.key), measure.digits))
        cells += [""] if measure in COMPARED and results.baseline is not None else []
    return [*cells, ""]


def _against_unmerged(results: Results, rows: Sequence[Row]) -> str:
    """Differences to un-merged with a verdict each; nothing where there is no margin."""
    limits = margins(results)
    measures = [m for m in JUDGED if m.key in limits]
    if not measures:
        return ""
    header = ["method", "n"]
    for measure in measures:
        header += [f"{measure.title} minus un-merged", f"margin {limits[measure.key]:.2g}"]
    cells: list[list[str]] = []
    for row in rows:
        found = judgements(results, row)
        if not found:
            continue
        own = [label(row), str(len(row.pictures))]
        for measure in measures:
            one = found.get(measure.key)
            own.append(between(one and one.difference, measure.digits, signed=True))
            own.append("the margin's own" if row.ratio is None else one.word if one else "")
        cells.append(own)
    return f"{table(header, cells)}\n\n{EXPLAINED}" if cells else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"| :-- |{' --: |' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
