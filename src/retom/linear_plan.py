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
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ShapeError
from retom.grouped_plan import GroupedPlan
from retom.token_plan import repeated_rows

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.plan import Plan

PAIRS = 1024
"""Neighbours that are compared, about: in rows of the grid as far apart as that takes."""

RANK = 16
"""Directions of a token that count, where it has more than twice as many channels."""

_ALIKE = 1e-5
"""What keeps apart directions that are almost one, as a share of their mean square."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearPlan(GroupedPlan):
    """Merges as a :class:`retom.plan.Plan` does, and un-merges to copies that follow the token.

    With m the merged token that a token x joined and y(m) its output, x gets

        y(m) + (x - m) Q A,   A = (D' W D + a I)^-1 D' W E,

    a ridge regression over pairs of neighbours: D (pairs, d) are the differences of their merged
    tokens along Q, E those of their outputs, W = 1 / (|d|² + the mean |(x - m) Q|²), so that pairs
    as far apart as tokens are from what they joined count most (the mean is over one token of each
    pair), and a is the trace of D' W D over the number of channels. The scales of tokens and
    outputs cancel, so nothing has to suit a layer. Q (channels, d) is the identity up to 32
    channels. Of more it spans the 16 directions in which neighbours differ most, about: one power
    iteration from 16 signed sums of the pairs (Halko and others 2011), held constant in gradients.
    A token that stands only for itself copies its output bit-exact.

    About 2 N C d multiply-adds an item, 4 P C d for its P pairs, and systems of d x d: O(N C).

    Attributes:
        plan: The assignment.
        kept: See :class:`TokenPlan`.
        first_rows: Rows among the tokens of one neighbour of each pair, int64 (B P,).
        pair_rows: Rows among the merged tokens of that neighbour and of the other, int64 (2, B P).
        needs_tokens: Whether un-merging without the tokens is refused, or gives copies.
    """

    plan: Plan
    kept: Tensor
    first_rows: Tensor
    pair_rows: Tensor
    needs_tokens: bool

    @staticmethod
    def build(plan: Plan, grid: Grid, *, needs_tokens: bool) -> LinearPlan:
        """Pair neighbours in evenly spaced rows of the grid, or in its one column.

        Args:
            plan: The assignment, made for ``grid``.
            grid: Height and width of the tokens.
            needs_tokens: See the attribute.
        """
        device = plan.slot.device
        token = torch.arange(grid.num_tokens, device=device).reshape(grid.height, grid.width)
        rows = token[:: max(1, grid.num_tokens // PAIRS)] if grid.width > 1 else token.T
        pairs = torch.stack([rows[:, :-1].reshape(-1), rows[:, 1:].reshape(-1)])
        item = torch.arange(plan.batch_size, device=device)[:, None]
        slots = [(plan.slot[:, side] + item * plan.num_kept).reshape(-1) for side in pairs]
        return LinearPlan(
            plan=plan,
            kept=plan.kept,
            first_rows=(pairs[0] + item * grid.num_tokens).reshape(-1),
            pair_rows=torch.stack(slots),
            needs_tokens=needs_tokens,
        )

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Spread merged tokens (B, K, C) back to (B, N, C) of the same dtype.

        Args:
            y: What became of the merged tokens, (B, K, C).
            x: The tokens that merged, (B, N, D). Without them each token copies its kept token,
                unless the plan needs them.
            merged: ``merge(x)``, (B, K, D), where it is at hand and nobody wrote into it.

        Raises:
            ShapeError: ``y``, ``x`` or ``merged`` has another shape than that, or ``x`` is missing
                and needed.
        """
        if x is None and self.needs_tokens:
            raise ShapeError(
                "unmerge='linear' follows the tokens that merged: give them as well, as in "
                "plan.unmerge(y, x), or use unmerge='copy'."
            )
        copied = self.plan.unmerge(y)
        if x is None:
            return copied
        self.check(x, self.num_tokens, "merge")
        if merged is None:
            merged = self.plan.merge(x)
        self.check(merged, self.num_kept, "unmerge")
        if len(self.first_rows) == 0:  # a grid of one token
            return copied
        with _in_full_precision(y):
            apart = self._apart(merged)
            channels = x.shape[-1]
            wide = channels > 2 * RANK
            if wide:
                directions = _directions(apart)
                apart = apart @ directions
                x = x @ directions.to(x.dtype)
                # Means and picks commute with a map of channels, and few channels merge faster.
                linear = self.plan.mode != "norm_mean"
                merged = self.plan.merge(x) if linear else merged @ directions.to(x.dtype)
            beyond = self.plan.unmerge(merged).sub_(x)  # what merging added: the missing part, -1
            if wide:  # what passes as it is may be rounded otherwise among N rows than among K
                beyond.masked_fill_(self.plan.alone[:, :, None], 0.0)
            some = self._of_pairs(beyond, self.first_rows)
            # At most 1, so that no square is lost, and no product too large for half precision.
            unit = _largest(apart).maximum(_largest(beyond).to(apart.dtype))
            slope = _slope(apart / unit, self._apart(y), some / unit, channels)
            finite = torch.finfo(y.dtype).max
            slope = slope.clamp(-finite, finite).to(y.dtype)
            return copied.baddbmm_(beyond.div_(-unit).to(y.dtype), slope)

    def repeated(self, batch: int) -> LinearPlan:
        """See :meth:`TokenPlan.repeated`."""
        if batch == 1:
            return self
        plan = self.plan.repeated(batch)
        rows = [repeated_rows(side, batch, self.num_kept) for side in self.pair_rows]
        return LinearPlan(
            plan=plan,
            kept=plan.kept,
            first_rows=repeated_rows(self.first_rows, batch, self.num_tokens),
            pair_rows=torch.stack(rows),
            needs_tokens=self.needs_tokens,
        )

    def _apart(self, rows: Tensor) -> Tensor:
        """Differences of neighbours, (B, K, C) -> (B, P, C), at least float32."""
        first, second = (self._of_pairs(rows, side) for side in self.pair_rows)
        return first - second

    def _of_pairs(self, x: Tensor, rows: Tensor) -> Tensor:
        """Rows (B P,) of tokens (B, M, C), in at least float32: (B, P, C)."""
        picked = x.reshape(-1, x.shape[-1]).index_select(0, rows)
        picked = picked.reshape(self.batch_size, -1, x.shape[-1])
        return picked.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def _directions(apart: Tensor) -> Tensor:
    """An orthonormal basis of the directions in which neighbours differ most, (B, C, d)."""
    batch, pairs, channels = apart.shape
    rank = min(RANK, pairs)
    apart = apart / _largest(apart)
    # Sums, since a single pair may have merged into one token; signs, since the two edges of a
    # thing differ by opposite steps. Any fixed signs without a period do.
    place = torch.arange(pairs // rank * rank, device=apart.device)
    sign = 1 - 2 * ((place * 0x9E3779B1 >> 16) & 1)
    signed = apart[:, : len(place)] * sign[:, None]
    few = signed.reshape(batch, -1, rank, channels).sum(dim=1)
    found = apart.mT @ (apart @ few.mT)
    length = found.square().sum(dim=1, keepdim=True).sqrt()
    found = found / length.clamp_min(torch.finfo(found.dtype).tiny)
    return _solved(_cholesky(found.mT @ found, _ALIKE), found.mT).mT


def _slope(apart: Tensor, answers: Tensor, some: Tensor, channels: int) -> Tensor:
    """How outputs change along each direction, (B, d, C).

    Args:
        apart: Differences of neighbours, (B, P, d).
        answers: Those of their outputs, (B, P, C).
        some: What merging added to some tokens, (B, P, d).
        channels: Of a token; d is at most that.
    """
    scale = some.square().sum(dim=-1).mean(dim=1)[:, None, None]
    # Where nothing merged and all tokens are equal all is zero, and so is the slope.
    tiny = torch.finfo(apart.dtype).tiny
    near = apart.square().sum(dim=-1, keepdim=True) + scale
    near = apart / near.clamp_min(tiny)
    root = _cholesky(near.mT @ apart, apart.shape[-1] / channels)
    half = _solved(root, near.mT @ answers.to(apart.dtype))
    return _solved(root.mT, half, upper=True)


def _cholesky(gram: Tensor, ridge: float) -> Tensor:
    """Cholesky factor of gram + ridge times the mean of its diagonal, with no wait for a device."""
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    added = (ridge * mean).clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]
    one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factorise = cast("Any", torch.linalg.cholesky_ex)
    return cast("Tensor", factorise(gram + added * one)[0])


@torch.no_grad()
def _largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each item, (B, 1, 1), and not zero.

    A unit to compute in, which cancels: it is a constant for gradients too.
    """
    return rows.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def _solved(root: Tensor, sides: Tensor, *, upper: bool = False) -> Tensor:
    """The inverse of a triangular matrix times ``sides``."""
    solve = cast("Any", torch.linalg.solve_triangular)
    return cast("Tensor", solve(root, sides, upper=upper))


def _in_full_precision(y: Tensor) -> AbstractContextManager[object]:
    """No autocast, which would round the sums of a regression; the meta device knows none."""
    return nullcontext() if y.is_meta else torch.autocast(y.device.type, enabled=False)
