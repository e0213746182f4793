"""The support matrix of torch.compile and torch.export: graphs by mode and denoiser.

``test_compile_matrix.py`` holds it to what it counts, and ``compatibility_page.py`` prints it. A
text in place of a number says why there is none.
"""

from __future__ import annotations

from typing import Any

import tiny
import tiny_transformers
from torch import nn

import retom

MODES = {
    "whole": "`torch.compile(denoiser, fullgraph=True)`",
    "repeated": "`denoiser.compile_repeated_blocks(fullgraph=True)`, 12 blocks",
    "one by one": "`block.compile(fullgraph=True)`, 12 blocks",
    "refresh": "plans made and reused (`refresh=2`), two generations",
    "alternate": "the same with windows that take turns (`alternate=True`)",
    "rules": "two ratios and off, by `rules`, two generations",
    "refresh by blocks": "plans made and reused, 12 blocks compiled by themselves",
    "alternate by blocks": "the same with windows that take turns",
    "rules by blocks": "two ratios and off, 12 blocks compiled by themselves",
    "export": "`torch.export.export(denoiser, ...)`",
}
NO_REPEATED_BLOCKS = "`_repeated_blocks` attribute is empty"

_SAME = "as repeated blocks"
_GIVES = "the eager result"
GRAPHS: dict[str, dict[str, int | str]] = {
    "whole": {"unet": 1, "sd3": 1, "flux": 1, "qwen": 1},
    "repeated": {
        "unet": 2,
        "sd3": "diffusers names no blocks of SD3's to repeat",
        "flux": 7,
        "qwen": 3,
    },
    "one by one": {"unet": _SAME, "sd3": 5, "flux": _SAME, "qwen": _SAME},
    "refresh": {"unet": 2, "sd3": 2, "flux": 2, "qwen": 2},
    "alternate": {"unet": 3, "sd3": 3, "flux": 3, "qwen": 3},
    "rules": {"unet": 3, "sd3": 3, "flux": 3, "qwen": 3},
    "refresh by blocks": {"unet": 4, "sd3": 6, "flux": 9, "qwen": 4},
    "alternate by blocks": {"unet": 6, "sd3": 7, "flux": 11, "qwen": 5},
    "rules by blocks": {"unet": 6, "sd3": 12, "flux": 17, "qwen": 7},
    "export": {"unet": _GIVES, "sd3": _GIVES, "flux": _GIVES, "qwen": _GIVES},
}

_BLOCKS = "its blocks; the model itself "
GAPS = {
    "hidream": "no: its experts are sent for on the host",
    "lumina2": _BLOCKS + "reads lengths of prompts",
    "lumina2 uneven": _BLOCKS + "reads lengths of prompts",
    "z-image": _BLOCKS + "enters a device",
    "z-image with a controlnet": _BLOCKS + "enters a device",
    "omnigen": _BLOCKS + "branches on values",
    "bria fibo 2": _BLOCKS + "enters a device",
    "bria fibo 2 edit": _BLOCKS + "enters a device",
    "qwen 2.1": _BLOCKS + "reads values",
}
"""Families whose denoiser diffusers does not write as one graph, merging or not: what compiles."""
WHOLE = "one graph"

QUICK = {
    *(("whole", name) for name in ("unet", "sd3", "flux", "qwen")),
    *(("repeated", name) for name in ("unet", "qwen")),
    ("refresh", "qwen"),
    ("export", "sd3"),
}
"""Cases of the fast suite; the others are marked slow."""

NOISE = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Steps of one generation, by noise level."""


def schedule_of(mode: str) -> dict[str, Any]:
    """Options of retom.apply under which merging changes in the course of a generation."""
    mode = mode.removesuffix(" by blocks")
    if mode == "rules":
        fewer = retom.Rule(method=retom.ReToM(ratio=0.25), noise=(0.6, 1.0))
        return {"rules": (fewer, retom.Rule(method=None, noise=(0.0, 0.2)))}
    return {"refresh": 2, "alternate": mode == "alternate"}


def deep(name: str) -> nn.Module:
    """A denoiser with 12 merging blocks: a graph each would exceed torch's limit, 8."""
    if name == "unet":
        return tiny.unet(attention=(True,), mid_block_type=None, transformer_layers_per_block=4)
    if name == "sd3":
        return tiny_transformers.sd3(num_layers=12)
    if name == "flux":
        return tiny_transformers.flux(num_layers=6, num_single_layers=6)
    return tiny_transformers.qwen(num_layers=12)
