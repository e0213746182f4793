"""Put cut-out art on backgrounds.

Plain white everywhere would make most tokens equal, which flatters token merging, so backgrounds
are coloured and a good part of them is not flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Pattern = Literal["flat", "gradient", "two-tone", "checker", "glow"]
Picture = npt.NDArray[np.uint8]

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "grey": (142, 144, 150),
    "black": (28, 28, 34),
    "red": (205, 58, 62),
    "orange": (240, 146, 58),
    "yellow": (246, 212, 92),
    "green": (88, 170, 96),
    "teal": (62, 160, 160),
    "blue": (66, 116, 210),
    "light blue": (160, 208, 242),
    "purple": (140, 92, 190),
    "pink": (242, 162, 196),
    "brown": (134, 94, 66),
    "beige": (232, 216, 188),
}
PATTERNS: tuple[tuple[Pattern, float], ...] = (
    ("flat", 0.5),
    ("gradient", 0.2),
    ("glow", 0.12),
    ("two-tone", 0.1),
    ("checker", 0.08),
)


@dataclass(frozen=True)
class Background:
    """What lies behind the object.

    Attributes:
        colour: A key of :data:`COLOURS`.
        pattern: How the colour varies over the picture.
    """

    colour: str
    pattern: Pattern


def resized(picture: Picture, side: int) -> Picture:
    """Resize a picture to a square by bicubic interpolation; one of that size stays as it is."""
    image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def random_background(rng: np.random.Generator) -> Background:
    """Draw a colour and a pattern; white is as rare as any other colour."""
    colour = str(rng.choice(list(COLOURS)))
    names: list[Pattern] = [name for name, _ in PATTERNS]
    pattern = names[int(rng.choice(len(names), p=[share for _, share in PATTERNS]))]
    return Background(colour, pattern)


def paint(background: Background, size: int, rng: np.random.Generator) -> Picture:
    """Paint a background.

    Args:
        background: Colour and pattern.
        size: Edge of the square picture in pixels.
        rng: Source of the small differences between two backgrounds of one name.
    """
    base = np.asarray(COLOURS[background.colour], np.float32) + rng.normal(0, 5, 3)
    step = rng.uniform(22, 48) * (-1 if base.mean() > 150 else 1)
    other = base + step
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if background.pattern == "flat":
        mix = np.zeros_like(x)
    elif background.pattern == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        mix = 0.5 + (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) / 1.2
    elif background.pattern == "glow":
        mix = 1 - np.clip(np.hypot(x - 0.5, y - 0.5) / 0.7, 0, 1)
    elif background.pattern == "two-tone":
        mix = (y > rng.uniform(0.55, 0.8)).astype(np.float32)
    else:
        cells = int(rng.integers(4, 7))
        mix = ((np.floor(x * cells) + np.floor(y * cells)) % 2).astype(np.float32)
        other = base + step * 0.6
    out = base + (other - base) * mix[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


def place(rgba: Picture, canvas: Picture, *, scale: float, centre: tuple[float, float]) -> Picture:
    """Lay one cut-out over a canvas.

    Args:
        rgba: ``(h, h, 4)`` square art with straight alpha.
        canvas: ``(size, size, 3)`` background; not modified.
        scale: Edge of the art as a fraction of the canvas.
        centre: Row and column of the centre as fractions of the canvas.
    """
    size = canvas.shape[0]
    edge = max(1, round(scale * size))
    small = np.asarray(Image.fromarray(rgba).resize((edge, edge), Image.Resampling.BICUBIC))
    top, left = (round(c * size - edge / 2) for c in centre)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + edge, size), min(left + edge, size)
    out = canvas.astype(np.float32)
    part = small[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    alpha = part[..., 3:] / 255
    out[y0:y1, x0:x1] += (part[..., :3] - out[y0:y1, x0:x1]) * alpha
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def compose(
    rgba: Picture,
    background: Background,
    size: int,
    rng: np.random.Generator,
    *,
    scales: tuple[float, float],
) -> Picture:
    """Draw a picture of one object: background, size and place within the canvas.

    Args:
        rgba: The art.
        background: What lies behind it.
        size: Edge of the picture in pixels.
        rng: Draws size and place. The object never leaves the canvas.
        scales: Smallest and largest edge of the art as fractions of the canvas.
    """
    scale = float(rng.uniform(*scales))
    room = (1 - scale) / 2
    centre = (0.5 + float(rng.uniform(-room, room)), 0.5 + float(rng.uniform(-room, room)))
    return place(rgba, paint(background, size, rng), scale=scale, centre=centre)
