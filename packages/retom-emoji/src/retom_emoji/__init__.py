"""A small text-to-image model, as files: no code runs on import and nothing is downloaded.

>>> from diffusers import DiffusionPipeline
>>> import retom_emoji
>>> pipe = DiffusionPipeline.from_pretrained(retom_emoji.folder())  # doctest: +SKIP
>>> picture = pipe(retom_emoji.prompts("trained")[0]).images[0]  # doctest: +SKIP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

__all__ = ["alignment_head", "folder", "prompts"]
__version__ = "0.1.0"


def folder() -> Path:
    """Return the model's folder, in the layout ``DiffusionPipeline.from_pretrained`` reads."""
    return Path(__file__).parent / "model"


def alignment_head() -> Path:
    """Return the file of the text-alignment head: what ``retom.metrics.load_head`` reads.

    It judges pictures of emoji in the style of the model, by EfficientNet-Lite0 and MiniLM. It was
    trained on the art, not on the model's pictures.
    """
    return Path(__file__).parent / "alignment_head.safetensors"


def prompts(split: Literal["trained", "held_out"]) -> tuple[str, ...]:
    """Return prompts of one split, one a concept.

    Args:
        split: ``trained`` for concepts the model has seen pictures of, ``held_out`` for concepts
            whose pictures were kept from it.

    Raises:
        ValueError: There is no such split.
    """
    splits: dict[str, list[str]] = json.loads((folder() / "prompts.json").read_text("utf-8"))
    if split not in splits:
        msg = f"split must be one of {', '.join(sorted(splits))}, not {split!r}"
        raise ValueError(msg)
    return tuple(splits[split])
