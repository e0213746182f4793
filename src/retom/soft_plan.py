"""Un-merging softer than a copy: a token mixes the outputs of the kept tokens around it.

Merged tokens are a coarse picture of the layer's output, and the tokens before merging say where
its edges run. Filling in the fine picture from both is joint bilateral upsampling (Kopf et al.
2007), here with the similarity of tokens as the guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import embedding_bag

from retom.grid import beside
from retom.grouped_plan import GroupedPlan
from retom.representative import at_length_one
from retom.token_plan import repeated_rows

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid
    from retom.plan import Plan

OFFSETS = ((0, 0), (-1, 0), (0, -1), (0, 1), (1, 0))
"""Rows down and columns right of the tokens that a token asks, itself first."""

SHARPNESS = 2
"""Power of the cosine distance that weights fall with; more comes closer to a copy."""


@dataclass(frozen=True, slots=True, eq=False)
class SoftPlan(GroupedPlan):
    """Merges as a :class:`retom.plan.Plan` does, and un-merges to mixtures.

    A token that was merged with others takes a weighted mean over itself and the tokens above, to
    the left, to the right and below it: of the outputs of the kept tokens that stand for these
    five. A weight is 1 / d² with d the cosine distance of the token to the *merged* token, so no
    temperature has to suit a layer, and a kept token that stands for several of the five counts
    as often. A neighbour beyond the border is the token itself. A token that stands only for
    itself copies its output bit-exact.

    Five dot products a token when planning and five rows read for one when un-merging: O(N C).

    Attributes:
        plan: The assignment.
        kept: See :class:`TokenPlan`.
        rows: Rows among the merged tokens that a token mixes, int64 (B N, 5).
        weights: Their weights, of sum 1, float32 (B N, 5).
    """

    plan: Plan
    kept: Tensor
    rows: Tensor
    weights: Tensor

    @staticmethod
    @torch.no_grad()
    def build(plan: Plan, x: Tensor, grid: Grid) -> SoftPlan:
        """Weigh the neighbours of every token.

        Args:
            plan: The assignment, made for ``grid``.
            x: Tokens whose similarity counts, any float dtype, (B, N, C).
            grid: Height and width of the tokens.
        """
        batch, num_tokens, _ = x.shape
        slots = plan.slot[:, beside(grid.height, grid.width, OFFSETS, x.device)]  # (B, N, 5)
        item = torch.arange(batch, device=x.device)[:, None, None]
        rows = (slots + item * plan.num_kept).reshape(batch * num_tokens, len(OFFSETS))
        unit = at_length_one(x).flatten(0, 1)
        merged = at_length_one(plan.merge(x.float())).flatten(0, 1)
        similarity = torch.stack(
            [(unit * merged.index_select(0, row)).sum(dim=-1) for row in rows.unbind(dim=1)], dim=1
        )
        # Rounding leaves a distance of about 1e-7 to oneself; no weight may become infinite.
        weights = (1.0 - similarity).clamp_min(1e-6) ** -SHARPNESS
        weights = weights / weights.sum(dim=1, keepdim=True)
        alone = plan.alone.reshape(-1, 1)
        copy = torch.zeros_like(weights[:1])
        copy[:, 0] = 1.0
        return SoftPlan(
            plan=plan,
            kept=plan.kept,
            rows=torch.where(alone, rows[:, :1], rows),
            weights=torch.where(alone, copy, weights),
        )

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Mix merged tokens (B, K, C) to (B, N, C) of the same dtype.

        Raises:
            ShapeError: ``y`` is not (B, K, C) for this plan's B and K.
        """
        self.check(y, self.num_kept, "unmerge")
        merged = y.reshape(-1, y.shape[-1])
        weights = self.weights.to(y.dtype)
        mixed = embedding_bag(self.rows, merged, mode="sum", per_sample_weights=weights)
        return mixed.reshape(self.batch_size, self.num_tokens, y.shape[-1])

    def repeated(self, batch: int) -> SoftPlan:
        """See :meth:`TokenPlan.repeated`."""
        if batch == 1:
            return self
        plan = self.plan.repeated(batch)
        return SoftPlan(
            plan=plan,
            kept=plan.kept,
            rows=repeated_rows(self.rows, batch, self.num_kept),
            weights=self.weights.repeat(batch, 1),
        )
