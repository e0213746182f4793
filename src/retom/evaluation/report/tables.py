"""Tables of the report: a row a contender, intervals below the numbers, sortable."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from retom.evaluation.against import halves_label
from retom.evaluation.equivalence import EXPLAINED, JUDGED, judgements, margins
from retom.evaluation.measures import ERROR, PSNR, SPEED, Measure
from retom.evaluation.report.charts import colours_of
from retom.evaluation.tables import (
    BRACKETS,
    COMPARED,
    PICTURE_MEASURES,
    label,
    sorted_by,
    used_measures,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.results import Results, Row
    from retom.metrics import Estimate


def numbered(results: Results) -> dict[str, int]:
    """A number for each contender, group by group, in the order of the tables."""
    rows = [row for group in results.groups for row in ranked(results.of(group))]
    return {row.name: place for place, row in enumerate(rows, start=1)}


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Those with pictures by PSNR, then those with errors alone, then the others."""
    found = sorted_by(rows, PSNR)
    found += [row for row in sorted_by(rows, ERROR) if row not in found]
    return found + [row for row in rows if row not in found]


def group_table(results: Results, group: tuple[float, str], numbers: dict[str, int]) -> str:
    """The table of one ratio and scope, with the floors below, and what it says of un-merged."""
    rows = ranked(results.of(group))
    measures = _present((SPEED, ERROR, *PICTURE_MEASURES), rows)
    columns = [(m, False) for m in measures]
    compared = [m for m in measures if m in (ERROR, *COMPARED) and _differs(m, rows)]
    for measure in compared:
        columns.insert(columns.index((measure, False)) + 1, (measure, True))
    best = {m.key: sorted_by(rows, m)[0].name for m in measures if len(sorted_by(rows, m)) > 1}
    colours = colours_of(results)
    head = "".join(_heading(measure, results.baseline, other) for measure, other in columns)
    body: list[str] = []
    for row in rows:
        cells = "".join(_cell(row, measure, best, other=other) for measure, other in columns)
        base = " (baseline)" if row.method == results.baseline else ""
        body.append(
            f'<tr><th scope="row"><i style="--c:{colours[row.family]}">{numbers[row.name]}</i>'
            f"<span>{words(label(row))}{base}<small>{_count(row)}</small></span></th>{cells}</tr>"
        )
    foot = _references(results, columns)
    main = _table(f'<th scope="col">method</th>{head}', body, foot)
    return main + equivalence_table(results, rows, numbers)


def equivalence_table(results: Results, rows: Sequence[Row], numbers: dict[str, int]) -> str:
    """What rows differ from un-merged by in sets of pictures, and whether that is something."""
    limits = margins(results)
    measures = [m for m in JUDGED if m.key in limits]
    colours = colours_of(results)
    body: list[str] = []
    for row in rows:
        found = judgements(results, row)
        if not found:
            continue
        cells = ""
        for measure in measures:
            one = found.get(measure.key)
            kind = {"worse": ' class="bad"', "open": ' class="other"'}.get(one.word if one else "")
            cells += f"<td>{_number(one and one.difference, measure, signed=True)}</td>"
            cells += f"<td{kind or ''}>{one.word if one else ''}</td>"
        body.append(
            f'<tr><th scope="row"><i style="--c:{colours[row.family]}">{numbers[row.name]}</i>'
            f"<span>{words(label(row))}<small>{_count(row)}</small></span></th>{cells}</tr>"
        )
    if not body:
        return ""
    head = "".join(
        f'<th scope="col">{escape(m.title)} minus un-merged</th>'
        f'<th scope="col">margin {limits[m.key]:.2g}</th>'
        for m in measures
    )
    table = _table(f'<th scope="col">against un-merged</th>{head}', body)
    return f"{table}<p>{escape(EXPLAINED)}</p>"


def references_table(results: Results) -> str:
    """Un-merged pictures, another seed's, and two halves of the real ones."""
    rows = [row for row in results.rows if row.ratio is None]
    measures = _present(PICTURE_MEASURES, rows)
    body = _references(results, [(measure, False) for measure in measures])
    if not body:
        return ""
    head = "".join(_heading(measure, None, other=False) for measure in measures)
    note = (
        "<p>What no merging at all scores: differences smaller than these floors are noise of the "
        "model or of the measure.</p>"
    )
    return note + _table(f'<th scope="col">reference</th>{head}', body)


def _references(results: Results, columns: Sequence[tuple[Measure, bool]]) -> list[str]:
    """Rows of what no merging scores, with nothing in columns of differences."""
    shown = {measure.key for measure, _ in columns}
    rows = [row for row in results.rows if row.ratio is None and shown & row.values.keys()]
    body = [
        f'<tr><th scope="row"><span>{escape(row.name)}<small>{_count(row)}</small></span></th>'
        f"{''.join('<td></td>' if d else _cell(row, m, {}, other=False) for m, d in columns)}</tr>"
        for row in rows
    ]
    if results.floors:
        n = next(iter(results.floors.values())).n
        cells = "".join(
            f"<td>{'' if d else _number(results.floors.get(m.key), m)}</td>" for m, d in columns
        )
        body.append(
            f'<tr><th scope="row"><span>{halves_label()}'
            f"<small>n = {n} each</small></span></th>{cells}</tr>"
        )
    return body


def glossary(results: Results) -> str:
    """What each measure is."""
    items = "".join(
        f"<dt>{escape(m.title)} {'↑' if m.higher_is_better else '↓'}</dt>"
        f"<dd>{escape(m.meaning)}</dd>"
        for m in used_measures(results)
    )
    features = (
        f"<p>Features: {escape(results.extractor)}. Distances on them are comparable among "
        "themselves only.</p>"
        if results.extractor
        else ""
    )
    if results.reference:
        features += f"<p>KID and Fréchet distance are to {escape(results.reference)}.</p>"
    return f"<dl>{items}</dl>{features}<p>{escape(BRACKETS)}</p>"


def words(name: str) -> str:
    """A name as HTML that may break behind a colon, a comma or an underscore."""
    text = escape(name)
    for mark in (":", ",", "_"):
        text = text.replace(mark, f"{mark}<wbr>")
    return text


def _present(measures: Sequence[Measure], rows: Sequence[Row]) -> list[Measure]:
    return [m for m in measures if any(m.key in row.values for row in rows)]


def _differs(measure: Measure, rows: Sequence[Row]) -> bool:
    return any(measure.key in row.differences for row in rows)


def _heading(measure: Measure, baseline: str | None, other: bool) -> str:  # noqa: FBT001
    arrow = "↑" if measure.higher_is_better else "↓"
    if other:
        return f'<th scope="col" class="other">minus {escape(str(baseline))}</th>'
    return f'<th scope="col" title="{escape(measure.meaning)}">{escape(measure.title)} {arrow}</th>'


def _cell(row: Row, measure: Measure, best: dict[str, str], *, other: bool) -> str:
    found = (row.differences if other else row.values).get(measure.key)
    if found is None:
        return "<td></td>"
    classes: list[str] = []
    if other:
        classes.append("other")
        sign = 1 if measure.higher_is_better else -1
        if found.low > 0 or found.high < 0:
            classes.append("good" if sign * found.value > 0 else "bad")
    elif best.get(measure.key) == row.name:
        classes.append("best")
    own = f' class="{" ".join(classes)}"' if classes else ""
    return f'<td{own} data-value="{found.value!r}">{_number(found, measure, signed=other)}</td>'


def _number(found: Estimate | None, measure: Measure, *, signed: bool = False) -> str:
    if found is None:
        return ""
    value, low, high = written(found, measure.digits, signed=signed)
    return f"{value}<small>{low} … {high}</small>".replace("-", "−")


def _count(row: Row) -> str:
    if row.pictures:
        return f"{len(row.pictures)} pictures"
    return f"{row.values['error'].n} prompts, no pictures" if "error" in row.values else "timed"


def _table(head: str, body: Sequence[str], foot: Sequence[str] = ()) -> str:
    below = f"<tfoot>{''.join(foot)}</tfoot>" if foot else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody>{below}</table></div>"
    )
