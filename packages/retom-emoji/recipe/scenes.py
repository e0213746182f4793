"""Compose whole batches of pictures on the device that trains.

A processor core composes about a hundred pictures a second, an accelerator asks for thousands. So
the art lies in the accelerator's memory, only the layout of each picture is drawn on the CPU, and
every picture is new: nothing is composed ahead. Backgrounds are those of :mod:`.compose`; the
single-picture code there stays for training on a few hundred concepts from a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from . import compose
from .compose import Background
from .concepts import Split
from .render import SIZE, Art

Axis = Literal["row", "column"]
RELATIONS: tuple[tuple[str, Axis, bool], ...] = (
    ("next to", "row", True),
    ("and", "row", True),
    ("above", "column", True),
    ("below", "column", False),
)
"""Words between two objects, the axis they lie along, and whether the first comes first."""
PAIR_SCALES = (0.38, 0.52)
PAIR_OFFSET = 0.245
PATTERNS = [name for name, _ in compose.PATTERNS]


@dataclass(frozen=True)
class Layout:
    """What a batch of B pictures with K objects each shows, and where.

    Attributes:
        rows: ``(B, K)`` places of the objects in the art.
        scales: ``(B, K)`` edges of the art as fractions of the canvas.
        centres: ``(B, K, 2)`` row and column of the objects' centres as fractions of the canvas.
        backgrounds: One a picture.
        relations: One a picture of two objects, else none.
        paint: ``(B, 10)`` what distinguishes backgrounds of one name: two colours in 0 to 255, the
            number of the pattern, an angle in radians, a level and a number of cells.
    """

    rows: npt.NDArray[np.int64]
    scales: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    backgrounds: tuple[Background, ...]
    relations: tuple[str, ...]
    paint: npt.NDArray[np.float32]


def backgrounds(
    count: int, rng: np.random.Generator
) -> tuple[tuple[Background, ...], npt.NDArray[np.float32]]:
    """Draw backgrounds and what their patterns need, as in :func:`.compose.paint`."""
    names = list(compose.COLOURS)
    colours = rng.integers(len(names), size=count)
    patterns = rng.choice(len(PATTERNS), size=count, p=[share for _, share in compose.PATTERNS])
    table = np.array(list(compose.COLOURS.values()), np.float32)
    base = table[colours] + rng.normal(0, 5, (count, 3))
    step = rng.uniform(22, 48, (count, 1)) * np.where(base.mean(1, keepdims=True) > 150, -1, 1)
    checker = (patterns == PATTERNS.index("checker"))[:, None]
    other = base + step * np.where(checker, 0.6, 1.0)
    angle = rng.uniform(0, 2 * np.pi, (count, 1))
    level = rng.uniform(0.55, 0.8, (count, 1))
    cells = rng.integers(4, 7, (count, 1))
    paint = np.hstack([base, other, patterns[:, None], angle, level, cells]).astype(np.float32)
    named = tuple(Background(names[c], PATTERNS[p]) for c, p in zip(colours, patterns, strict=True))
    return named, paint


def single(
    rows: npt.NDArray[np.int64], scales: tuple[float, float], rng: np.random.Generator
) -> Layout:
    """Lay out pictures of one object.

    Args:
        rows: ``(B,)`` the objects.
        scales: Smallest and largest edge of the art as fractions of the canvas. Below 1 the
            object never leaves the canvas; above, the canvas never leaves the object's frame.
        rng: Draws everything else.
    """
    count = len(rows)
    scale = rng.uniform(*scales, (count, 1)).astype(np.float32)
    room = np.abs(1 - scale)[..., None] / 2
    centres = 0.5 + rng.uniform(-1, 1, (count, 1, 2)) * room
    named, paint = backgrounds(count, rng)
    return Layout(rows[:, None], scale, centres.astype(np.float32), named, (), paint)


def pair(rows: npt.NDArray[np.int64], rng: np.random.Generator) -> Layout:
    """Lay out pictures of two objects side by side or one above the other.

    Args:
        rows: ``(B, 2)`` the objects, in the order the caption names them.
        rng: Draws everything else.
    """
    count = len(rows)
    scale = rng.uniform(*PAIR_SCALES, (count, 2)).astype(np.float32)
    centres = 0.5 + rng.uniform(-0.02, 0.02, (count, 2, 2))
    kinds = rng.integers(len(RELATIONS), size=count)
    for i, kind in enumerate(kinds):
        _, axis, forward = RELATIONS[kind]
        along = 1 if axis == "row" else 0
        first = -PAIR_OFFSET if forward else PAIR_OFFSET
        centres[i, 0, along] += first
        centres[i, 1, along] -= first
    named, paint = backgrounds(count, rng)
    words = tuple(RELATIONS[kind][0] for kind in kinds)
    return Layout(rows, scale, centres.astype(np.float32), named, words, paint)


def paint(parameters: Tensor, size: int) -> Tensor:
    """Paint backgrounds.

    Args:
        parameters: ``(B, 10)``, see :class:`Layout`.
        size: Edge in pixels.

    Returns:
        ``(B, 3, size, size)`` in [0, 1].
    """
    base, other = parameters[:, 0:3, None, None], parameters[:, 3:6, None, None]
    pattern, angle, level, cells = (parameters[:, i, None, None] for i in range(6, 10))
    axis = (torch.arange(size, device=parameters.device) + 0.5) / size
    y, x = axis[None, :, None], axis[None, None, :]
    maps = {
        "flat": torch.zeros_like(x + y),
        "gradient": 0.5 + (angle.cos() * (x - 0.5) + angle.sin() * (y - 0.5)) / 1.2,
        "two-tone": (y > level).float() + torch.zeros_like(x),
        "checker": ((x * cells).floor() + (y * cells).floor()) % 2,
        "glow": 1 - (torch.hypot(x - 0.5, y - 0.5) / 0.7).clamp(0, 1),
    }
    mix = sum((pattern == i) * maps[name] for i, name in enumerate(PATTERNS))
    return ((base + (other - base) * torch.as_tensor(mix)[:, None]) / 255).clamp(0, 1)


def place(canvas: Tensor, art: Tensor, scales: Tensor, centres: Tensor) -> Tensor:
    """Lay one cut-out over each canvas.

    Args:
        canvas: ``(B, 3, h, h)`` in [0, 1]; not modified.
        art: ``(B, 4, s, s)`` in [0, 1], colours multiplied with alpha.
        scales: ``(B,)`` edges of the art as fractions of the canvas.
        centres: ``(B, 2)`` row and column as fractions of the canvas.
    """
    theta = torch.zeros(len(canvas), 2, 3, device=canvas.device)
    offset = 1 - 2 * centres
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scales
    theta[:, 0, 2], theta[:, 1, 2] = offset[:, 1] / scales, offset[:, 0] / scales
    grid = functional.affine_grid(theta, [len(canvas), 4, *canvas.shape[-2:]], align_corners=False)
    layer = functional.grid_sample(art, grid, align_corners=False)
    return canvas * (1 - layer[:, 3:]) + layer[:, :3]


class Scenes:
    """Draws layouts on the CPU and composes them on a device.

    Args:
        art: All pictures.
        split: Only these are shown.
        device: Where pictures are composed; an accelerator keeps the art in its memory.
        seed: Seed of the layouts.
    """

    def __init__(self, art: Art, split: Split, device: torch.device, seed: int) -> None:
        self.concepts = art.concepts
        self.rng = np.random.default_rng(seed)
        self._device = device
        self._rows = art.rows(split)
        self._order = np.zeros(0, dtype=np.int64)
        self._rgba = art.rgba
        resident = device.type != "cpu"
        self._resident = torch.from_numpy(np.array(art.rgba)).to(device) if resident else None
        self._by_style: dict[str, npt.NDArray[np.int64]] = {}
        for style in {c.style for c in art.concepts}:
            keep = [row for row in self._rows if art.concepts[row].style == style]
            self._by_style[style] = np.array(keep, dtype=np.int64)

    def _take(self, count: int) -> npt.NDArray[np.int64]:
        """Take the next objects; all come once before one comes again."""
        while len(self._order) < count:
            self._order = np.concatenate([self._order, self.rng.permutation(self._rows)])
        taken, self._order = self._order[:count], self._order[count:]
        return taken

    def singles(self, count: int, scales: tuple[float, float]) -> Layout:
        """Lay out pictures of one object."""
        return single(self._take(count), scales, self.rng)

    def pairs(self, count: int) -> Layout:
        """Lay out pictures of two objects of one style."""
        first = self._take(count)
        same = [self._by_style[self.concepts[row].style] for row in first]
        second = np.array([int(rows[self.rng.integers(len(rows))]) for rows in same], np.int64)
        return pair(np.stack([first, second], axis=1).reshape(-1, 2), self.rng)

    def _art(self, rows: npt.NDArray[np.int64]) -> Tensor:
        if self._resident is None:
            picked = torch.from_numpy(np.ascontiguousarray(self._rgba[rows]))
        else:
            picked = self._resident[torch.from_numpy(rows).to(self._device)]
        rgba = picked.permute(0, 3, 1, 2).float() / 255
        return torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)

    @torch.no_grad()
    def compose(self, layout: Layout, size: int) -> Tensor:
        """Compose the pictures of a layout.

        They are drawn at the art's own size and then shrunk, so that edges stay smooth.

        Args:
            layout: What to draw.
            size: Edge in pixels.

        Returns:
            ``(B, 3, size, size)`` in [-1, 1] on the device.
        """
        finer = max(1, SIZE // size)
        canvas = paint(torch.from_numpy(layout.paint).to(self._device), size * finer)
        scales = torch.from_numpy(layout.scales).to(self._device)
        centres = torch.from_numpy(layout.centres).to(self._device)
        for k in range(layout.rows.shape[1]):
            art = self._art(layout.rows[:, k])
            if layout.relations:
                art = functional.avg_pool2d(art, 2)  # objects of a pair are half as large
            canvas = place(canvas, art, scales[:, k], centres[:, k])
        return functional.avg_pool2d(canvas, finer) * 2 - 1
