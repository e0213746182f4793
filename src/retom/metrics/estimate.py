"""A measured number with its interval, and the resampling that intervals come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from retom.errors import MetricError

if TYPE_CHECKING:
    from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was measured, on how much, and how sure it is.

    Attributes:
        metric: What the number is, with what it was computed on, such as ``KID (EfficientNet-
            Lite0)``.
        value: The number.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Pictures measured.
        reference_n: Pictures they were compared with as a set; None for measures of single
            pictures or of pairs.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    reference_n: int | None = None

    def __str__(self) -> str:
        against = "" if self.reference_n is None else f" against {self.reference_n}"
        return (
            f"{self.metric}: {self.value:.4g} [{self.low:.4g}, {self.high:.4g}], "
            f"n = {self.n}{against}"
        )


def mean_estimate(values: Tensor, metric: str, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of one number a picture, with a percentile bootstrap interval over pictures.

    Args:
        values: (n,), any float dtype, finite; what :func:`~retom.metrics.psnr` gives, for example.
        metric: Name in the result.
        resamples: Bootstrap resamples.
        seed: Of the resampling. Equal input gives equal output.

    Returns:
        The mean, computed in float64.

    Raises:
        MetricError: ``values`` is not a vector of at least two finite numbers.

    Example:
        >>> print(mean_estimate(torch.tensor([30.0, 32.0]), "PSNR in dB"))
        PSNR in dB: 31 [30, 32], n = 2
    """
    if values.ndim != 1 or len(values) < 2:
        raise MetricError(
            f"A mean with an interval needs a vector of at least 2 numbers; {metric} has shape "
            f"{tuple(values.shape)}."
        )
    if not bool(values.isfinite().all()):
        raise MetricError(
            f"{metric} is not finite for {int((~values.isfinite()).sum())} of {len(values)} "
            "pictures, so that it has no mean. The PSNR of equal pictures is infinite, for "
            "example; clamp it to a stated bound."
        )
    values = values.detach().double().cpu()
    counts = resampled_counts(len(values), resamples, seed=seed)
    low, high = percentiles(counts @ values / len(values))
    return Estimate(metric, float(values.mean()), low, high, len(values))


def resampled_counts(n: int, resamples: int, *, seed: int) -> Tensor:
    """How often each of n samples is in each bootstrap resample of n draws with replacement.

    Returns:
        float64 (resamples, n); every row sums to n.

    Raises:
        MetricError: ``resamples`` is below 2, of which an interval cannot be made.
    """
    if resamples < 2:
        raise MetricError(f"An interval needs at least 2 resamples; {resamples} was given.")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n, (resamples, n), generator=generator)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    return counts.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))


def percentiles(replicates: Tensor) -> tuple[float, float]:
    """The two ends between which 95 % of the replicates lie."""
    tail = (1 - LEVEL) / 2
    ends = torch.quantile(replicates.double(), torch.tensor([tail, 1 - tail]).double())
    return float(ends[0]), float(ends[1])
