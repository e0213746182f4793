"""Prompts to evaluate with: a file's, the model's own, or sixty-four that come along."""

from __future__ import annotations

import itertools
import json
import random
from importlib.resources import files
from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def prompts_of(folder: Path | None, file: Path | None = None) -> list[str]:
    """Prompts of ``file``, else the model's own ``prompts.json``, else those that come along.

    A model's own list is by split; each is shuffled, and the splits take turns, so that every
    beginning of the list is a fair share of all.

    Args:
        folder: Of the model; None if it has none.
        file: One prompt a line.

    Raises:
        ConfigError: The file cannot be read.
    """
    own = folder / "prompts.json" if folder else None
    if file is None and own is not None and own.is_file():
        splits: dict[str, list[str]] = json.loads(own.read_text(encoding="utf-8"))
        shuffled = [random.Random(0).sample(prompts, len(prompts)) for prompts in splits.values()]
        turns = itertools.zip_longest(*shuffled)
        return _each_once([prompt for turn in turns for prompt in turn if prompt is not None])
    try:
        text = file.read_text(encoding="utf-8") if file else _bundled()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as prompts, one a line: {error}.") from error
    return _each_once([line.strip() for line in text.splitlines() if line.strip()])


def first_prompts(prompts: list[str], count: int) -> list[str]:
    """The first ``count`` prompts.

    Raises:
        ConfigError: There are not so many.
    """
    if count > len(prompts):
        raise ConfigError(
            f"There are {len(prompts)} different prompts; {count} were asked for. Use more seeds, "
            "or a file with more prompts."
        )
    return prompts[:count]


def _bundled() -> str:
    return files("retom.evaluation").joinpath("prompts.txt").read_text(encoding="utf-8")


def _each_once(prompts: list[str]) -> list[str]:
    return list(dict.fromkeys(prompts))
