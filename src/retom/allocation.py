"""Allocations: which R tokens of a grid go, given how similar each is to its representative.

Every allocation removes exactly R tokens on any grid, R a function of sizes alone. Sorts are
stable, so ties go to the lowest index and a plan is the same on every run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch

from retom.errors import BudgetError
from retom.ordering import highest_first, lowest_first

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid, Windows

Allocation = Literal["similarity", "coherence", "uniform"]
ALLOCATIONS: tuple[str, ...] = get_args(Allocation)


def num_asked(ratio: float, grid: Grid) -> int:
    """Tokens that a ratio asks to remove, R = floor(ratio N).

    The product is rounded at the ninth decimal first, so that 0.29 of 100 tokens is 29 although
    ``0.29 * 100`` is slightly less in binary.
    """
    return math.floor(round(ratio * grid.num_tokens, 9))


def num_removed(ratio: float, windows: Windows, most: int | None = None) -> int:
    """Tokens to remove, R of :func:`num_asked`, if the windows can give up as many.

    Args:
        ratio: Fraction of the tokens to remove.
        windows: The partition, for its grid and for the message.
        most: Tokens that can go at most; all but one of each window if not given.

    Raises:
        BudgetError: R is more than that.
    """
    grid = windows.grid
    removed = num_asked(ratio, grid)
    most = most_removable(windows) if most is None else most
    if removed > most:
        limit = math.floor(most / grid.num_tokens * 1000) / 1000
        raise BudgetError(
            f"ratio {ratio:g} asks to remove {removed} of the {grid.num_tokens} tokens of a {grid} "
            f"grid, but windows of {windows.height}x{windows.width} can give up {most} at most "
            f"(ratio {limit:g}). Lower the ratio or use a larger window, for example "
            f"window=({2 * windows.height}, {2 * windows.width})."
        )
    return removed


def most_removable(windows: Windows, protected: Tensor | None = None) -> int:
    """Tokens that can go at most: all but one of each window, and none that is protected.

    Args:
        windows: The partition.
        protected: Tokens that must not go, bool (N,); on the CPU, or the device waits.
    """
    if protected is None:
        return windows.grid.num_tokens - windows.count
    may_go = eligible_slots(windows, protected).sum(dim=-1)
    return int((may_go - 1).clamp_min(0).sum())


def leaning(removed: int, most: int, kv_lean: float) -> tuple[int, int]:
    """Share a budget out between queries, and keys and values, that merge apart.

    Args:
        removed: R, tokens that go of either where they merge alike.
        most: Tokens that can go at most.
        kv_lean: How far to go, 0 to 1: this share of the room that there is, min(R, most - R).

    Returns:
        Queries, and keys and values, that go: twice R in all.
    """
    shift = math.floor(round(kv_lean * min(removed, most - removed), 9))
    return removed - shift, removed + shift


def check_budget_left(
    ratio: float, num_removed: int, partitions: tuple[Windows, ...], protected: Tensor
) -> None:
    """Refuse a mask that leaves too few tokens that may go.

    Args:
        ratio: What was asked, for the message.
        num_removed: Tokens to remove, R.
        partitions: Every partition that may be used.
        protected: Tokens that must not go, bool (N,), on the CPU.

    Raises:
        BudgetError: The mask protects too many.
    """
    most = min(most_removable(windows, protected) for windows in partitions)
    if num_removed > most:
        windows = partitions[0]
        raise BudgetError(
            f"ratio {ratio:g} asks to remove {num_removed} of the {windows.grid.num_tokens} tokens "
            f"of a {windows.grid} grid, but with {int(protected.sum())} of them protected windows "
            f"of {windows.height}x{windows.width} can give up {most} at most. Lower the ratio, use "
            "a larger window or protect less."
        )


def eligible_slots(windows: Windows, protected: Tensor) -> Tensor:
    """Slots that hold a token that is not protected, bool (num_windows, window_area)."""
    free = ~protected[windows.token_index(protected.device)]
    return free & windows.valid(protected.device)


def allocate(
    allocation: Allocation, similarity: Tensor, windows: Windows, num_removed: int
) -> Tensor:
    """Choose the tokens to remove.

    Args:
        allocation: ``similarity``: the tokens most similar to their representative, wherever they
            are. ``coherence``: the windows whose tokens are most similar to their representatives
            collapse one after another, the last one as far as the budget goes; the others stay
            whole. ``uniform``: as equal a share of every window as whole tokens allow, at fixed
            places; within a window the most similar tokens go.
        similarity: Of each token to the representative it would join, float32 (B, num_windows,
            window_area); -inf where a token may not go.
        windows: The partition that ``similarity`` is ordered by.
        num_removed: R, from :func:`num_removed`.

    Returns:
        Token indices, int64 (B, R).
    """
    if allocation == "similarity":
        order = highest_first(windows.token_order(similarity))
    elif allocation == "coherence":
        order = _by_window_coherence(similarity, windows)
    else:
        order = _by_quota(similarity, windows, num_removed)
    return order[:, :num_removed]


def _by_window_coherence(similarity: Tensor, windows: Windows) -> Tensor:
    """Order tokens by the rank of their window, then by their own similarity; (B, N)."""
    may_go = ~torch.isneginf(similarity)  # also where it is no number
    members = may_go.sum(dim=-1)
    total = similarity.masked_fill(~may_go, 0.0).sum(dim=-1)
    coherence = (total / members.clamp_min(1)).masked_fill(members == 0, -torch.inf)
    rank = highest_first(coherence).argsort(dim=1)  # the inverse permutation: no ties below
    slots = rank[..., None].expand(similarity.shape)
    # Representatives go last of all, behind every window.
    window_rank = windows.token_order(torch.where(may_go, slots, windows.count))
    by_similarity = highest_first(windows.token_order(similarity))
    by_rank = lowest_first(window_rank.gather(1, by_similarity))
    return by_similarity.gather(1, by_rank)


def _by_quota(similarity: Tensor, windows: Windows, num_removed: int) -> Tensor:
    """Order tokens with each window's quota of most similar tokens first; (B, N).

    The quota of a window is what it adds to floor(c R / T) when c counts, window by window in
    raster order, the tokens that may go and T is their total: an even spread.
    """
    capacity = (~torch.isneginf(similarity)).sum(dim=-1)  # also where it is no number
    spread = torch.cumsum(capacity, dim=1) * num_removed
    spread = spread // capacity.sum(dim=1, keepdim=True).clamp_min(1)
    quota = torch.diff(spread, dim=1, prepend=torch.zeros_like(spread[:, :1]))
    rank = torch.sort(similarity, dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    stays = rank >= quota[..., None]
    return lowest_first(windows.token_order(stays.long()))
