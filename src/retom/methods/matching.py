"""What methods share that match tokens by matrices of similarities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.checks import check_ratio
from retom.errors import ConfigError
from retom.hints import NO_HINTS, Hints

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.token_plan import TokenPlan


@dataclass(frozen=True, kw_only=True)
class Matching(ABC):
    """Matching over more than a window: it has no place to protect tokens.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.

    Raises:
        ConfigError: An option is out of its range.
    """

    name: ClassVar[str]

    ratio: float = 0.5

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    @abstractmethod
    def num_removed(self, grid: Grid) -> int:
        """Tokens that a plan for ``grid`` removes, R = floor(ratio N).

        Raises:
            BudgetError: There are not so many that may go.
        """

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Refuse: there is no place to protect tokens.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot protect tokens. Use retom.ReToM, or protect(None)."
        )

    @torch.no_grad()
    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> TokenPlan:
        """Decide which tokens of ``x`` (B, N, C) merge into which.

        Similarities are cosines in float32; ties go to the lowest index.

        Raises:
            ShapeError: ``x`` does not have ``grid.num_tokens`` tokens.
            BudgetError: The ratio is out of reach.
        """
        grid.check_tokens(x)
        return self.match(x, grid, self.num_removed(grid), hints)

    @abstractmethod
    def match(self, x: Tensor, grid: Grid, budget: int, hints: Hints) -> TokenPlan:
        """The plan for tokens of the right shape that removes ``budget`` of them."""


def unit(x: Tensor) -> Tensor:
    """Tokens at length one, float32."""
    return torch.nn.functional.normalize(x.float(), dim=-1)


def products(x: Tensor, y: Tensor) -> Tensor:
    """Dot products of (B, ..., M, C) and (B, ..., L, C), (B, ..., M, L).

    Item by item: one matmul for a whole batch may round otherwise than for an item alone.
    """
    return torch.stack([x[item] @ y[item].transpose(-1, -2) for item in range(len(x))])


def fixed_draw(size: int, seed: int, *, normal: bool = False) -> Tensor:
    """Random numbers (size,) on the CPU that depend on ``seed`` alone: uniform, or normal."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn if normal else torch.rand)(size, generator=generator)
