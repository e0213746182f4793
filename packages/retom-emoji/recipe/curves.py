"""Draw the loss curves of all stages as one SVG, and gather the logs behind them in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 560, 150, 30


def read(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the log lines of each stage of a work folder."""
    logs: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(work.glob("*.jsonl")):
        lines = file.read_text("utf-8").splitlines()
        logs[file.stem] = [json.loads(line) for line in lines]
    return logs


def panel(name: str, lines: list[dict[str, Any]], top: int) -> str:
    """Draw one stage: loss over seconds of training, both axes from their smallest value."""
    seconds = [float(line["seconds"]) for line in lines]
    losses = [float(line["loss"]) for line in lines]
    low, high = min(losses), max(losses)
    span, length = high - low or 1.0, max(seconds) or 1.0
    points = " ".join(
        f"{MARGIN + s / length * (WIDTH - 2 * MARGIN):.1f},"
        f"{top + HEIGHT - MARGIN - (v - low) / span * (HEIGHT - 2 * MARGIN):.1f}"
        for s, v in zip(seconds, losses, strict=True)
    )
    title = f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}, {length:.0f} s"
    return (
        f'<text x="{MARGIN}" y="{top + MARGIN - 10}">{title}</text>'
        f'<polyline fill="none" stroke="#4274d2" points="{points}"/>'
    )


def write(work: Path, target: Path) -> None:
    """Write ``curves.svg`` and ``log.json`` from the logs of a work folder."""
    logs = {name: lines for name, lines in read(work).items() if lines}
    panels = [panel(name, lines, i * HEIGHT) for i, (name, lines) in enumerate(logs.items())]
    size = f'width="{WIDTH}" height="{HEIGHT * len(panels)}"'
    style = 'font-family="sans-serif" font-size="12"'
    (target / "curves.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n',
        "utf-8",
    )
    (target / "log.json").write_text(json.dumps(logs) + "\n", "utf-8")
