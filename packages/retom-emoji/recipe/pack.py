"""Make the folder that travels to a machine without a network: data, wheels and code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from . import render, sentences
from .preset import Preset

LIMIT = 64 * 2**20
"""Most bytes of a pack: it has all that training needs, and no shipped model."""
WHEELS = ("diffusers", "resvg-py")
"""What the recipe needs beyond torch, transformers, numpy and pillow, which are there."""
THERE = ("--python-version", "3.12", "--platform", "manylinux2014_x86_64", "--only-binary=:all:")
DATA = ("concepts.json", render.SOURCES, render.HASHES)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_size(pack: int, limit: int = LIMIT) -> None:
    """Check that a pack may travel.

    Raises:
        ValueError: It is too large.
    """
    if pack > limit:
        msg = (
            f"the pack has {pack} bytes, {pack - limit} more than the {limit} that travel; lower"
            " texts or dictionary in the preset's text settings, or take fewer styles"
        )
        raise ValueError(msg)


def _fetch_wheels(target: Path) -> None:
    pins = [f"{name}=={version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, *THERE, "--dest", str(target), *pins], check=True)


def run(preset: Preset, work: Path, target: Path) -> None:
    """Fill a folder from a work folder in which the download and render stages have run.

    Args:
        preset: Decides what the text encoder will imitate.
        work: Where the data are.
        target: The folder; what an earlier call left there is replaced.

    Raises:
        FileNotFoundError: A stage has not run.
        ValueError: The folder is too large to travel.
    """
    missing = [name for name in DATA if not (work / name).exists()]
    if missing:
        msg = f"{', '.join(missing)} missing in the work folder; run the render stage first"
        raise FileNotFoundError(msg)
    shutil.rmtree(target, ignore_errors=True)
    (target / "wheels").mkdir(parents=True)
    for name in DATA:
        shutil.copy(work / name, target / name)
    sentences.store(sentences.load(preset, work), target / sentences.FILE, small=True)
    code = Path(__file__).parent
    shutil.copytree(code, target / "recipe", ignore=shutil.ignore_patterns("__pycache__"))
    _fetch_wheels(target / "wheels")
    for entry in sorted(target.iterdir()):
        size = entry.stat().st_size if entry.is_file() else folder_bytes(entry)
        print(f"pack: {entry.name}, {size / 2**20:.2f} MiB", flush=True)
    total = folder_bytes(target)
    print(f"pack: {total / 2**20:.1f} MiB in all")
    check_size(total)
