"""What ``retom eval`` prints: tables for people, a record for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retom.evaluation.measures import ALIGNMENT, ERROR, KID, PSNR, SPEED, SSIM
from retom.evaluation.tables import between, label, setting_lines, sorted_by

if TYPE_CHECKING:
    from pathlib import Path

    from retom.evaluation.results import Results, Row

_WIDTH = 200

FORMAT = 1
"""Version of the record; it grows by keys alone as long as this stays."""


def record_of(results: Results) -> dict[str, Any]:
    """Everything but the single numbers, as plain data for JSON."""
    return {
        "format": FORMAT,
        **results.about(),
        "rows": [_row(row) for row in results.rows],
        "floors": {key: asdict(estimate) for key, estimate in results.floors.items()},
    }


def print_json(results: Results) -> None:
    """Print the record, and nothing else, on stdout."""
    json.dump(record_of(results), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


def print_results(results: Results, files: list[Path]) -> None:
    """Print a table for each ratio and scope, and where the files are, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # lines may wrap; numbers must not
    for line in setting_lines(results):
        console.print(Text(line, style="dim"))
    for group in results.groups:
        rows = results.of(group)
        drawn = sorted_by(rows, PSNR)
        rest = [row for row in sorted_by(rows, ERROR) if row not in drawn]
        console.print(Text(f"\nratio {group[0]:g}, scope {group[1]}", style="bold"))
        console.print(_table([*drawn, *rest, *(r for r in results.rows if r.ratio is None)]))
    for name, reason in results.left_out.items():
        console.print(Text(f"left out: {name}: {reason}", style="dim"))
    console.print(Text("\nWritten: " + ", ".join(map(str, files))))


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("method")
    shown = (SPEED, ERROR, PSNR, SSIM, KID, ALIGNMENT)
    own = [row for row in rows if row.ratio is not None]
    measures = [m for m in shown if any(m.key in row.values for row in own)]
    rows = own + [r for r in rows if r.ratio is None and any(m.key in r.values for m in measures)]
    for measure in measures:
        table.add_column(measure.title, justify="right")
    for row in rows:
        table.add_row(label(row), *(between(row.values.get(m.key), m.digits) for m in measures))
    return table


def _row(row: Row) -> dict[str, Any]:
    data = asdict(row)
    data["pictures"] = len(row.pictures)
    return data
