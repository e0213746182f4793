"""Kernel distance between two sets of features: unbiased at any number of pictures.

Bińkowski, Sutherland, Arbel, Gretton 2018, "Demystifying MMD GANs", arXiv:1801.01401: the squared
maximum mean discrepancy with the kernel k(x, y) = (x·y / d + 1)³ on feature vectors of length d.
The estimator is the U-statistic of Gretton et al. 2012, "A kernel two-sample test", equation 3:

    mean of k(x_i, x_j) over i ≠ j  +  mean of k(y_i, y_j) over i ≠ j  -  2 mean of k(x_i, y_j)

It may be negative: two samples of one distribution give 0 on average. "KID" without a word on the
features means Inception features; here the result names the features that were used.

Intervals are bootstrapped over pictures of both sets. In a resample a picture can occur more than
once; copies of one picture are not compared with each other, because k(x, x) would bias every
resample upwards. Over 300 simulated pairs of sets, 50 or 200 Gaussian vectors of 8 numbers each,
the interval covered the expected value in 95 and 96 % for shifted means. For equal distributions,
where the U-statistic degenerates, it covered 0 in over 99 %: it is then about 1.6 times too wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retom.errors import MetricError
from retom.metrics.estimate import Estimate, percentiles, resampled_counts
from retom.metrics.features import check_comparable

if TYPE_CHECKING:
    from torch import Tensor

    from retom.metrics.features import Features

MINIMUM = 8
"""Below this a resample may well be copies of one picture alone, with no pair left to compare."""


def kid(
    features: Features, reference: Features, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Kernel distance of a set of pictures to a reference set; lower is closer.

    Args:
        features: Of the pictures, at least 8.
        reference: Of the pictures they should look like, at least 8; the number may differ.
        resamples: Bootstrap resamples for the interval.
        seed: Of the resampling. Equal input gives equal output.

    Returns:
        The unbiased estimate, computed in float64, not multiplied by anything.

    Raises:
        MetricError: The features are of different extractors, or there are too few.
    """
    _check(features, reference)
    counts = resampled_counts(len(features), resamples, seed=seed)
    reference_counts = resampled_counts(len(reference), resamples, seed=seed + 1)
    x, y = features.values.double(), reference.values.double()
    parts = [
        (_within(_kernel(x, x), counts), 1),
        (_within(_kernel(y, y), reference_counts), 1),
        (_between(_kernel(x, y), counts, reference_counts), -2),
    ]
    value = sum(sign * part[0] for part, sign in parts)
    low, high = percentiles(torch.stack([sign * part[1:] for part, sign in parts]).sum(dim=0))
    name = f"KID ({features.extractor})"
    return Estimate(name, float(value), low, high, len(features), len(reference))


def kid_difference(
    features: Features,
    other: Features,
    reference: Features,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """KID of one set of pictures minus KID of another: below 0, the first is closer.

    The sets are paired, picture i of both being of the same prompt and seed, and are resampled
    together. What the two share cancels, so that the interval is narrower than those of the two
    distances suggest.

    Args:
        features: Of n pictures.
        other: Of the n pictures they are paired with.
        reference: Of the pictures both are compared with.
        resamples: Bootstrap resamples for the interval.
        seed: Of the resampling.

    Raises:
        MetricError: The features are of different extractors, too few or not paired.
    """
    _check(features, reference)
    _check(other, reference)
    check_paired(features, other)
    counts = resampled_counts(len(features), resamples, seed=seed)
    reference_counts = resampled_counts(len(reference), resamples, seed=seed + 1)
    x, z, y = (each.values.double() for each in (features, other, reference))
    within = _within(_kernel(x, x) - _kernel(z, z), counts)
    between = _between(_kernel(x, y) - _kernel(z, y), counts, reference_counts)
    difference = within - 2 * between
    low, high = percentiles(difference[1:])
    name = f"KID difference ({features.extractor})"
    return Estimate(name, float(difference[0]), low, high, len(features), len(reference))


def check_paired(features: Features, other: Features) -> None:
    """Raise unless two sets of pictures can be paired.

    Raises:
        MetricError: They are of different numbers.
    """
    if len(features) != len(other):
        raise MetricError(
            f"A difference is between paired pictures, as many of each; {len(features)} and "
            f"{len(other)} were given."
        )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _within(kernel: Tensor, counts: Tensor) -> Tensor:
    """Mean of k(x_i, x_j) over i ≠ j: of the sample itself, then of every resample.

    A picture that was drawn c times weighs c; with c c' pairs of two pictures, and none of a
    picture with itself, the mean is over all pairs that remain.
    """
    kernel = kernel - torch.diag(kernel.diagonal())
    weights = torch.cat([torch.ones_like(counts[:1]), counts])
    pairs = weights.sum(dim=1).square() - weights.square().sum(dim=1)
    return (weights @ kernel * weights).sum(dim=1) / pairs


def _between(kernel: Tensor, counts: Tensor, reference_counts: Tensor) -> Tensor:
    """Mean of k(x_i, y_j): of the samples themselves, then of every resample."""
    weights = torch.cat([torch.ones_like(counts[:1]), counts])
    reference_weights = torch.cat([torch.ones_like(reference_counts[:1]), reference_counts])
    return (weights @ kernel * reference_weights).sum(dim=1) / kernel.numel()


def _check(features: Features, reference: Features) -> None:
    check_comparable(features, reference)
    for name, given in (("features", features), ("reference", reference)):
        if len(given) < MINIMUM:
            raise MetricError(
                f"KID compares pictures within each set, so that it needs at least {MINIMUM} in "
                f"each; {name} has {len(given)}. Hundreds are needed for an interval of use."
            )
