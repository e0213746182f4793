"""Write the trained parts as one diffusers folder that loads with no arguments."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from . import captions, concepts
from .denoiser import load_encoders, pipeline
from .preset import Preset

SHARD = 14 * 10**6
TOTAL = 44 * 10**6
WORDS = "words.json"
"""Further words that a model was taught, and the label that each stands for."""
PACKAGE = Path(__file__).parent.parent / "src" / "retom_emoji"
SHIPPED = {"cpu": "model-128", "cpu-256": "model-256"}
"""Folders in the package, by the preset that a model was trained with."""


def shipped(name: str | None) -> Path:
    """Return the folder of the model that ships of a preset.

    Args:
        name: Of the preset; None for the one that stages take by default.

    Raises:
        ValueError: No model of it ships.
    """
    name = name or "cpu"
    if name not in SHIPPED:
        msg = (
            f"no model of preset {name} ships, only of {' and '.join(SHIPPED)}: name a folder with"
            " --out to export to, or with --init to evaluate"
        )
        raise ValueError(msg)
    return PACKAGE / SHIPPED[name]


def _edit(file: Path, *, drop: tuple[str, ...] = (), **values: object) -> None:
    config = {k: v for k, v in json.loads(file.read_text("utf-8")).items() if k not in drop}
    text = json.dumps(config | values, indent=2, sort_keys=True)
    file.write_text(text + "\n", "utf-8")


def quiet_configs(folder: Path) -> None:
    """Make the half-precision folder load as float32, and without a complaint.

    diffusers upcasts its own parts on loading, transformers keeps the stored precision unless the
    configuration says otherwise; a pipeline with both would fail at its first step. And the tiny
    autoencoder stores a setting that it then refuses as unknown. Where the parts were trained is
    nobody's business.
    """
    _edit(folder / "text_encoder" / "config.json", dtype="float32")
    _edit(folder / "vae" / "config.json", drop=("block_out_channels", "_name_or_path"))
    _edit(folder / "unet" / "config.json", drop=("_name_or_path",))


def check_sizes(folder: Path) -> int:
    """Return the bytes of a folder.

    Raises:
        ValueError: A file or the folder is larger than what the repository takes.
    """
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    for file, size in sizes.items():
        if size > SHARD:
            msg = f"{file.name} has {size} bytes, more than {SHARD}"
            raise ValueError(msg)
    total = sum(sizes.values())
    if total > TOTAL:
        msg = f"the folder has {total} bytes, more than {TOTAL}"
        raise ValueError(msg)
    return total


def write_prompts(work: Path, folder: Path) -> None:
    """Store one prompt a concept, in the first style that has it, by split, beside the weights."""
    splits: dict[str, list[str]] = {split: [] for split in concepts.SPLITS}
    first = {concept.code: concept for concept in reversed(concepts.load(work))}
    for concept in reversed(first.values()):
        splits[concept.split].append(captions.prompt(concept.label, style=concept.style))
    (folder / "prompts.json").write_text(json.dumps(splits, indent=1) + "\n", "utf-8")


def replace(folder: Path, new: Path) -> None:
    """Put a finished folder in the place of another; a reader never sees a half-written one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def beside(target: Path) -> Path:
    """Return where a new version of a folder is written before :func:`finish`; nothing is there."""
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    return new


def finish(new: Path, target: Path) -> int:
    """Put a folder that is written in the place of ``target``; return its bytes.

    Raises:
        ValueError: It is larger than what the repository takes.
    """
    quiet_configs(new)
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)  # written for the owner alone
    total = check_sizes(new)
    replace(target, new)
    return total


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Assemble, halve, check and swap in."""
    target: Path = options.out or shipped(options.preset)
    encoders = load_encoders(options.work, options.init, torch.device("cpu"))
    pipe = pipeline(encoders, options.work)
    new = beside(target)
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(new, max_shard_size=SHARD - 10**6)
    write_prompts(options.work, new)
    if options.init and (options.init / WORDS).exists():
        shutil.copy(options.init / WORDS, new / WORDS)
    total = finish(new, target)
    print(f"export: {target.name}, {total / 1e6:.1f} MB, preset seed {preset.seed}", flush=True)
