"""Timing by interleaved pairs: each round runs every call once, and ratios are within a round."""

from __future__ import annotations

import copy
import itertools
import time
from statistics import median
from typing import TYPE_CHECKING

import torch

from retom.errors import MetricError
from retom.metrics.estimate import Estimate, percentiles, resampled_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 2,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time calls in rounds, each call once a round, in one process.

    The round's first call rotates, so that nobody always runs behind the same neighbour, and a
    slow minute of the machine hits all alike.

    Args:
        calls: What to time, by name.
        rounds: Timed rounds.
        warmup: Rounds before them that are not timed.
        synchronise: Called before each reading of the clock.
        clock: Seconds.

    Returns:
        Seconds of each call, one entry a round.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronise()
            begin = clock()
            calls[name]()
            synchronise()
            end = clock()
            if number >= 0:
                seconds[name].append(end - begin)
    return seconds


def synchroniser(device: torch.device | str) -> Callable[[], None]:
    """What waits until ``device`` has finished all work given to it."""
    place = torch.device(device)
    if place.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(place)


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
    if len(numerator) != len(denominator) or len(numerator) < 2:
        raise MetricError(
            "A ratio with an interval needs at least 2 rounds with both in them; "
            f"{len(numerator)} and {len(denominator)} were given."
        )
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    values = torch.tensor(ratios, dtype=torch.float64)
    counts = resampled_counts(len(ratios), resamples, seed=seed).long()
    # torch's median of an even number is the lower of the two in the middle, not their mean.
    medians = [values.repeat_interleave(count).quantile(0.5) for count in counts]
    low, high = percentiles(torch.stack(medians))
    return Estimate(metric, median(ratios), low, high, len(ratios))


def shared_copy(denoiser: nn.Module) -> nn.Module:
    """A copy of a denoiser on the same weights, so that merged and un-merged stand ready."""
    tensors = itertools.chain(denoiser.parameters(), denoiser.buffers())
    return copy.deepcopy(denoiser, {id(tensor): tensor for tensor in tensors})
