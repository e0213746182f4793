"""What ``retom generate`` says of a picture: the record, the printed result, the sheet's words."""

from __future__ import annotations

import json
import math
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import retom
from retom.drawing.sheet import GAIN, Panel, difference_map, sheet
from retom.methods import METHODS
from retom.noise import EVERY

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from retom.config import Config
    from retom.drawing.generation import Result, Series, Settings
    from retom.drawing.loading import Model

FORMAT = 1
"""Version of the record; it grows by keys alone as long as this stays."""

Record = dict[str, Any]


def record_of(
    model: Model, settings: Settings, config: Config, result: Result, output: Path
) -> Record:
    """Everything about a picture as plain data: printed by ``--json`` and stored in the file.

    Times are in seconds. ``psnr`` is None for identical pictures, where it is infinite; ``levels``
    is empty where nothing merged.
    """
    summary = result.summary
    return {
        "format": FORMAT,
        "output": str(output),
        "prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt,
        "seed": settings.seed,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "height": settings.height,
        "width": settings.width,
        "model": model.name,
        "config": config.to_dict(),
        "levels": summary.to_dict()["levels"] if summary.seen else [],
        "skipped": list(summary.told),
        "merged": _times(result.merged),
        "comparison": _comparison(result),
        "environment": {
            "retom": retom.__version__,
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
            "transformers": version("transformers"),
            "python": platform.python_version(),
            "pipeline": type(model.pipe).__name__,
            "device": _device_name(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        },
    }


def picture_of(record: Record, result: Result) -> Image:
    """What to save: the merged picture, or the comparison sheet.

    The sheet shows nothing that was timed, so the same command gives the same pixels.
    """
    if result.comparison is None:
        return result.merged.image
    comparison = record["comparison"]
    before, after = (
        ", ".join(f"{level[key]}" for level in _merging(record)) or "all"
        for key in ("tokens", "kept")
    )
    pictures = result.comparison.unmerged.image, result.merged.image
    panels = [
        Panel(pictures[0], "un-merged", f"{before} tokens"),
        Panel(pictures[1], "merged", f"{after} tokens"),
        Panel(
            difference_map(*pictures),
            f"difference x{GAIN}",
            f"PSNR {_decibels(comparison)} · SSIM {comparison['ssim']:.4f}",
        ),
    ]
    return sheet(panels, title=record["prompt"], caption=" · ".join(_facts(record)))


def print_json(record: Record) -> None:
    """Print the record, and nothing else, on stdout."""
    json.dump(record, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


def print_result(record: Record) -> None:
    """Print the record for people, on stdout."""
    environment = record["environment"]
    console = Console(highlight=False, soft_wrap=True)
    threads = f"{environment['threads']} thread{'s' if environment['threads'] > 1 else ''}"
    where = f"{environment['device']} · {environment['dtype']} · {threads}"
    console.print()
    console.print(Text(record["prompt"], style="bold"))
    console.print(Text(" · ".join(_facts(record)), style="dim"))
    console.print(Text(where, style="dim"))
    console.print()
    console.print(_table(record))
    comparison = record["comparison"]
    if comparison is not None:
        closeness = f"PSNR {_decibels(comparison)} · SSIM {comparison['ssim']:.4f}"
        runs = len(record["merged"]["runs"]["seconds"])
        timed = "one timed pair" if runs == 1 else f"medians of {runs} interleaved pairs"
        console.print(Text(f"\n{closeness} · {timed}"))
    for line in record["skipped"]:
        console.print(Text(line))
    config = retom.Config.from_dict(record["config"])
    if config.methods() and not config.steady and not record["levels"]:
        console.print(Text("Nothing merged: no step of this picture is at a noise that merges."))
    console.print(Text(f"Saved to {record['output']}"))


def _table(record: Record) -> Table:
    comparison, merged = record["comparison"], record["merged"]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for name in ("un-merged", "merged", ""):
        table.add_column(name, justify="right")
    for label, key, gain in (
        ("whole picture", "seconds", "speedup"),
        ("denoiser alone", "denoiser_seconds", "denoiser_speedup"),
    ):
        before = f"{comparison['unmerged'][key]:.2f} s" if comparison else ""
        faster = f"{comparison[gain]:.2f}x as fast" if comparison else ""
        table.add_row(label, before, f"{merged[key]:.2f} s", Text(faster, style="bold"))
    for level in _merging(record):
        grid = f"{level['grid']['height']}x{level['grid']['width']}"
        fewer = f"{1 - level['kept'] / level['tokens']:.0%} fewer"
        low, high = level["noise"]
        at = "" if (low, high) == EVERY else f", noise {low:g} to {high:g}"
        table.add_row(f"tokens on {grid}{at}", f"{level['tokens']}", f"{level['kept']}", fewer)
    return table


def _facts(record: Record) -> list[str]:
    """Settings in a few words: method, ratio and what else differs from the method's defaults."""
    method = dict(record["config"]["method"])
    name = method.pop("name")
    defaults = retom.Config(method=METHODS[name]()).to_dict()["method"]
    method = {
        key: value for key, value in method.items() if value != defaults[key] or key == "ratio"
    }
    words = [name] + [f"{key} {_words(value)}" for key, value in method.items()]
    if record["config"]["levels"] != [0]:
        words.append(f"levels {_words(record['config']['levels'], ',')}")
    if record["config"]["noise"] != list(EVERY):
        words.append("noise {:g} to {:g}".format(*record["config"]["noise"]))
    facts = [", ".join(words), f"seed {record['seed']}", f"{record['steps']} steps"]
    facts += [f"guidance {record['guidance']:g}", f"{record['height']}x{record['width']} px"]
    if record["negative_prompt"]:
        facts.append(f"without {record['negative_prompt']}")
    return [*facts, record["model"]]


def _words(value: object, separator: str = "x") -> str:
    return separator.join(map(str, value)) if isinstance(value, list) else f"{value}"  # pyright: ignore[reportUnknownArgumentType]


def _merging(record: Record) -> list[dict[str, Any]]:
    return [level for level in record["levels"] if level["kept"] < level["tokens"]]


def _times(series: Series) -> Record:
    """Medians, and every run."""
    return {
        "seconds": series.median_seconds,
        "denoiser_seconds": series.median_denoiser_seconds,
        "runs": {
            "seconds": list(series.seconds),
            "denoiser_seconds": list(series.denoiser_seconds),
        },
    }


def _comparison(result: Result) -> Record | None:
    comparison = result.comparison
    if comparison is None:
        return None
    return {
        "unmerged": _times(comparison.unmerged),
        "speedup": comparison.speedup,
        "denoiser_speedup": comparison.denoiser_speedup,
        "psnr": comparison.psnr if math.isfinite(comparison.psnr) else None,
        "ssim": comparison.ssim,
    }


def _decibels(comparison: Record) -> str:
    return "infinite" if comparison["psnr"] is None else f"{comparison['psnr']:.1f} dB"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
