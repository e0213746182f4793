"""The schedule of least damage within a time: a knapsack with one choice a cell.

A *cell* is an attention level in a stretch of noise. In each cell k one of J choices j is taken;
not to merge is one of them. It takes a time t_kj and does a damage d_kji to each picture i that is
tuned on: the mean squared error to the un-merged picture, pictures in [0, 1]. Both are taken to add
up over cells, so that with D_i = Σ_k d_kj(k)i

    maximise  PSNR = mean_i -10 log10(D_i)   subject to   Σ_k t_kj(k) ≤ T.

With the errors of two cells independent, mean squared errors do add up; how far they do is measured
and reported with every schedule. Time is counted in whole units, each choice's rounded up.

For weights w_i instead of the logarithm the problem is a multiple-choice knapsack, which a dynamic
programme over units solves exactly: with F_k(u) the least weighted damage of the first k cells in u
units, F_k(u) = min_j F_k-1(u - t_kj) + Σ_i w_i d_kji. The logarithm is concave, so that it lies
below its tangent at the last solution: solving again with w_i = 1 / D_i can only raise the mean
PSNR (majorise-minimise, Hunter and Lange 2004), until it stands still. That is exact for one
picture, and for several the best of two starts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

UNITS = 10_000
"""Units that an un-merged picture takes."""

NOTHING = 1e-10
"""Damage added to every picture's, so that none is 0: its PSNR is 100 dB, as of equal pictures."""

_MOST_ROUNDS = 50


def knapsack(times: Tensor, damage: Tensor, budget: int) -> list[int]:
    """The choice of each cell with the least damage in all, exactly.

    Args:
        times: Whole units of at least 0, int64 (K, J).
        damage: Of each, float64 (K, J); infinite where a cell lacks a choice.
        budget: Units that all cells may take.

    Returns:
        K choices. Of equal damage the choice of the lowest index, in the last cells first.

    Raises:
        ConfigError: The fastest choices take more.
    """
    least = int(times.masked_fill(damage.isinf(), budget + 1).amin(dim=1).sum())
    if least > budget:
        raise ConfigError(
            f"Even the fastest choices take {least} units of time; {budget} are allowed."
        )
    best = torch.zeros(budget + 1, dtype=torch.float64)
    taken: list[Tensor] = []
    for cell_times, cell_damage in zip(_whole(times), _numbers(damage), strict=True):
        options = torch.full((len(cell_times), budget + 1), torch.inf, dtype=torch.float64)
        for choice, (units, harm) in enumerate(zip(cell_times, cell_damage, strict=True)):
            if units <= budget:
                options[choice, units:] = best[: budget + 1 - units] + harm
        taken.append(options.argmin(dim=0))  # the first of equals
        best = options.amin(dim=0)
    left, found = budget, [0] * len(taken)
    for cell in reversed(range(len(taken))):
        found[cell] = int(taken[cell][left])
        left -= int(times[cell, found[cell]])
    return found


def least_damage(times: Tensor, damage: Tensor, budget: int) -> list[int]:
    """The choice of each cell with the highest mean PSNR that the reweighting finds.

    Args:
        times: As for :func:`knapsack`.
        damage: To each picture, float64 (K, J, n); infinite where a cell lacks a choice.
        budget: Units that all cells may take.

    Raises:
        ConfigError: The fastest choices take more.
    """
    finite = damage.nan_to_num(posinf=0.0)
    scale = finite.mean(dim=(0, 1)).clamp_min(NOTHING)
    starts = (torch.ones_like(scale), 1 / scale)
    found = [_reweighted(times, damage, budget, weights) for weights in starts]
    return max(found, key=lambda choices: mean_psnr(damage, choices))


def mean_psnr(damage: Tensor, choices: list[int]) -> float:
    """Predicted PSNR in dB, the mean over pictures, at most 100.

    Args:
        damage: float64 (K, J, n).
        choices: One a cell.
    """
    return float((-10 * total_damage(damage, choices).log10()).mean())


def total_damage(damage: Tensor, choices: list[int]) -> Tensor:
    """Predicted mean squared error of each picture, float64 (n,)."""
    cells = torch.arange(len(choices))
    return damage[cells, torch.tensor(choices)].sum(dim=0) + NOTHING


def fastest(times: Tensor, damage: Tensor) -> list[int]:
    """The fastest choice of each cell; of equals the one of least damage, then the first."""
    found: list[int] = []
    for units, harm in zip(_whole(times), _numbers(damage.mean(dim=2)), strict=True):
        options = [
            (u, d, j) for j, (u, d) in enumerate(zip(units, harm, strict=True)) if d < math.inf
        ]
        found.append(min(options)[2])
    return found


def least_time(times: Tensor, damage: Tensor, psnr: float, most: int) -> list[int] | None:
    """The choice of each cell that takes the least time at a mean PSNR.

    Bisection over the budgets of :func:`least_damage`.

    Args:
        times: As there.
        damage: As there.
        psnr: In dB, at least to be reached.
        most: The largest budget.

    Returns:
        None where even ``most`` does not reach it.
    """
    units = [int(times[k, j]) for k, j in enumerate(fastest(times, damage))]
    low, high = sum(units), most
    best = least_damage(times, damage, high) if low <= high else None
    if best is None or mean_psnr(damage, best) < psnr:
        return None
    while low < high:
        middle = (low + high) // 2
        choices = least_damage(times, damage, middle)
        if mean_psnr(damage, choices) >= psnr:
            best, high = choices, middle
        else:
            low = middle + 1
    return best


def _reweighted(times: Tensor, damage: Tensor, budget: int, weights: Tensor) -> list[int]:
    best = knapsack(times, damage @ weights, budget)
    for _ in range(_MOST_ROUNDS):
        again = knapsack(times, damage @ (1 / total_damage(damage, best)), budget)
        if mean_psnr(damage, again) <= mean_psnr(damage, best):
            break
        best = again
    return best


def _whole(values: Tensor) -> list[list[int]]:
    return cast("list[list[int]]", values.tolist())


def _numbers(values: Tensor) -> list[list[float]]:
    return cast("list[list[float]]", values.tolist())
