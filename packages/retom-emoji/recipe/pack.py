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
"""Most bytes that travel, the repository's own files included."""
WHEELS = ("diffusers", "resvg-py")
"""What the recipe needs beyond torch, transformers, numpy and pillow, which are there."""
THERE = ("--python-version", "3.12", "--platform", "manylinux2014_x86_64", "--only-binary=:all:")
DATA = ("concepts.json", render.SOURCES, render.HASHES)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def repository_bytes(folder: Path) -> int:
    """Return the bytes of the tracked files of the repository a folder is in, or 0 outside one."""
    top = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True
    )
    if top.returncode:
        return 0
    root = Path(top.stdout.strip())
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    files = (root / name for name in listed.stdout.decode().split("\0") if name)
    return sum(file.stat().st_size for file in files if file.is_file())


def check_size(pack: int, beside: int, limit: int = LIMIT) -> None:
    """Check that a pack may travel beside the repository.

    Raises:
        ValueError: Together they are too large.
    """
    if pack + beside > limit:
        msg = (
            f"the pack has {pack} bytes and the repository {beside}, together"
            f" {pack + beside - limit} more than the {limit} that travel; lower the preset's text"
            " settings, or leave the shipped model's folder at home, which training does not need"
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
    total, beside = folder_bytes(target), repository_bytes(code)
    print(f"pack: {total / 2**20:.1f} MiB beside {beside / 2**20:.1f} MiB of repository")
    check_size(total, beside)
