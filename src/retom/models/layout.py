"""Where a denoiser can merge: what a model family tells the hooks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retom.grid import Grid

GridsOf = Callable[["Tensor"], dict[int, "Grid"]]
"""From the denoiser's input to the grid of each attention level."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionSite:
    """One self-attention layer whose input and output are tokens (B, N, C).

    Attributes:
        name: Qualified name of the layer in the denoiser.
        attention: The layer.
        grid_source: The module whose first input is the feature map (B, C, height, width) that
            becomes the layer's tokens: the one place where the grid is known.
        level: Attention level, 0 for the largest grid.
        channels: Channels of a token.
        inner_channels: Channels of all heads together.
    """

    name: str
    attention: nn.Module
    grid_source: nn.Module
    level: int
    channels: int
    inner_channels: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """All sites of a denoiser.

    Attributes:
        sites: In the order of the module tree.
        grids: Predicts the grid of each level from the denoiser's input, so that a ratio that
            cannot be reached is refused before the first layer runs.
        default_grids: The same at the model's default size; None where its configuration gives
            none.
    """

    sites: tuple[AttentionSite, ...]
    grids: GridsOf
    default_grids: dict[int, Grid] | None

    @property
    def levels(self) -> tuple[int, ...]:
        """Attention levels that exist."""
        return tuple(sorted({site.level for site in self.sites}))
