"""Where a denoiser can merge: what a model family tells the hooks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from retom.grid import Grid
    from retom.models.spec import BlockSpec

Bound = dict[str, Any]
"""The arguments of a call by their names."""

GridsOf = Callable[[Bound], dict[int, "Grid"]]
"""From the arguments of a call of the denoiser to the grid of each attention level."""

GridsOfSize = Callable[[int, int], dict[int, "Grid"]]
"""From height and width of a latent to the grid of each attention level."""


@dataclass(frozen=True, slots=True)
class Timestep:
    """How a denoiser is told the noise level.

    Args:
        argument: Its argument.
        noisy: Value at pure noise.
        clean: Value at the finished picture.
    """

    argument: str = "timestep"
    noisy: float = 1000.0
    clean: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class AttentionSite:
    """The layers of a block for the scopes that are smaller than the block.

    Attributes:
        attention: Its self-attention.
        mlp: Its MLP; None where there is none.
        channels: Channels of a token.
        inner_channels: Channels of all heads of the self-attention together.
        mlp_weights: Weights of the MLP that every token meets.
        text_weights: Weights of the text attention that every token meets: query and output.
        heads: Heads of the self-attention.
        linear: Whether attention costs the same for every token however many there are.
    """

    attention: nn.Module
    mlp: nn.Module | None
    channels: int
    inner_channels: int
    mlp_weights: int
    text_weights: int
    heads: int = 1
    linear: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One transformer block on image tokens.

    Attributes:
        name: Qualified name in the denoiser.
        block: The whole block.
        spec: Its row; None where the block as a whole cannot merge.
        parameters: Names of its forward's parameters in order, so that arguments are found however
            they are passed.
        grid_source: The module whose first input is the feature map (B, C, height, width) that
            becomes the block's tokens; None where the denoiser's own input tells the grid.
        level: Attention level, 0 for the largest grid.
        inside: Its layers; None where only the whole block can merge.
    """

    name: str
    block: nn.Module
    spec: BlockSpec | None
    parameters: tuple[str, ...]
    grid_source: nn.Module | None
    level: int
    inside: AttentionSite | None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """All sites of a denoiser.

    Attributes:
        sites: In the order of the module tree.
        parameters: Names of the parameters of the denoiser's forward in order.
        picture: Its argument with the picture that is drawn: a feature map, a list of them, or
            packed tokens.
        grids: The grid of each level from the arguments of a call, so that a ratio that cannot be
            reached is refused before the first layer runs.
        grids_of_size: The same from height and width of the latent; None where tokens come packed,
            by a rule of the pipeline.
        default_grids: The same at the model's default size; None where its configuration gives
            none.
        scopes: The scopes that it can merge in, the default first.
        timestep: How it is told the noise level.
        reads_values: The argument whose values on the device ``grids`` looks at: it is then asked
            once for each tensor, outside of any compiled graph. None where sizes are enough.
        packed: The argument with tokens of the picture and its references (B, N + ..., C); None
            where there are no references.
        packed_last: Whether the picture's tokens are the last of ``packed`` instead of the first.
        context: From the arguments of a call to how many tokens of reference pictures follow those
            of the picture; None where they do not come as pictures of their own.
        unmerged: Names of blocks that run un-merged, and why.
    """

    sites: tuple[Site, ...]
    parameters: tuple[str, ...]
    picture: str
    grids: GridsOf
    grids_of_size: GridsOfSize | None
    default_grids: dict[int, Grid] | None
    scopes: tuple[str, ...]
    timestep: Timestep = field(default_factory=Timestep)
    reads_values: str | None = None
    packed: str | None = None
    packed_last: bool = False
    context: Callable[[Bound], int] | None = None
    unmerged: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def levels(self) -> tuple[int, ...]:
        """Attention levels that exist."""
        return tuple(sorted({site.level for site in self.sites}))

    @property
    def has_own_grid(self) -> bool:
        """Whether the denoiser's own arguments tell the grid of its blocks."""
        return all(site.grid_source is None for site in self.sites)

    @property
    def shares_plan(self) -> bool:
        """Whether pictures of a batch share one plan, because they share one rotary table."""
        return any(site.spec is not None and site.spec.shares_plan for site in self.sites)
