"""Spoil real pictures as a small model does: bent, painted over, soft, mottled, off in hue.

A judge that saw only clean art recognises little of what such a model draws, though anyone can name
it. It must not learn from drawn pictures either, or it would learn the model's mistakes as right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch.nn.functional import grid_sample, interpolate

from .compose import Picture, resized

SOFTEST = 4.0
"""Detail is lost up to this factor."""
BENT = 0.35
"""Largest standard deviation of a knot's displacement, in cells of the grid of knots."""
CELLS = (5, 16)
"""Fewest and most knots along an edge."""


def _clipped(values: npt.NDArray[np.floating]) -> Picture:
    return values.clip(0, 255).astype(np.uint8)


def bend(picture: Picture, rng: np.random.Generator) -> Picture:
    """Move the picture's parts a little against each other, smoothly."""
    side = picture.shape[0]
    cells = int(rng.integers(CELLS[0], CELLS[1] + 1))
    knots = rng.normal(0, rng.uniform(0, BENT) / cells, (1, 2, cells, cells))
    moved = interpolate(torch.from_numpy(knots).float(), (side, side), mode="bicubic")[0]
    axis = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x + moved[0], y + moved[1]], dim=-1)[None] * 2 - 1
    values = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    bent = grid_sample(values, places, padding_mode="border", align_corners=False)[0]
    return _clipped(bent.permute(1, 2, 0).numpy())


def paint_over(picture: Picture, rng: np.random.Generator) -> Picture:
    """Take the median around each pixel: fine lines go, edges stay."""
    around = ImageFilter.MedianFilter(int(rng.choice([3, 5, 7])))
    return np.asarray(Image.fromarray(picture).filter(around))


def soften(picture: Picture, rng: np.random.Generator) -> Picture:
    """Shrink the picture and enlarge it again."""
    side = picture.shape[0]
    return resized(resized(picture, max(1, round(side / rng.uniform(1.2, SOFTEST)))), side)


def mottle(picture: Picture, rng: np.random.Generator) -> Picture:
    """Add noise in spots of one and a half to eight pixels."""
    side = picture.shape[0]
    spots = max(1, int(side / rng.uniform(1.5, 8)))
    noise = resized(_clipped(rng.normal(128, 40, (spots, spots, 3))), side)
    strength = rng.uniform(0.05, 0.4)
    return _clipped(picture + (noise.astype(np.float32) - 128) * strength)


def recolour(picture: Picture, rng: np.random.Generator) -> Picture:
    """Change saturation, contrast and tint."""
    values = picture.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.6, 1.25)
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _clipped(mean + (values - mean) * rng.uniform(0.7, 1.2) + rng.normal(0, 10, 3))


WAYS: tuple[tuple[Callable[[Picture, np.random.Generator], Picture], float], ...] = (
    (bend, 0.5),
    (paint_over, 0.3),
    (soften, 0.5),
    (mottle, 0.3),
    (recolour, 0.5),
)
"""In this order, each with how often it happens; one picture in sixteen stays as it is."""


def degrade(picture: Picture, rng: np.random.Generator) -> Picture:
    """Spoil a square picture in some of the ways above."""
    for way, share in WAYS:
        if rng.random() < share:
            picture = way(picture, rng)
    return picture
