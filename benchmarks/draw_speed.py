"""The picture of ``equal_speed``: how close methods stay to the un-merged picture, and how fast.

``python benchmarks/draw_speed.py benchmarks/results/equal_speed.json docs/images/equal_speed.svg``
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

from retom.benchmarking.chart import as_file
from retom.benchmarking.files import described
from retom.evaluation.report.axes import Axis, Frame
from retom.evaluation.report.charts import COLOURS

LINES = {
    "ReToM, the defaults": ("retom", "attention", "beyond"),
    "ToMe with both of our additions": ("tome:kv_lean=0.6,size_weighted=true", "attention"),
    "SDTM, weighted by size": ("sdtm:size_weighted=true", "attention"),
    "SiTo, weighted by size": ("sito:size_weighted=true", "attention"),
    "tomesd 0.1.3": ("tomesd", "attention"),
    "ToMA, a plan for the level": ("toma:share=level", "attention", "beyond"),
}
"""What is drawn: a method, and the runs that it is in."""


def main() -> None:
    """Read a result and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="equal_speed.json")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    options = parser.parse_args()
    runs = json.loads(options.result.read_text("utf-8"))
    lines = {name: _points(runs, *where) for name, where in LINES.items()}
    words = "PSNR to the un-merged picture against speed-up, a line a method: " + "; ".join(
        f"{name} " + ", ".join(f"{p['psnr']['value']:.1f} dB at {p['speedup']['value']:.2f}x"
                               for p in points)
        for name, points in lines.items()
    )  # fmt: skip
    options.picture.write_text(described(_picture(lines), words), encoding="utf-8")


def _points(runs: dict[str, Any], method: str, *names: str) -> list[dict[str, Any]]:
    """Speed and closeness of a method at each ratio, the lowest ratio first."""
    rows = [row for name in names for row in runs[name]["rows"] if row["method"] == method]
    return [row["values"] for row in sorted(rows, key=lambda row: row["ratio"])]


def _picture(lines: dict[str, list[dict[str, Any]]]) -> str:
    every = [point for points in lines.values() for point in points]
    across = [end for p in every for end in (p["speedup"]["low"], p["speedup"]["high"])]
    up = [end for p in every for end in (p["psnr"]["low"], p["psnr"]["high"])]
    frame = Frame(
        Axis.around(across, "speed-up of a denoiser call"),
        Axis.around(up, "PSNR to the un-merged picture (dB)"),
    )
    parts = [frame.vertical(1.0, "un-merged")]
    for place, (name, points) in enumerate(lines.items()):
        line = [(p["speedup"]["value"], p["psnr"]["value"]) for p in points]
        bars = [
            bar
            for p, (x, y) in zip(points, line, strict=True)
            for bar in (
                [(p["speedup"]["low"], y), (p["speedup"]["high"], y)],
                [(x, p["psnr"]["low"]), (x, p["psnr"]["high"])],
            )
        ]
        dots = [frame.place(*point) for point in line]
        left, top = Frame.WIDTH - 208, Frame.TOP + 16 + 17 * place
        parts.append(
            f'<g fill="{COLOURS[place]}" stroke="{COLOURS[place]}">'
            f'<polyline class="line" points="{frame.points(line)}"/>'
            + "".join(f'<polyline class="bar" opacity=".35" points="{frame.points(b)}"/>'
                      for b in bars)
            + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
            + f'<circle cx="{left}" cy="{top - 4}" r="4"/></g>'
            f'<text x="{left + 10}" y="{top}">{escape(name)}</text>'
        )  # fmt: skip
    return as_file(frame.svg(parts, "PSNR against speed-up"))


if __name__ == "__main__":
    main()
