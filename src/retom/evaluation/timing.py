"""What times taken in rounds say: ratios within a round, and intervals over rounds."""

from __future__ import annotations

import copy
import itertools
from statistics import median
from typing import TYPE_CHECKING

import torch

from retom.errors import MetricError
from retom.metrics.estimate import Estimate, percentiles, resampled_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def ratio_estimate(
    numerator: Sequence[float],
    denominator: Sequence[float],
    metric: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Median of the ratios within a round, with a percentile bootstrap interval over rounds.

    Args:
        numerator: Seconds, one a round.
        denominator: Seconds of the same rounds.
        metric: Name in the result.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Raises:
        MetricError: There are fewer than two rounds, or not as many of each.

    Example:
        >>> ratio_estimate([2.0, 4.0, 1.0], [1.0, 2.0, 2.0], "speed-up").value
        2.0
    """
    _check_rounds(numerator, denominator)
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    values = torch.tensor(ratios, dtype=torch.float64)
    # torch's median of an even number is the lower of the two in the middle, not their mean.
    medians = values[resampled_rounds(len(ratios), resamples, seed)].quantile(0.5, dim=1)
    low, high = percentiles(medians)
    return Estimate(metric, median(ratios), low, high, len(ratios))


LEAST_GAIN = 0.01
"""An oracle that gains less than this share of the time leaves nothing to be efficient at."""


def efficiency_estimate(
    base: Sequence[float],
    method: Sequence[float],
    oracle: Sequence[float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate | None:
    """How much of what free merging gains a method gains: (T_base - T) / (T_base - T_oracle).

    T are medians over rounds; the interval is a percentile bootstrap over rounds, which keeps the
    three timings of a round together. A resample in which the oracle gains nothing says nothing,
    and counts as 0.

    Args:
        base: Seconds un-merged, one a round.
        method: Seconds of the same rounds, merged.
        oracle: Seconds of the same rounds with merging that costs nothing.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Returns:
        None where the oracle gains less than :data:`LEAST_GAIN`.

    Raises:
        MetricError: There are fewer than two rounds, or not as many of each.

    Example:
        >>> efficiency_estimate([10.0, 10.0], [7.0, 7.0], [6.0, 6.0]).value
        0.75
    """
    _check_rounds(base, method)
    _check_rounds(base, oracle)
    if median(oracle) >= (1 - LEAST_GAIN) * median(base):
        return None
    rounds = torch.tensor([base, method, oracle], dtype=torch.float64)
    low, high = percentiles(_efficiency(rounds[:, resampled_rounds(len(base), resamples, seed)]))
    return Estimate("efficiency", float(_efficiency(rounds)), low, high, len(base))


def _efficiency(rounds: Tensor) -> Tensor:
    """From seconds (3, ..., rounds) of base, method and oracle to (...)."""
    base, method, oracle = rounds.quantile(0.5, dim=-1)
    gained = base - oracle
    return torch.where(gained > 0, (base - method) / gained, 0.0)


def resampled_rounds(rounds: int, resamples: int, seed: int) -> Tensor:
    """Which rounds each bootstrap resample drew, int64 (resamples, rounds)."""
    counts = resampled_counts(rounds, resamples, seed=seed).long()
    every = torch.arange(rounds).expand(resamples, -1)
    return every.flatten().repeat_interleave(counts.flatten()).reshape(resamples, rounds)


def _check_rounds(one: Sequence[float], other: Sequence[float]) -> None:
    if len(one) != len(other) or len(one) < 2:
        raise MetricError(
            "A ratio with an interval needs at least 2 rounds with both in them; "
            f"{len(one)} and {len(other)} were given."
        )


def shared_copy(denoiser: nn.Module) -> nn.Module:
    """A copy of a denoiser on the same weights, so that merged and un-merged stand ready."""
    tensors = itertools.chain(denoiser.parameters(), denoiser.buffers())
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors})
