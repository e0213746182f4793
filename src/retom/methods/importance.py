"""Importance-based token merging (arXiv:2411.16720, ICCV 2025): guidance says what matters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import num_asked
from retom.checks import check_seed
from retom.errors import BudgetError, ConfigError
from retom.methods.matching import Matching, fixed_draw, products, unit
from retom.ordering import highest_first
from retom.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.hints import Hints

DESTINATIONS = 0.25
"""Fraction of the tokens that others merge into, as in ToMe's windows of 2x2."""


@dataclass(frozen=True, kw_only=True)
class ImportanceToMe(Matching):
    """ToMe whose destinations are important tokens, and whose unimportant tokens go first.

    A token is important where the denoiser's outputs with and without the prompt differed most in
    the last call. The most important tokens, ``pool`` times as many as are kept, form a pool. A
    quarter of all tokens, drawn from the pool, are destinations. Every token outside of the pool
    merges into its most similar destination, and then those of the pool that are most similar to
    theirs, until R are gone. Both halves of guidance have the same destinations. O(N² C).

    In the first call of a picture no token is more important than another, and the pool is all of
    them. The denoiser must be called with both halves of classifier-free guidance in one batch, as
    diffusers pipelines do; other calls are refused. The paper prunes instead of merging at the
    first steps; this does not. The draw depends on the grid and ``seed`` alone.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        pool: Size of the pool as a multiple of the tokens kept, at least 1; the authors' 1.4.
        seed: Which draw of destinations, a whole number of at least 0.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str] = "importance"
    uses_guidance: ClassVar[bool] = True

    pool: float = 1.4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.pool) not in (int, float) or not 1 <= self.pool < math.inf:
            raise ConfigError(
                "pool is a multiple of the tokens kept, a number of at least 1; "
                f"{self.pool!r} was given."
            )
        check_seed(self.seed)

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: There are not so many tokens beside the destinations.
        """
        removed = num_asked(self.ratio, grid)
        most = grid.num_tokens - _num_destinations(grid)
        if removed > most:
            raise BudgetError(
                f"ratio {self.ratio:g} asks to remove {removed} of the {grid.num_tokens} tokens of "
                f"a {grid} grid, but only the {most} that are no destinations may go. Lower the "
                f"ratio to {math.floor(most / grid.num_tokens * 1000) / 1000:g} or less."
            )
        return removed

    def match(self, x: Tensor, grid: Grid, budget: int, hints: Hints) -> Plan:
        """Merge what is outside of the pool, then what is most similar to its destination."""
        tokens = unit(x)
        in_pool = self._in_pool(tokens, grid, budget, hints.importance)
        draw = fixed_draw(grid.num_tokens, self.seed).to(x.device)
        drawn = draw.expand_as(in_pool).masked_fill(~in_pool, -1.0)
        order = highest_first(drawn)
        # In raster order, so that a tie goes to the lowest index.
        destination = order[:, : _num_destinations(grid)].sort(dim=1).values
        index = destination[..., None].expand(-1, -1, tokens.shape[-1])
        best = products(tokens, tokens.gather(1, index)).max(dim=-1)
        first = torch.where(in_pool, best.values, best.values + 4.0)  # above every cosine
        first = first.scatter(1, destination, -torch.inf)
        removed = highest_first(first)[:, :budget]
        return Plan.build(removed, destination.gather(1, best.indices), "mean")

    def _in_pool(
        self, tokens: Tensor, grid: Grid, budget: int, importance: Tensor | None
    ) -> Tensor:
        """Which tokens are in the pool, bool (B, N); all where none is more important."""
        everywhere = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if importance is None:
            return everywhere
        kept = grid.num_tokens - budget
        size = min(grid.num_tokens, math.ceil(round(self.pool * kept, 9)))
        order = highest_first(importance)
        return (~everywhere).scatter(1, order[:, :size], value=True)


def _num_destinations(grid: Grid) -> int:
    return max(1, math.floor(DESTINATIONS * grid.num_tokens))
