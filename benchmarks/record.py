"""What every result file carries and how it is printed: options, provenance, JSON, tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from retom.evaluation.provenance import caption as caption_of
from retom.evaluation.provenance import provenance as provenance_of
from retom.evaluation.store import write_whole

FORMAT = 1


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
    """Where a result comes from: what every result of retom says, and the seed."""
    words = ["python", f"benchmarks/{script}.py", *argv]
    return {**provenance_of(words, torch.device(options.device)), "seed": options.seed}


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
    write_whole(path, text.encode())
    progress(f"wrote {path}")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"| :-- |{' --: |' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def caption(source: Mapping[str, Any]) -> str:
    """One line below a table that says where it comes from."""
    return f"{caption_of(dict(source)).rstrip('.')}; seed {source['seed']}."
