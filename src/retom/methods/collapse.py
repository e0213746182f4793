"""What methods share that look at places alone: every window becomes one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.allocation import most_removable
from retom.errors import ConfigError
from retom.grid import Grid, Windows, check_window
from retom.hints import NO_HINTS, Hints
from retom.ordering import lowest_first
from retom.plan import MergeMode, Plan

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Every window becomes one token in the place of its first.

    Args:
        window: (height, width) of a window in tokens; smaller at the right and bottom edge where
            the grid does not divide. It fixes the ratio: 1 - 1 / (height x width).

    Raises:
        ConfigError: The window is none.
    """

    name: ClassVar[str]
    mode: ClassVar[MergeMode]

    window: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", check_window(self.window))

    @property
    def ratio(self) -> float:
        """Fraction of the tokens that go where the grid divides."""
        return 1 - 1 / (self.window[0] * self.window[1])

    def num_removed(self, grid: Grid) -> int:
        """All but one token of each window."""
        return most_removable(Windows.over(grid, self.window))

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Refuse: every window collapses.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot protect tokens: every window becomes one. Use "
            "retom.ReToM, or protect(None)."
        )

    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> Plan:
        """The plan for tokens (B, N, C), which are not looked at.

        Raises:
            ShapeError: ``x`` does not have ``grid.num_tokens`` tokens.
        """
        grid.check_tokens(x)
        windows = Windows.over(grid, self.window)
        first = windows.token_index(x.device)[:, 0]
        target = windows.token_order(first[None, :, None].expand(1, -1, windows.area))
        token = torch.arange(grid.num_tokens, device=x.device)
        stays = (target == token).long()
        removed = lowest_first(stays)[:, : self.num_removed(grid)]
        batch = x.shape[0]
        return Plan.build(removed.expand(batch, -1), target.expand(batch, -1), self.mode)
