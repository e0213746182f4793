"""Windows of two sizes: large ones where tokens are very alike, small ones elsewhere.

This is one way to adjust window sizes to content, which the paper (arXiv:2507.12771) asks for and
leaves open. How many large windows collapse is a function of sizes alone, which ones is the data's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.grid import Windows
from retom.ordering import highest_first

if TYPE_CHECKING:
    from torch import Tensor

COARSE_SHARE = 0.5
"""Share of the budget that large windows serve where the grid has enough of them."""


@dataclass(frozen=True, slots=True)
class TwoScales:
    """Small windows, and large ones of 2 x 2 small ones each.

    Args:
        fine: The small windows.
    """

    fine: Windows

    @property
    def coarse(self) -> Windows:
        """The large windows; a large window that is not at the edge holds four small ones."""
        fine = self.fine
        return Windows(fine.grid, 2 * fine.height, 2 * fine.width, fine.top, fine.left)

    @property
    def num_full(self) -> int:
        """Large windows without a missing token; only these collapse."""
        fine, grid = self.fine, self.fine.grid
        rows = (grid.height + fine.top) // (2 * fine.height) - bool(fine.top)
        columns = (grid.width + fine.left) // (2 * fine.width) - bool(fine.left)
        return max(rows, 0) * max(columns, 0)

    @property
    def most(self) -> int:
        """Tokens that can go at most: a large window gives up three more than its small ones."""
        return self.fine.grid.num_tokens - self.fine.count + 3 * self.num_full

    def num_collapsed(self, num_removed: int) -> int:
        """Large windows that collapse when ``num_removed`` tokens go."""
        wanted = math.floor(COARSE_SHARE * num_removed / (self.coarse.area - 1))
        missing = num_removed - (self.fine.grid.num_tokens - self.fine.count)
        return min(max(wanted, -(-missing // 3)), self.num_full)


def allocate_two_scales(
    scales: TwoScales,
    fine: tuple[Tensor, Tensor],
    coarse: tuple[Tensor, Tensor],
    num_removed: int,
) -> tuple[Tensor, Tensor]:
    """Choose the tokens to remove: the most coherent large windows, then the most similar tokens.

    Args:
        scales: The partitions.
        fine: For each token of the small windows, in their window order, the token it joins, int64
            (B, num_windows, window_area), and the similarity to it, float32, -inf where it stays.
        coarse: The same for the large windows.
        num_removed: R, at most ``scales.most``.

    Returns:
        Tokens that go, int64 (B, R), and for every token the one it joins if it goes, int64 (B, N).
    """
    windows = scales.coarse
    target, similarity = coarse
    goes = ~torch.isneginf(similarity)  # also where it is no number
    full = goes.sum(dim=-1) == windows.area - 1
    coherence = similarity.masked_fill(~goes, 0.0).sum(dim=-1).masked_fill(~full, -torch.inf)
    order = highest_first(coherence)
    chosen = order[:, : scales.num_collapsed(num_removed)]
    collapses = torch.zeros_like(full).scatter(1, chosen, value=True)[..., None]
    inside = windows.token_order(collapses.expand_as(goes))
    # Above every cosine: tokens of collapsed windows go first, their representatives never.
    first = windows.token_order(torch.where(goes, 2.0, -torch.inf))
    key = torch.where(inside, first, scales.fine.token_order(fine[1]))
    removed = highest_first(key)[:, :num_removed]
    joined = torch.where(inside, windows.token_order(target), scales.fine.token_order(fine[0]))
    return removed, joined
