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
class Site:
    """One transformer block whose self-attention and MLP work on tokens (B, N, C).

    Attributes:
        name: Qualified name of its self-attention in the denoiser.
        block: The whole block: tokens in, tokens out, a sum of its input and what its layers add.
        attention: Its self-attention.
        mlp: Its MLP; None where there is none.
        grid_source: The module whose first input is the feature map (B, C, height, width) that
            becomes the block's tokens: the one place where the grid is known.
        level: Attention level, 0 for the largest grid.
        channels: Channels of a token.
        inner_channels: Channels of all heads of the self-attention together.
        mlp_weights: Weights of the MLP that every token meets.
        text_weights: Weights of the text attention that every token meets: query and output.
    """

    name: str
    block: nn.Module
    attention: nn.Module
    mlp: nn.Module | None
    grid_source: nn.Module
    level: int
    channels: int
    inner_channels: int
    mlp_weights: int
    text_weights: int


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

    sites: tuple[Site, ...]
    grids: GridsOf
    default_grids: dict[int, Grid] | None

    @property
    def levels(self) -> tuple[int, ...]:
        """Attention levels that exist."""
        return tuple(sorted({site.level for site in self.sites}))
