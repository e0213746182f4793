"""What every result file carries and how it is printed: options, provenance, JSON, tables."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import retom
from retom.evaluation.provenance import PACKAGES, cpu_model, version_of

FORMAT = 1
ROOT = Path(__file__).resolve().parent.parent


def progress(message: str) -> None:
    """Write one line to stderr; stdout is for the tables."""
    print(message, file=sys.stderr, flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every script takes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results here as JSON")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    made.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    made.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs at all")
    return made


def provenance(options: argparse.Namespace, argv: Sequence[str], script: str) -> dict[str, Any]:
    """Where a result comes from: command, commit, seed, versions and hardware."""
    device = torch.device(options.device)
    versions = {"python": platform.python_version(), "retom": retom.__version__}
    versions |= {name: version_of(name) for name in PACKAGES}
    kept = ("MALLOC_", "OMP_", "MKL_")
    return {
        "command": command_line(script, argv),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "src", "benchmarks")),
        "seed": options.seed,
        "versions": versions,
        "hardware": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "load_average_at_start": round(os.getloadavg()[0], 2),
        },
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(kept)},
    }


def command_line(script: str, argv: Sequence[str]) -> str:
    """The command as others would type it: paths outside the repository lose their folders."""
    shown = [_portable(word) for word in argv]
    return shlex.join(["python", f"benchmarks/{script}.py", *shown])


def write_json(
    path: Path | None, benchmark: str, source: Mapping[str, Any], results: Mapping[str, Any]
) -> None:
    """Write a result file whole or not at all; without a path do nothing.

    Raises:
        ValueError: A number is infinite or not a number, which JSON cannot hold.
    """
    if path is None:
        return
    document = {"format": FORMAT, "benchmark": benchmark, "provenance": source, **results}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    progress(f"wrote {path}")


def _portable(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    inside = path.resolve()
    return str(inside.relative_to(ROOT)) if inside.is_relative_to(ROOT) else f"…/{path.name}"


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"| :-- |{' --: |' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def between(estimate: Mapping[str, float], digits: int = 2) -> str:
    """An interval as text: ``1.32 [1.30, 1.35]``."""
    value, low, high = (f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def caption(source: Mapping[str, Any]) -> str:
    """One line below a table that says where it comes from."""
    versions = ", ".join(f"{name} {number}" for name, number in source["versions"].items())
    hardware = source["hardware"]
    commit = (source["commit"] or "unknown")[:12] + ("+" if source["uncommitted_changes"] else "")
    return (
        f"`{source['command']}`; commit {commit}, seed {source['seed']}, {source['time_utc']}; "
        f"{hardware['cpu']}, {hardware['threads']} threads, device {hardware['device']}, load "
        f"average {hardware['load_average_at_start']} at start; {versions}."
    )
