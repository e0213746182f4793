"""The arguments of a call as data: what each of them is, and the making of it.

The names in a shape are sizes of the call (``batch``, ``height`` and ``width`` of the latent,
``rows``, ``columns`` and ``tokens`` of its patches, ``text``, and ``sequence`` for text and tokens
together) or entries of the model's configuration. A shape alone is a tensor of real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.stand_ins import without_numbers

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[str | int, ...]

Sizes = Mapping[str, Any]
"""Sizes of a call and entries of a configuration, by name."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Positions, as real numbers, which merging reads: (tokens, axes), axes 1 and 2 the grid's.

    Args:
        axes: Columns.
        of: ``image`` for the grid's tokens, ``text`` for zeros, ``sequence`` for those zeros and
            the grid's tokens after them.
        batch: Whether there is a dimension for the batch.
    """

    axes: int
    of: str
    batch: bool = False

    def make(self, sizes: Sizes) -> Tensor:
        """The positions, on the CPU."""
        text = torch.zeros(0 if self.of == "image" else sizes["text"], self.axes)
        image = torch.zeros(0 if self.of == "text" else sizes["tokens"], self.axes)
        if self.of != "text":
            image[:, 1] = torch.arange(sizes["rows"]).repeat_interleave(sizes["columns"])
            image[:, 2] = torch.arange(sizes["columns"]).repeat(sizes["rows"])
        ids = torch.cat([text, image])
        return ids.expand(sizes["batch"], -1, -1) if self.batch else ids


@dataclass(frozen=True, slots=True)
class GridSizes:
    """A list of (1, rows, columns) for each picture."""

    def make(self, sizes: Sizes) -> list[list[tuple[int, int, int]]]:
        """The lists."""
        return [[(1, sizes["rows"], sizes["columns"])]] * sizes["batch"]


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask that lets everything pass; a model may ask how much that is."""

    shape: Shape

    def make(self, sizes: Sizes) -> Tensor:
        """The mask, which remembers its values."""
        return without_numbers(torch.ones(_dimensions(self.shape, sizes), dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class Classes:
    """Whole numbers that name a class: a style."""

    shape: Shape

    def make(self, sizes: Sizes) -> Tensor:
        """The numbers, on the meta device."""
        return torch.empty(_dimensions(self.shape, sizes), dtype=torch.long, device="meta")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of one shape: the cosines and the sines of a rotary table."""

    shape: Shape

    def make(self, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Both, on the meta device."""
        return _real(self.shape, sizes), _real(self.shape, sizes)


@dataclass(frozen=True, slots=True)
class PerPicture:
    """A list with one tensor for each picture of the call."""

    shape: Shape

    def make(self, sizes: Sizes) -> list[Tensor]:
        """The list, on the meta device."""
        return [_real(self.shape, sizes) for _ in range(sizes["batch"])]


Argument = Shape | Ids | GridSizes | Mask | Classes | Pair | PerPicture | dict[str, Shape]


def make(argument: Argument, sizes: Sizes) -> Any:  # noqa: ANN401 - arguments of any kind
    """An argument of a call: on the meta device, positions on the CPU."""
    if isinstance(argument, dict):
        return {name: _real(shape, sizes) for name, shape in argument.items()}
    return _real(argument, sizes) if isinstance(argument, tuple) else argument.make(sizes)


def _real(shape: Shape, sizes: Sizes) -> Tensor:
    return torch.empty(_dimensions(shape, sizes), device="meta")


def _dimensions(shape: Shape, sizes: Sizes) -> list[int]:
    return [dim if isinstance(dim, int) else int(sizes[dim]) for dim in shape]
