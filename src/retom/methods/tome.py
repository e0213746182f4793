"""ToMe for Stable Diffusion (Bolya and Hoffman 2023, arXiv:2303.17604), the baseline of the paper.

Written from the paper's description; `tests/test_method_tome.py` compares the assignment with that
of the authors' package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from retom.allocation import leaning, num_removed
from retom.checks import check_choice, check_kv_lean
from retom.grid import Grid, Windows, check_window
from retom.linear_plan import LinearPlan
from retom.methods.matching import Matching, unit
from retom.ordering import highest_first
from retom.plan import Plan
from retom.split_plan import SplitPlan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.hints import Hints
    from retom.token_plan import TokenPlan


@dataclass(frozen=True, kw_only=True)
class ToMe(Matching):
    """Bipartite matching over the whole grid: any token may join the best of the destinations.

    One token of every window is a destination, here the first, which is what the authors' package
    does with ``use_rand=False``. Each other token finds the most similar destination anywhere, and
    the R best pairs merge by their mean. That is a similarity matrix of 3/4 N x 1/4 N: O(N² C).

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        window: (height, width) of the windows that hold one destination each.
        kv_lean: How far merging leans towards keys and values, see
            :class:`retom.methods.local.LocalMethod`; the authors' is 0.
        unmerge: ``copy``, as the authors do, or ``linear``, see
            :class:`retom.linear_plan.LinearPlan`.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str] = "tome"

    window: tuple[int, int] = (2, 2)
    kv_lean: float = 0.0
    unmerge: Literal["copy", "linear"] = "copy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kv_lean(self.kv_lean)
        check_choice("unmerge", self.unmerge, ("copy", "linear"))
        object.__setattr__(self, "window", check_window(self.window))

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: There are not so many tokens beside the destinations.
        """
        return num_removed(self.ratio, Windows.over(grid, self.window), self._most(grid))

    def removed_apart(self, grid: Grid) -> tuple[int, int]:
        """Queries, and keys and values, that go where they merge apart: twice R in all."""
        return leaning(self.num_removed(grid), self._most(grid), self.kv_lean)

    def match(self, x: Tensor, grid: Grid, budget: int, hints: Hints) -> TokenPlan:
        """The best pairs of any token and any destination."""
        apart = hints.apart and self.kv_lean > 0
        queries, keys = self.removed_apart(grid) if apart else (budget, budget)
        groups = self._match(x, grid, queries)
        plan = (
            LinearPlan.build(groups, grid, needs_tokens=True)
            if self.unmerge == "linear"
            else groups
        )
        return SplitPlan.build(plan, self._match(x, grid, keys)) if apart else plan

    def _match(self, x: Tensor, grid: Grid, budget: int) -> Plan:
        if budget == 0:  # also where a grid has no whole window, and so no destination
            token = torch.arange(grid.num_tokens, device=x.device).expand(len(x), -1)
            return Plan.build(token[:, :0], token, "mean")
        first = self._destinations(grid, x.device)
        tokens = unit(x)
        similarity = tokens @ tokens[:, first].transpose(1, 2)
        best = similarity.max(dim=-1)
        stays = torch.zeros(grid.num_tokens, dtype=torch.bool, device=x.device)
        stays[first] = True
        score = best.values.masked_fill(stays, -torch.inf)
        removed = highest_first(score)[:, :budget]
        return Plan.build(removed, first[best.indices], "mean")

    def _destinations(self, grid: Grid, device: torch.device) -> Tensor:
        """The first token of every whole window; what a ragged edge leaves over only joins."""
        height, width = self.window
        rows = torch.arange(grid.height // height, device=device) * height
        columns = torch.arange(grid.width // width, device=device) * width
        return (rows[:, None] * grid.width + columns).reshape(-1)

    def _most(self, grid: Grid) -> int:
        height, width = self.window
        destinations = (grid.height // height) * (grid.width // width)
        return grid.num_tokens - destinations if destinations else 0
