"""Where a number comes from: command, commit, versions, hardware."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import retom

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("torch", "diffusers", "transformers", "tomesd", "numpy")
_ENVIRONMENT = ("MALLOC_", "OMP_", "MKL_")


def provenance(command: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Versions, hardware, commit and command of this process, as plain data.

    Args:
        command: Words as they were typed; paths lose their folders.
        device: Where the model runs.
    """
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "retom": retom.__version__,
    }
    versions |= {name: version_of(name) for name in PACKAGES}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "command": shlex.join(portable(word) for word in command),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", ".")),
        "versions": versions,
        "hardware": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": device_name(device),
            "load_average_at_start": None if load is None else round(load, 2),
        },
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)},
    }


def caption(source: dict[str, Any]) -> str:
    """One line below a table that says where it comes from."""
    versions = ", ".join(f"{k} {v}" for k, v in source["versions"].items() if v)
    hardware = source["hardware"]
    commit = (source["commit"] or "unknown")[:12] + ("+" if source["uncommitted_changes"] else "")
    return (
        f"`{source['command']}`; commit {commit}, {source['time_utc']}; {hardware['cpu']}, "
        f"{hardware['threads']} threads, device {hardware['device']}, load average "
        f"{hardware['load_average_at_start']} at start; {versions}."
    )


def portable(word: str) -> str:
    """A word of a command without the folders of this machine."""
    path = Path(word)
    return f"…/{path.name}" if path.is_absolute() else word


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def version_of(package: str) -> str | None:
    """Version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    """What git says of the checkout that retom runs from; None where it is an installed wheel."""
    folder = Path(__file__).resolve().parent
    root = folder.parents[2]
    if not (root / ".git").exists() or folder.parents[1].name != "src":
        return None
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
