"""Two small text-to-image models, as files: no code runs on import and nothing is downloaded.

>>> from diffusers import DiffusionPipeline
>>> import retom_emoji
>>> pipe = DiffusionPipeline.from_pretrained(retom_emoji.folder())  # doctest: +SKIP
>>> picture = pipe(retom_emoji.prompts("trained")[0]).images[0]  # doctest: +SKIP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

__all__ = ["SIZES", "alignment_head", "folder", "prompts"]
__version__ = "0.1.0"

SIZES = (256, 128)
"""Edges in pixels of the pictures that the models draw; the first is the default model's."""


def folder(size: Literal[256, 128] = 256) -> Path:
    """Return a model's folder, in the layout ``DiffusionPipeline.from_pretrained`` reads.

    Args:
        size: Edge in pixels of the pictures that it draws by default. The smaller model draws a
            picture in a third of the time; its grid of 32 x 32 tokens is too small for merging to
            save time.

    Raises:
        ValueError: There is no model of that size.
    """
    if size not in SIZES:
        msg = f"size must be one of {', '.join(map(str, SIZES))}, not {size!r}"
        raise ValueError(msg)
    return Path(__file__).parent / f"model-{size}"


def alignment_head() -> Path:
    """Return the file of the text-alignment head: what ``retom.metrics.load_head`` reads.

    It judges pictures of emoji in the style of the models, by EfficientNet-Lite0 and MiniLM. It was
    trained on the art, not on the models' pictures.
    """
    return Path(__file__).parent / "alignment_head.safetensors"


def prompts(split: Literal["trained", "held_out"]) -> tuple[str, ...]:
    """Return prompts of one split, one a concept; both models know the same.

    Args:
        split: ``trained`` for concepts the models have seen pictures of, ``held_out`` for concepts
            whose pictures were kept from them.

    Raises:
        ValueError: There is no such split.
    """
    splits: dict[str, list[str]] = json.loads((folder() / "prompts.json").read_text("utf-8"))
    if split not in splits:
        msg = f"split must be one of {', '.join(sorted(splits))}, not {split!r}"
        raise ValueError(msg)
    return tuple(splits[split])
