"""A plan that is a matrix: every kept token is a weighted mean, and so is every token again.

Where a :class:`retom.plan.Plan` moves rows, this one multiplies: for N tokens of C channels and k
kept ones in a window, 2 N k C multiply-adds to merge and as many to un-merge. With one window as
large as the grid that is O(N K C), in the order of the attention products that merging saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.token_plan import TokenPlan, repeated_rows

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Windows


@dataclass(frozen=True, slots=True, eq=False)
class MatrixPlan(TokenPlan):
    """Linear maps between the tokens and the kept tokens of each window.

    W windows of ``area`` slots keep k tokens at most; where a window keeps fewer, or has fewer
    tokens, rows and columns of zeros fill the matrix. Rows count through the batch.

    Attributes:
        kept: See :class:`TokenPlan`.
        down: From slots to kept tokens, float32 (B, W, k, area), rows of sum 1.
        up: From kept tokens to slots, float32 (B, W, area, k).
        log_mass: Logarithm of how many tokens each kept one stands for, float32 (B, K).
        slot_rows: Row of the token in each slot, int64 (B W area,).
        kept_rows: Row among B W k products of each kept token, int64 (B K,).
        product_rows: Row among B K kept tokens of each product, int64 (B W k,); any for a filler.
        token_rows: Row among B W area slots of each token, int64 (B N,).
    """

    kept: Tensor
    down: Tensor
    up: Tensor
    log_mass: Tensor
    slot_rows: Tensor
    kept_rows: Tensor
    product_rows: Tensor
    token_rows: Tensor

    @staticmethod
    def build(
        windows: Windows, chosen: Tensor, num_kept: int, down: Tensor, up: Tensor, mass: Tensor
    ) -> MatrixPlan:
        """Put the matrices of all windows together.

        Args:
            windows: The partition.
            chosen: Kept token of each row of ``down``, int64 (B, W, k); N for a filler.
            num_kept: K, how many are none.
            down: float32 (B, W, k, area); zero for fillers and for slots beyond the edge.
            up: float32 (B, W, area, k); the same.
            mass: How many tokens each row of ``down`` stands for, float32 (B, W, k).
        """
        batch = len(chosen)
        tokens = windows.grid.num_tokens
        device = chosen.device
        item = torch.arange(batch, device=device)[:, None]
        flat = chosen.flatten(1)
        # Kept tokens differ, so sorting them puts fillers last, and raster order first.
        order = torch.sort(flat, dim=1, stable=True)
        place = order.indices[:, :num_kept]
        rank = torch.zeros_like(flat).scatter(1, order.indices, _count_up(flat))
        slots = windows.token_index(device).flatten()
        places = torch.arange(windows.count * windows.area, device=device)
        token_place = windows.token_order(places.reshape(1, windows.count, windows.area))
        return MatrixPlan(
            kept=order.values[:, :num_kept],
            down=down,
            up=up,
            log_mass=mass.flatten(1).gather(1, place).log(),
            slot_rows=(slots + item * tokens).flatten(),
            kept_rows=(place + item * flat.shape[1]).flatten(),
            product_rows=(rank.clamp_max(num_kept - 1) + item * num_kept).flatten(),
            token_rows=(token_place + item * places.numel()).flatten(),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens before merging, N."""
        return self.token_rows.numel() // self.batch_size

    @property
    def log_sizes(self) -> Tensor:
        """Logarithm of the tokens that each kept one stands for, float32 (B, K)."""
        return self.log_mass

    def merge(self, x: Tensor) -> Tensor:
        """Multiply tokens (B, N, C) to (B, K, C) of the same dtype.

        Raises:
            ShapeError: ``x`` is not (B, N, C) for this plan's B and N.
        """
        self.check(x, self.num_tokens, "merge")
        slots = x.reshape(-1, x.shape[-1]).index_select(0, self.slot_rows)
        products = self.down.to(x.dtype) @ slots.reshape(*self.up.shape[:3], -1)
        rows = products.reshape(-1, x.shape[-1]).index_select(0, self.kept_rows)
        return rows.reshape(self.batch_size, self.num_kept, x.shape[-1])

    def unmerge(self, y: Tensor, x: Tensor | None = None, merged: Tensor | None = None) -> Tensor:
        """Multiply merged tokens (B, K, C) back to (B, N, C) of the same dtype.

        Raises:
            ShapeError: ``y`` is not (B, K, C) for this plan's B and K.
        """
        self.check(y, self.num_kept, "unmerge")
        merged = y.reshape(-1, y.shape[-1]).index_select(0, self.product_rows)
        slots = self.up.to(y.dtype) @ merged.reshape(*self.down.shape[:3], -1)
        rows = slots.reshape(-1, y.shape[-1]).index_select(0, self.token_rows)
        return rows.reshape(self.batch_size, self.num_tokens, y.shape[-1])

    def repeated(self, batch: int) -> MatrixPlan:
        """See :meth:`TokenPlan.repeated`."""
        if batch == 1:
            return self
        products, slots = self.product_rows.numel(), self.slot_rows.numel()
        return MatrixPlan(
            kept=self.kept.expand(batch, -1),
            down=self.down.expand(batch, -1, -1, -1),
            up=self.up.expand(batch, -1, -1, -1),
            log_mass=self.log_mass.expand(batch, -1),
            slot_rows=repeated_rows(self.slot_rows, batch, self.num_tokens),
            kept_rows=repeated_rows(self.kept_rows, batch, products),
            product_rows=repeated_rows(self.product_rows, batch, self.num_kept),
            token_rows=repeated_rows(self.token_rows, batch, slots),
        )


def _count_up(like: Tensor) -> Tensor:
    """0, 1, 2, ... in every row."""
    return torch.arange(like.shape[1], device=like.device).expand_as(like)
