"""Versions, the extras of this installation, and the model that comes along."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from retom.evaluation.provenance import version_of

_REQUIREMENT = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?P<range>[^;]*);\s*extra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]"
)
VERSIONS = ("torch", "diffusers", "transformers", "tomesd")
MODEL = "retom_emoji"


@dataclass(frozen=True, slots=True)
class Extra:
    """Packages that some commands need.

    Attributes:
        name: Of the extra.
        missing: What it asks for and is not installed, with the versions that it asks for.
    """

    name: str
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        """What installs it."""
        return f'pip install "retom[{self.name}]"'


def versions() -> dict[str, str | None]:
    """Of the packages that matter to merging; None for those that are not installed."""
    return {name: version_of(name) for name in VERSIONS}


def extras() -> list[Extra] | None:
    """Every extra that this installation of retom knows; None where it is not installed at all."""
    try:
        required = importlib.metadata.requires("retom") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return extras_of(required)


def extras_of(required: list[str]) -> list[Extra]:
    """The extras of a distribution.

    Args:
        required: Requirements as a wheel's metadata has them.

    Example:
        >>> extras_of(['torch>=2.6', 'nowhere>=1 ; extra == "cli"'])
        [Extra(name='cli', missing=('nowhere>=1',))]
    """
    missing: dict[str, list[str]] = {}
    for line in required:
        found = _REQUIREMENT.match(line)
        if found is None:
            continue
        lacking = missing.setdefault(found["extra"], [])
        if version_of(found["name"]) is None:
            lacking.append(found["name"] + found["range"].strip())
    return [Extra(name, tuple(lacking)) for name, lacking in sorted(missing.items())]


def bundled_model() -> str:
    """Whether the bundled models are there, or what to do about it, as a sentence."""
    if importlib.util.find_spec(MODEL) is None:
        return (
            "not installed: run `pip install ./packages/retom-emoji` in a checkout of retom; "
            "commands without --model need it"
        )
    package = cast("Any", import_module(MODEL))
    for size in package.SIZES:
        folder = Path(str(package.folder(size)))
        if not (folder / "model_index.json").is_file():
            return f"installed, but {folder} has no model_index.json: install it again"
    return "found"
