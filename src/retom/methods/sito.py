"""SiTo, similarity-based token pruning (Zhang et al., AAAI 2025), from its description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import num_removed
from retom.checks import check_seed
from retom.errors import ConfigError
from retom.grid import Grid, Windows, check_window
from retom.methods.matching import Matching, fixed_draw, products, unit
from retom.ordering import highest_first
from retom.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.hints import Hints


@dataclass(frozen=True, kw_only=True)
class SiTo(Matching):
    """Prunes the tokens most similar to base tokens, and recovers them from any kept token.

    The base token of a window is its token of the highest sum of cosine similarities to *all*
    tokens of the grid, plus noise. The R tokens most similar to a base token, anywhere, are pruned:
    the layer runs on the kept tokens as they are. Each pruned token then copies the output of the
    most similar kept one, base or not. It takes all N x N similarities, O(N² C) time and O(N²)
    memory.

    The authors draw new noise in every call, so that the same tokens are not pruned at every step.
    Here the draw depends on the grid and ``seed`` alone, because a plan must be repeatable.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        window: (height, width) of the windows that hold one base token each.
        score_noise: Standard deviation of the normal noise on a sum of similarities; the authors
            have 0.1.
        seed: Which draw, a whole number of at least 0.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str] = "sito"

    window: tuple[int, int] = (2, 2)
    score_noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "window", check_window(self.window))
        if type(self.score_noise) not in (int, float) or not 0 <= self.score_noise < math.inf:
            raise ConfigError(
                f"score_noise is a number of at least 0; {self.score_noise!r} was given."
            )
        check_seed(self.seed)

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: There are not so many tokens beside the base tokens.
        """
        return num_removed(self.ratio, Windows.over(grid, self.window))

    def match(self, x: Tensor, grid: Grid, budget: int, hints: Hints) -> Plan:
        """Prune the tokens nearest to a base token; recover each from the nearest kept one."""
        tokens = unit(x)
        base = self._base(tokens, grid)
        similarity = products(tokens, tokens)
        to_base = base[:, None].expand(-1, grid.num_tokens, -1)
        nearest = similarity.gather(2, to_base).amax(dim=-1).scatter(1, base, -torch.inf)
        removed = highest_first(nearest)[:, :budget]
        goes = torch.zeros_like(nearest, dtype=torch.bool).scatter(1, removed, value=True)
        target = similarity.masked_fill(goes[:, None], -torch.inf).argmax(dim=-1)
        return Plan.build(removed, target, "representative")

    def _base(self, tokens: Tensor, grid: Grid) -> Tensor:
        """The base token of every window, int64 (B, num_windows)."""
        windows = Windows.over(grid, self.window)
        # The sum of cosines to all tokens is one dot product with the sum of all unit tokens.
        score = (tokens * tokens.sum(dim=1, keepdim=True)).sum(dim=-1)
        draw = fixed_draw(grid.num_tokens, self.seed, normal=True).to(tokens.device)
        table = windows.token_index(tokens.device)
        slots = (score + self.score_noise * draw)[:, table]
        slots = slots.masked_fill(~windows.valid(tokens.device), -torch.inf)
        elected = slots.argmax(dim=-1, keepdim=True)
        return table.expand(len(tokens), -1, -1).gather(2, elected).squeeze(2)
