"""What the numbers say, in sentences: the closest and the fastest of each ratio, and how sure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from retom.evaluation.equivalence import JUDGED, judgements
from retom.evaluation.measures import ERROR, KID, PSNR, SPEED, Measure
from retom.evaluation.results import FLOOR, pareto
from retom.evaluation.tables import between, sorted_by

if TYPE_CHECKING:
    from retom.evaluation.results import Results, Row


def findings(results: Results) -> str:
    """One card for each ratio and scope."""
    cards = [_card(results, group) for group in results.groups]
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(results: Results, group: tuple[float, str]) -> str:
    rows = results.of(group)
    measure = PSNR if any("psnr" in row.values for row in rows) else ERROR
    ranked = sorted_by(rows, measure)
    head = f"<h3>{group[0]:.0%} of the tokens removed<span>{escape(group[1])}</span></h3>"
    if not ranked:
        return f'<article class="card">{head}<p>Nothing measured yet.</p></article>'
    best = ranked[0]
    lines = [_best(best, measure, len(ranked))]
    if measure is PSNR:
        lines.append(_floor(results))
    lines += [_against_baseline(results, best, measure), _against_unmerged(results, best)]
    lines.append(_front(rows, measure))
    text = "".join(f"<p>{line}</p>" for line in lines if line)
    return f'<article class="card">{head}{text}</article>'


def _best(best: Row, measure: Measure, of: int) -> str:
    value = best.values[measure.key]
    speed = best.values.get(SPEED.key)
    faster = f", {speed.value:.2f}× as fast" if speed else ""
    what = "closest to un-merged" if measure is PSNR else "least in denoiser error"
    unit = " dB" if measure is PSNR else ""
    return (
        f'<strong class="big">{value.value:.{measure.digits}f}{unit}</strong> '
        f"<code>{escape(best.method)}</code> is {what} of {of}, interval "
        f"[{value.low:.{measure.digits}f}, {value.high:.{measure.digits}f}]{faster}."
    )


def _floor(results: Results) -> str:
    floor = next((row for row in results.rows if row.name == FLOOR), None)
    if floor is None or "psnr" not in floor.values:
        return ""
    return f"Another seed of the same prompt: {floor.values['psnr'].value:.1f} dB."


def _against_baseline(results: Results, best: Row, measure: Measure) -> str:
    if results.baseline is None or best.method == results.baseline:
        return ""
    lines: list[str] = []
    for each in (measure, KID):
        found = best.differences.get(each.key)
        if found is None:
            continue
        sure = found.low > 0 or found.high < 0
        verdict = "" if sure else ": no difference shown"
        lines.append(
            f"{escape(each.title)} minus {escape(results.baseline)}: "
            f"{between(found, each.digits, signed=True)}{verdict}."
        )
    return " ".join(lines)


def _against_unmerged(results: Results, best: Row) -> str:
    found = judgements(results, best)
    said = [
        f"{escape(measure.title)} {found[measure.key].word}"
        f" ({between(found[measure.key].difference, measure.digits, signed=True)},"
        f" margin {found[measure.key].margin:.2g})"
        for measure in JUDGED
        if measure.key in found
    ]
    return f"Against un-merged pictures: {'; '.join(said)}." if said else ""


def _front(rows: list[Row], measure: Measure) -> str:
    front = pareto(rows, SPEED.key, measure.key, higher_is_better=measure.higher_is_better)
    if len(front) < 2:
        return ""
    names = ", ".join(f"<code>{escape(row.method)}</code>" for row in front)
    return f"Not beaten in speed and quality at once: {names}."
