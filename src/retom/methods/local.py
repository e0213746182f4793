"""What all methods with local windows share: representatives in, plan out.

A method of this family differs from another only in how it elects the representative of a window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import ALLOCATIONS, Allocation, allocate, num_removed
from retom.errors import ConfigError, ShapeError
from retom.grid import Grid, Windows, check_window
from retom.plan import MERGE_MODES, MergeMode, Plan
from retom.representative import nearest_representative, unit_tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LocalMethod(ABC):
    """Merging inside local windows around one representative a window.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1. 0 bypasses merging altogether.
            Exactly floor(ratio N) tokens go; a window of m tokens can give up m - 1.
        window: (height, width) of a window in tokens. Windows at the right and bottom edge are
            smaller where the grid does not divide.
        allocation: Which tokens go: ``similarity``, ``coherence`` or ``uniform``, see
            :func:`retom.allocation.allocate`.
        reach: How many windows away a token may find its representative: 0 only in its own window,
            1 in the 3x3 windows around it, and so on.
        merge: How members become one token: ``mean``, ``representative`` or ``norm_mean``, see
            :class:`retom.plan.Plan`.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str]

    ratio: float = 0.5
    window: tuple[int, int] = (2, 2)
    allocation: Allocation = "similarity"
    reach: int = 0
    merge: MergeMode = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, (int, float)) or isinstance(self.ratio, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"ratio is a number in [0, 1); {self.ratio!r} was given.")
        if not 0 <= self.ratio < 1:
            raise ConfigError(
                "ratio is the fraction of the tokens to remove, at least 0 and less than 1; "
                f"{self.ratio} was given. Use 0.5 to remove half of them."
            )
        object.__setattr__(self, "window", check_window(self.window))
        self._check_choice("allocation", self.allocation, ALLOCATIONS)
        self._check_choice("merge", self.merge, MERGE_MODES)
        if type(self.reach) is not int or self.reach < 0:
            raise ConfigError(
                "reach is a number of windows, a whole number of at least 0; "
                f"{self.reach!r} was given."
            )

    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R: a function of sizes alone.

        Raises:
            BudgetError: The windows of ``grid`` cannot give up that many tokens.
        """
        return num_removed(self.ratio, Windows(grid, *self.window))

    @torch.no_grad()
    def plan(self, x: Tensor, grid: Grid) -> Plan:
        """Decide which tokens of ``x`` merge into which.

        Args:
            x: Tokens in raster order, any float dtype, (B, N, C) with N = grid.num_tokens.
                Similarities are computed in float32; ``x`` is not modified and no gradient flows
                through choices.
            grid: Height and width of the tokens.

        Returns:
            A plan with exactly N - ``num_removed(grid)`` kept tokens for every item of the batch,
            each item planned on its own.

        Raises:
            ShapeError: ``x`` does not have ``grid.num_tokens`` tokens.
            BudgetError: The ratio is out of the windows' reach.
        """
        if x.ndim != 3 or x.shape[1] != grid.num_tokens:
            raise ShapeError(
                f"A plan for a {grid} grid needs tokens of shape (batch, {grid.num_tokens}, "
                f"channels); {tuple(x.shape)} was given."
            )
        windows = Windows(grid, *self.window)
        budget = num_removed(self.ratio, windows)
        unit = unit_tokens(x, windows)
        representative = self.elect(unit, windows)
        target, similarity = nearest_representative(unit, representative, windows, self.reach)
        removed = allocate(self.allocation, similarity, windows, budget)
        return Plan.build(removed, windows.token_order(target), self.merge)

    @abstractmethod
    def elect(self, unit: Tensor, windows: Windows) -> Tensor:
        """Elect one representative a window.

        Args:
            unit: Unit tokens in window order, float32 (B, num_windows, window_area, C).
            windows: The partition.

        Returns:
            Slot of the representative in each window, int64 (B, num_windows).
        """

    @staticmethod
    def _check_choice(option: str, value: object, allowed: tuple[str, ...]) -> None:
        if value not in allowed:
            raise ConfigError(f"{option} is one of {', '.join(allowed)}; {value!r} was given.")
