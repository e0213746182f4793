"""Un-merging by slopes: a token gets its own part of what the layer would have given it.

A copy gives all members of a kept token one output, although they asked differently. The layer is
smooth in the token that asks, so that to first order the missing part is linear in what merging
took from the token. The map is read off the kept tokens of the same call: how outputs differ
between neighbours against how inputs do. Locally linear in a guide, as the guided filter (He and
others 2010), with one slope for the grid.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from retom.errors import ShapeError
from retom.token_plan import TokenPlan, repeated_rows

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.plan import Plan

EVERY = 4
"""Of so many rows of the grid one is read for neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearPlan(TokenPlan):
    """Merges as a :class:`retom.plan.Plan` does, and un-merges to copies that follow the token.

    With m the merged token that a token x joined and y(m) its output, x gets

        y(m) + (x - m) A,   A = (D' W D + a I)^-1 D' W E,

    a ridge regression over pairs of neighbours: D (pairs, C) are the differences of their merged
    tokens, E those of their outputs, W = 1 / (|d|² + the mean |x - m|²), so that pairs as far apart
    as tokens are from what they joined count most, and a is the mean of the diagonal of D' W D. The
    scales of tokens and outputs cancel, so nothing has to suit a layer. A token that stands only
    for itself copies its output bit-exact, as x - m is zero.

    About 3 N C² multiply-adds and a C x C system for each item: less than two of a layer's
    projections, O(N C²) as they are.

    Attributes:
        plan: The assignment.
        kept: See :class:`TokenPlan`.
        pair_rows: Rows among the merged tokens of one neighbour and of the other, int64 (2, B P).
    """

    plan: Plan
    kept: Tensor
    pair_rows: Tensor

    @staticmethod
    def build(plan: Plan, grid: Grid) -> LinearPlan:
        """Pair neighbours in every fourth row of the grid, or in its one column.

        Args:
            plan: The assignment, made for ``grid``.
            grid: Height and width of the tokens.
        """
        device = plan.slot.device
        token = torch.arange(grid.num_tokens, device=device).reshape(grid.height, grid.width)
        rows = token[::EVERY] if grid.width > 1 else token.T
        pairs = torch.stack([rows[:, :-1].reshape(-1), rows[:, 1:].reshape(-1)])
        item = torch.arange(plan.batch_size, device=device)[:, None] * plan.num_kept
        slots = [(plan.slot[:, side] + item).reshape(-1) for side in pairs]
        return LinearPlan(plan=plan, kept=plan.kept, pair_rows=torch.stack(slots))

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.plan.num_tokens

    @property
    def log_sizes(self) -> Tensor:
        """Logarithm of the number of members of every kept token, float32 (B, K)."""
        return self.plan.log_sizes

    def merge(self, x: Tensor) -> Tensor:
        """See :meth:`retom.plan.Plan.merge`."""
        return self.plan.merge(x)

    def unmerge(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Spread merged tokens (B, K, C) back to (B, N, C) of the same dtype.

        Args:
            y: What became of the merged tokens, (B, K, C).
            x: The tokens that merged, (B, N, D).

        Raises:
            ShapeError: ``y`` or ``x`` has another shape than that, or ``x`` is missing.
        """
        if x is None:
            raise ShapeError(
                "unmerge='linear' follows the tokens that merged: give them as well, as in "
                "plan.unmerge(y, x), or use unmerge='copy'."
            )
        copied = self.plan.unmerge(y)
        merged = self.plan.merge(x)
        missing = x - self.plan.unmerge(merged)
        with _in_full_precision(y):
            slope = self._slope(merged, y, missing)
            return copied.baddbmm_(missing.to(y.dtype), slope.to(y.dtype))

    def repeated(self, batch: int) -> LinearPlan:
        """See :meth:`TokenPlan.repeated`."""
        if batch == 1:
            return self
        plan = self.plan.repeated(batch)
        rows = [repeated_rows(side, batch, self.num_kept) for side in self.pair_rows]
        return LinearPlan(plan=plan, kept=plan.kept, pair_rows=torch.stack(rows))

    def _slope(self, merged: Tensor, y: Tensor, missing: Tensor) -> Tensor:
        """How outputs change with tokens, at least float32 (B, D, C)."""
        precise = torch.promote_types(y.dtype, torch.float32)
        apart = self._apart(merged).to(precise)
        answers = self._apart(y).to(precise)
        scale = missing.to(precise).square().sum(dim=-1).mean(dim=1)[:, None, None]
        # Where nothing merged and all tokens are equal both are zero, and so is the slope.
        tiny = torch.finfo(precise).tiny
        near = apart / (apart.square().sum(dim=-1, keepdim=True) + scale).clamp_min(tiny)
        gram, cross = near.mT @ apart, near.mT @ answers
        ridge = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(tiny)
        one = torch.eye(gram.shape[-1], dtype=precise, device=y.device)
        regular = gram + ridge[:, None, None] * one
        root = cast("Tensor", torch.linalg.cholesky_ex(regular).L)
        return torch.cholesky_solve(cross, root)

    def _apart(self, rows: Tensor) -> Tensor:
        """Differences of neighbours, (B, K, C) -> (B, P, C)."""
        flat = rows.reshape(-1, rows.shape[-1])
        first, second = (flat.index_select(0, side) for side in self.pair_rows)
        return (first - second).reshape(self.batch_size, -1, rows.shape[-1])


def _in_full_precision(y: Tensor) -> AbstractContextManager[object]:
    """No autocast, which would round the sums of a regression; the meta device knows none."""
    return nullcontext() if y.is_meta else torch.autocast(y.device.type, enabled=False)
