"""A method that shuffles tokens instead of merging them, for the permutation test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from retom.hints import NO_HINTS, Hints
from retom.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """Merges nothing and shuffles everything: a plan of N kept tokens in random order.

    ``num_removed`` says 1, so that hooks do not pass by a plan that removes nothing.
    """

    name: ClassVar[str] = "permutation"

    seed: int = 0

    @property
    def ratio(self) -> float:
        """Any ratio above 0: there is something to do."""
        return 0.5

    def num_removed(self, grid: Grid) -> int:
        """See the class."""
        return 1

    def check_protected(self, protected: Tensor, grid: Grid) -> None:
        """Every token may move."""

    def plan(self, x: Tensor, grid: Grid, hints: Hints = NO_HINTS) -> Plan:
        """Another order for every item of the batch (B, N, C)."""
        batch, tokens, _ = x.shape
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
        order = order.to(x.device)
        place = torch.argsort(order, dim=1)
        rows = torch.arange(batch, device=x.device)[:, None] * tokens
        start = torch.arange(batch * tokens, device=x.device)
        taken = (order + rows).reshape(-1)
        return Plan(order, place, taken, (place + rows).reshape(-1), taken, start, "representative")
