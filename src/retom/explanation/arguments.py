"""The arguments of a call as data: what each of them is, and the making of it.

The names in a shape are sizes of the call (``batch``, ``height`` and ``width`` of the latent,
``rows``, ``columns`` and ``tokens`` of its patches, ``text``, and ``sequence`` for text and tokens
together) or entries of the model's configuration, of which ``name.0`` is the first of a list and
``name.len`` how many there are. A shape alone is a tensor of real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import UnsupportedModelError
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
    """(1, rows, columns) for each picture.

    Args:
        listed: Whether each stands in a list of its own, with room for references.
    """

    listed: bool = True

    def make(self, sizes: Sizes) -> list[Any]:
        """One for each picture."""
        size = (1, sizes["rows"], sizes["columns"])
        return [[size] if self.listed else size] * sizes["batch"]


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
class Ranges:
    """Whole numbers from 0 on, as many as each size: one tensor a size, in a list.

    Args:
        of: Sizes of the call.
    """

    of: Shape

    def make(self, sizes: Sizes) -> list[Tensor]:
        """The numbers, on the CPU."""
        return [torch.arange(count) for count in _dimensions(self.of, sizes)]


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from 0 on, as many as a size of the call."""

    of: str

    def make(self, sizes: Sizes) -> Tensor:
        """The numbers, on the CPU."""
        return torch.arange(sizes[self.of])


@dataclass(frozen=True, slots=True)
class Rotations:
    """A rotary table of complex numbers for a square of positions, a column a pair of channels.

    Args:
        side: Positions along a side.
        channels: What is divided by how many, both entries of the configuration, to get the
            channels of a head.
    """

    side: int
    channels: tuple[str, str]

    def make(self, sizes: Sizes) -> Tensor:
        """The table, on the meta device."""
        width, heads = _dimensions(self.channels, sizes)
        shape = (self.side, self.side, width // heads // 2)
        return torch.empty(shape, dtype=torch.complex64, device="meta")


@dataclass(frozen=True, slots=True)
class PerBlock:
    """A list with one tensor for each block of the model.

    Args:
        shape: Of each.
        blocks: Entries of the configuration that add up to the number of blocks.
    """

    shape: Shape
    blocks: tuple[str, ...]

    def make(self, sizes: Sizes) -> list[Tensor]:
        """The list, on the meta device."""
        return [_real(self.shape, sizes) for _ in range(sum(_dimensions(self.blocks, sizes)))]


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


Argument = (
    Shape
    | Ids
    | GridSizes
    | Mask
    | Classes
    | Range
    | Ranges
    | Rotations
    | Pair
    | PerPicture
    | PerBlock
    | dict[str, Shape]
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """How one class of denoisers is called.

    Attributes:
        arguments: Every argument of a text-to-image call, by name.
        patch: Latents along a side of a token, outside of a UNet.
        only_if: Arguments that depend on an entry of the configuration being true.
        text_tokens: Length of the text where nothing says another.
        text_tokens_from: Why that length.
        text_parts: Entries of the configuration that add up to the only length that texts have;
            empty where texts have any length.
        pixels_per_latent: Pixels along a side of a latent where nothing says another: that of the
            published models of the class.
        packs: Whether the latents are packed before the call: ``pixels_per_latent`` is then that of
            packed ones, whatever the autoencoder's is.
    """

    arguments: dict[str, Argument]
    patch: int = 2
    only_if: dict[str, str] = field(default_factory=dict[str, str])
    text_tokens: int = 77
    text_tokens_from: str = "CLIP's length, to which the pipeline pads"
    text_parts: tuple[str, ...] = ()
    pixels_per_latent: int = 8
    packs: bool = False


def make(argument: Argument, sizes: Sizes) -> Any:  # noqa: ANN401 - arguments of any kind
    """An argument of a call: on the meta device, positions on the CPU.

    Raises:
        UnsupportedModelError: The configuration does not give one of its sizes.
    """
    if isinstance(argument, dict):
        return {name: _real(shape, sizes) for name, shape in argument.items()}
    return _real(argument, sizes) if isinstance(argument, tuple) else argument.make(sizes)


def _real(shape: Shape, sizes: Sizes) -> Tensor:
    return torch.empty(_dimensions(shape, sizes), device="meta")


def _dimensions(shape: Shape, sizes: Sizes) -> list[int]:
    found = [sizes.get(dim) if isinstance(dim, str) else dim for dim in shape]
    for dim, value in zip(shape, found, strict=True):
        if not isinstance(value, int):
            entry = str(dim).split(".")[0]
            raise UnsupportedModelError(
                f"The model's configuration has {entry}={sizes.get(entry)!r}, which does not give "
                "the shape of its inputs. Pass the arguments of one call for one picture as "
                "inputs={...}."
            )
    return cast("list[int]", found)
