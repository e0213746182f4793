"""The pictures: a row a prompt, a column a contender; pointing at one shows the un-merged one."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from retom.evaluation.report.tables import ranked, words
from retom.evaluation.results import FLOOR, UNMERGED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.results import Results, Row

MOST_ROWS = 8
MOST_COLUMNS = 8
LARGEST_SIDE = 320
"""Pictures are embedded at this many pixels at most, so that the file can be sent."""


def gallery(results: Results, numbers: dict[str, int]) -> str:
    """Pictures of the first few prompts; nothing where none were drawn."""
    drawn = {row.name: row for row in results.rows if row.pictures}
    if UNMERGED not in drawn:
        return ""
    columns = _columns(results, drawn)
    head = "".join(
        f'<th scope="col">{_numbered(row, numbers)}{words(_title(row))}</th>' for row in columns
    )
    quality = {
        (v.name, v.prompt, v.seed): v.value for v in results.sample_values if v.measure == "psnr"
    }
    places = _spread(len(results.samples), MOST_ROWS)
    body = [_row(results, columns, place, quality) for place in places]
    return (
        "<p>Point at a picture, or tap it, to see the un-merged one in its place. Small numbers: "
        f"PSNR to it in dB. {len(places)} of {len(results.samples)} pictures of each, evenly "
        "spread, not chosen.</p>"
        f'<div class="scroll"><table class="gallery"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _columns(results: Results, drawn: dict[str, Row]) -> list[Row]:
    """Un-merged, the best of each ratio and its baseline, and the other seed last."""
    share = max(1, (MOST_COLUMNS - 2) // max(1, len(results.groups)))
    merged: list[Row] = []
    for group in results.groups:
        having = [row for row in ranked(results.of(group)) if row.pictures]
        base = [row for row in having if row.method == results.baseline]
        first = having[:share]
        if base and base[0] not in first:
            first = [*having[: max(1, share - 1)], base[0]]
        merged += first
    floor = [drawn[FLOOR]] if FLOOR in drawn else []
    return [drawn[UNMERGED], *merged, *floor]


def _row(
    results: Results,
    columns: Sequence[Row],
    place: int,
    quality: dict[tuple[str, str, int], float],
) -> str:
    sample = results.samples[place]
    whole = _data(columns[0].pictures[place])
    cells: list[str] = []
    for row in columns:
        name = f"{row.name}: {sample.prompt}"
        decibels = quality.get((row.name, sample.prompt, sample.seed))
        below = "" if decibels is None else f"<small>{decibels:.1f}</small>"
        if row is columns[0]:
            cells.append(
                f'<td><div class="shot"><img src="{whole}" alt="{escape(name)}"></div></td>'
            )
            continue
        cells.append(
            f'<td><div class="shot flip" tabindex="0"><img src="{_data(row.pictures[place])}" '
            f'alt="{escape(name)}"></div>{below}</td>'
        )
    return (
        f'<tr class="caption"><td colspan="{len(columns)}">'
        f"<span>{escape(sample.prompt)}</span></td></tr>"
        f"<tr style=\"--whole:url('{whole}')\">{''.join(cells)}</tr>"
    )


def _data(path: str) -> str:
    """A picture as a data URI: WebP without loss, made smaller only where it is large."""
    from PIL import Image

    with Image.open(path) as image:
        picture = image.convert("RGB")
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _numbered(row: Row, numbers: dict[str, int]) -> str:
    return f"<b>{numbers[row.name]}</b> " if row.name in numbers else ""


def _title(row: Row) -> str:
    if row.ratio is None:
        return "another seed" if row.name == FLOOR else row.name
    scope = "" if row.scope == "attention" else f", {row.scope}"
    return f"{row.method}, {row.ratio:g}{scope}"


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` places from 0 to ``count``, evenly spread."""
    return sorted({i * count // min(count, most) for i in range(min(count, most))})
