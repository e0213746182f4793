"""The files of a benchmark: JSON, CSV, Markdown and a plot, in one folder."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from retom.benchmarking.chart import scaling_chart, speed_chart
from retom.benchmarking.result import Bench
from retom.errors import OutputError
from retom.evaluation.provenance import caption
from retom.evaluation.store import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from retom.benchmarking.scaling_result import Scaling


def check_folder(folder: Path) -> None:
    """Make a folder and try it out, before the work whose results it is to hold.

    Raises:
        OutputError: It cannot be made or written.
    """
    trial = folder / ".retom-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder} cannot hold results: {reason}.") from error


def write_files(found: Bench | Scaling, folder: Path) -> list[Path]:
    """Write everything, and say where; files that are there are replaced.

    Raises:
        OutputError: A file cannot be written.
    """
    name = "bench" if isinstance(found, Bench) else "scaling"
    drawn = speed_chart(found) if isinstance(found, Bench) else scaling_chart(found)
    chart = described(drawn, caption(found.source))
    data = json.dumps(found.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    texts = {"json": data + "\n", "csv": found.csv(), "md": str(found), "svg": chart}
    paths: list[Path] = []
    for ending, text in texts.items():
        paths.append(folder / f"{name}.{ending}")
        write_whole(paths[-1], text.encode())
    return paths


def described(svg: str, words: str) -> str:
    """A chart with words inside that programs show beside it."""
    head, rest = svg.split(">", 1)
    return f"{head}><desc>{escape(words)}</desc>{rest}"
