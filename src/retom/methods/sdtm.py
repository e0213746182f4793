"""The structure stage of SDTM, structure-then-detail token merging (CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import allocate, check_budget_left, eligible_slots, num_removed
from retom.checks import check_ratio, check_seed
from retom.grid import Grid, Windows, check_window
from retom.hints import NO_HINTS, Hints
from retom.methods.matching import fixed_draw
from retom.plan import Plan
from retom.representative import pair_cosine, unit_tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SDTM:
    """The most coherent windows collapse, each into a random one of its tokens.

    The coherence of a window is the mean cosine similarity of its pairs, (‖Σ x̂‖² - m) / (m (m - 1))
    for m tokens: O(N C). Windows collapse from the most coherent on until R tokens are gone, the
    last one in part.

    This is what the paper does while a picture's structure forms. Left out, because they need a
    memory of earlier calls: its bonus of 0.05 for windows that waited long, the detail stage after
    it, and the blend with cached features. A ratio that changes with the noise, as in the paper, is
    what ``Config.rules`` are for. ``allocation="coherence"`` of :class:`retom.methods.ReToM` ranks
    windows by the similarity to their representative instead, and keeps that.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        window: (height, width) of a window in tokens; smaller at the right and bottom edge where
            the grid does not divide.
        seed: Which draw of tokens that stay, the same in every call.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str] = "sdtm"

    ratio: float = 0.5
    window: tuple[int, int] = (2, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        object.__setattr__(self, "window", check_window(self.window))
        check_seed(self.seed)

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: The windows of ``grid`` cannot give up that many tokens.
        """
        return num_removed(self.ratio, Windows.over(grid, self.window))

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Refuse a mask, bool (N,) on the CPU, that leaves too few tokens that may go.

        Raises:
            BudgetError: The mask protects too many.
        """
        windows = Windows.over(grid, self.window)
        check_budget_left(self.ratio, self.num_removed(grid), (windows,), protected)

    @torch.no_grad()
    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> Plan:
        """Decide which tokens of ``x`` (B, N, C) merge into which.

        Protected tokens neither count in a window's coherence nor take part in its collapse.

        Raises:
            ShapeError: ``x`` does not have ``grid.num_tokens`` tokens.
            BudgetError: The ratio is out of the windows' reach.
        """
        grid.check_tokens(x)
        budget = self.num_removed(grid)
        windows = Windows.over(grid, self.window)
        if hints.protected is None:
            eligible = windows.valid(x.device)
        else:
            eligible = eligible_slots(windows, hints.protected)
        stays = self._survivor(windows, eligible)
        goes = eligible & (torch.arange(windows.area, device=x.device) != stays[:, None])
        coherence = pair_cosine(unit_tokens(x, windows) * eligible[..., None], eligible.sum(dim=-1))
        removed = allocate(
            "coherence",
            torch.where(goes, coherence[..., None], -torch.inf),
            windows,
            budget,
        )
        survivor = windows.token_index(x.device).gather(1, stays[:, None])
        target = windows.token_order(survivor.expand(-1, windows.area)[None])
        return Plan.build(removed, target.expand(len(x), -1), "mean")

    def _survivor(self, windows: Windows, eligible: Tensor) -> Tensor:
        """The slot of each window that the others merge into, int64 (num_windows,)."""
        draw = fixed_draw(windows.count * windows.area, self.seed).to(eligible.device)
        draw = draw.reshape(windows.count, windows.area)
        return draw.masked_fill(~eligible, -torch.inf).argmax(dim=-1)
