"""Interleaved timing and bootstrap intervals.

A timing is a median over rounds in which every contender ran once, and is compared by ratios within
a round, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from retom.evaluation.timing import interleave, synchroniser

__all__ = [
    "bootstrap",
    "interleave",
    "interval",
    "milliseconds",
    "ratio_of_pairs",
    "synchroniser",
]

Statistic = Callable[[np.ndarray], float]


def milliseconds(seconds: Iterable[float]) -> float:
    """Median in milliseconds."""
    return float(np.median(np.fromiter(seconds, float))) * 1e3


def ratio_of_pairs(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Median of the ratios within a round, with its 95 % bootstrap interval over rounds."""
    return interval(np.asarray(numerator) / np.asarray(denominator), np.median)


def bootstrap(
    samples: np.ndarray | Sequence[float],
    statistic: Statistic = np.mean,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic under resampling of the first axis.

    Samples that belong together (the variants of one prompt, the contenders of one round) go into
    one row, so that they are drawn together.
    """
    rows = np.asarray(samples, dtype=float)
    draws = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    values = [statistic(rows[draw]) for draw in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def interval(
    samples: np.ndarray | Sequence[float], statistic: Statistic = np.mean
) -> dict[str, float]:
    """A statistic and its bootstrap interval, rounded to six digits for a file."""
    low, high = bootstrap(samples, statistic)
    value = float(statistic(np.asarray(samples, dtype=float)))
    return {
        key: float(f"{number:.6g}")
        for key, number in (("value", value), ("low", low), ("high", high))
    }
