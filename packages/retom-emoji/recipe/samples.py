"""Draw the fixed list of prompts, so that two versions of the model can be compared by eye."""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from . import captions, compose, concepts
from .concepts import Concept
from .denoiser import load_encoders, pipeline
from .preset import FOLDER, Preset

CELL = 112
COLUMNS = 10
LABEL = 14


def prompts(labels: tuple[str, ...]) -> list[str]:
    """Write one prompt a label; every second one asks for a background, colours taking turns."""
    colours = list(compose.COLOURS)
    out: list[str] = []
    for i, label in enumerate(labels):
        colour = colours[i // 2 * 3 % len(colours)] if i % 2 else None
        out.append(captions.prompt(label.lower(), background=colour))
    return out


def draw(
    pipe: StableDiffusionPipeline, texts: list[str], preset: Preset, *, batch: int = 4
) -> list[Image.Image]:
    """Sample one picture a text; the seed of a picture is its place in the list."""
    out: list[Image.Image] = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        settings: dict[str, Any] = {
            "num_inference_steps": preset.steps,
            "guidance_scale": preset.guidance,
            "generator": generators,
            "return_dict": False,
        }
        out += pipe(part, **settings)[0]
    return out


def sheet(
    pictures: list[Image.Image], labels: tuple[str, ...], *, columns: int = COLUMNS
) -> Image.Image:
    """Lay pictures out in a grid with their labels below."""
    rows = -(-len(pictures) // columns)
    out = Image.new("RGB", (columns * CELL, rows * (CELL + LABEL)), "white")
    pen = ImageDraw.Draw(out)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * CELL, i // columns * (CELL + LABEL)
        small = picture.resize((CELL - 2, CELL - 2), Image.Resampling.LANCZOS)
        out.paste(small, (x + 1, y + 1))
        pen.text((x + 2, y + CELL), label[:20], fill="black")
    return out


def save(image: Image.Image, file: Path) -> None:
    """Write a PNG with a palette, which is a third of the size and looks the same."""
    palette = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(file, optimize=True)


def time_one(pipe: StableDiffusionPipeline, preset: Preset) -> float:
    """Return the median seconds for one picture at the preset's settings."""
    seconds: list[float] = []
    for _ in range(4):
        start = time.perf_counter()
        draw(pipe, ["a red apple, fluent 3d emoji"], preset)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def load(folder: Path) -> StableDiffusionPipeline:
    """Load an exported folder, silently."""
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def style_prompts(shown: tuple[Concept, ...], count: int) -> list[str]:
    """Write prompts for so many pictures: the same few concepts, style after style."""
    names = list(dict.fromkeys(concept.style for concept in shown))
    each = max(1, count // len(names))
    sets = [{c.label for c in shown if c.style == name and c.split == "trained"} for name in names]
    common = [c.label for c in shown if all(c.label in labels for labels in sets)]
    chosen = list(dict.fromkeys(common))[:: max(1, len(set(common)) // each)][:each]
    return [captions.prompt(label, style=name) for name in names for label in chosen]


def write(
    pipe: StableDiffusionPipeline,
    preset: Preset,
    shown: tuple[Concept, ...],
    target: Path,
    *,
    shown_each: int,
) -> None:
    """Draw two sheets.

    ``samples.png`` shows the fixed list of trained labels; ``samples-more.png`` shows styles,
    held-out concepts, words outside the labels and pairs.

    Args:
        pipe: The model, on the device that draws.
        preset: Steps and guidance.
        shown: What the model was trained on and what was held out.
        target: Folder of the sheets.
        shown_each: Pictures of each kind at most.
    """
    labels = concepts.wanted(FOLDER / "sheet.txt")[:shown_each]
    pictures = draw(pipe, prompts(labels), preset, batch=shown_each)
    save(sheet(pictures, labels), target / "samples.png")
    first = {c.code: c for c in reversed(shown) if c.split == "held_out"}
    held_out = [captions.prompt(c.label, style=c.style) for c in first.values()]
    spread = held_out[:: max(1, len(held_out) // shown_each)][:shown_each]
    free = concepts.wanted(FOLDER / "prompts.txt")[:shown_each]
    more = [*style_prompts(shown, shown_each), *spread, *free]
    pictures = draw(pipe, more, preset, batch=shown_each)
    save(sheet(pictures, tuple(more)), target / "samples-more.png")
    print("samples: samples.png and samples-more.png", flush=True)


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Draw trained and held-out prompts from the exported folder, or from the work folder."""
    if options.init:
        pipe = load(options.init)
    else:
        encoders = load_encoders(options.work, None, torch.device("cpu"))
        pipe = pipeline(encoders, options.work)
    known = concepts.load(options.work)
    held_out = tuple(dict.fromkeys(c.label for c in known if c.split == "held_out"))
    target: Path = options.out or options.work
    target.mkdir(parents=True, exist_ok=True)
    for name, labels in (
        ("samples", concepts.wanted(FOLDER / "sheet.txt")),
        ("samples-held-out", held_out),
    ):
        pictures = draw(pipe, prompts(labels), preset)
        save(sheet(pictures, labels), target / f"{name}.png")
        print(f"samples: {target / name}.png", flush=True)
    size = pictures[0].size
    print(
        f"samples: {time_one(pipe, preset):.2f} s a picture of {size[0]} x {size[1]},"
        f" {preset.steps} steps, {torch.get_num_threads()} threads, torch {torch.__version__},"
        f" diffusers {diffusers.__version__}, {platform.machine()}",
        flush=True,
    )
