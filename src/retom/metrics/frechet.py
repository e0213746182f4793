"""Fréchet distance between two sets of features, at a stated number of pictures.

Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions", used on
network features by Heusel et al. 2017, arXiv:1706.08500, equation 6:

    |μ_x - μ_y|² + tr(Σ_x + Σ_y - 2 (Σ_x Σ_y)^(1/2))

With factors Σ_x = AᵀA and Σ_y = BᵀB the last trace is the sum of the singular values of A Bᵀ. That
needs no square root of a matrix, keeps every term real, and holds for singular covariances.

The estimate is biased upwards, the more the fewer pictures (Chong and Forsyth 2020,
arXiv:1911.07023), so that distances are compared at one n only, and n is an argument that has no
default. "FID" means Inception features and 10,000 pictures or more; this distance is never called
so. With fewer pictures than features KID is the better measure, or the distance along the
reference's first principal axes.

An interval is a bootstrap over pictures of both sets. Resampling adds a bias of its own, as if
there were fewer pictures; the replicates are shifted so that their mean is the estimate, and the
interval says how far the estimate varies at this n, not where the distance at infinite n lies. Over
150 simulated pairs of sets, 100 or 400 Gaussian vectors of 8 numbers each, it covered the mean of
the estimates in 95 to 98 %, that of differences in 95 to 96 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from retom.errors import MetricError
from retom.metrics.estimate import Estimate, percentiles, resampled_counts
from retom.metrics.features import check_comparable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from retom.metrics.features import Features


@dataclass(frozen=True, slots=True, eq=False)
class _Gaussian:
    """A normal distribution: mean (d,) and a factor A (k, d) of the covariance AᵀA, float64."""

    mean: Tensor
    factor: Tensor


def frechet(
    features: Features,
    reference: Features,
    *,
    n: int,
    principal: int | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Fréchet distance of n pictures to n reference pictures; lower is closer.

    Args:
        features: Of at least n pictures; the first n are used.
        reference: Of at least n pictures they should look like; the first n are used.
        n: How many of each. Distances at different n must not be compared.
        principal: Compare along this many first principal axes of the reference instead of along
            all features; the result's name says so. None compares all.
        resamples: Bootstrap resamples. Each costs as much as the distance itself, about a second
            for 1280 features, milliseconds for 64 axes.
        seed: Of the resampling. Equal input gives equal output.

    Returns:
        The distance with sample covariances (divided by n - 1), in float64.

    Raises:
        MetricError: The features are of different extractors, or there are too few pictures.
    """
    x, y = _rows(features, reference, n, principal)
    name = f"Fréchet distance ({_described(features, principal)})"
    return estimated(name, x, y, resamples, seed)


def frechet_difference(
    features: Features,
    other: Features,
    reference: Features,
    *,
    n: int,
    principal: int | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Fréchet distance of one set of pictures minus that of another: below 0, the first is closer.

    The sets are paired, picture i of both being of the same prompt and seed, and are resampled
    together; much of the bias and of the variation cancels.

    Args:
        features: Of at least n pictures; the first n are used.
        other: Of the pictures they are paired with, as many.
        reference: Of the pictures both are compared with.
        n: As in :func:`frechet`.
        principal: As in :func:`frechet`.
        resamples: As in :func:`frechet`; each costs two distances.
        seed: As in :func:`frechet`.

    Raises:
        MetricError: As :func:`frechet`, or the sets are not paired.
    """
    if len(features) != len(other):
        raise MetricError(
            f"A difference is between paired pictures, as many of each; {len(features)} and "
            f"{len(other)} were given."
        )
    x, y = _rows(features, reference, n, principal)
    z, _ = _rows(other, reference, n, principal)
    name = f"Fréchet distance difference ({_described(features, principal)})"
    return estimated_difference(name, x, z, y, resamples, seed)


def gaussian_frechet(
    mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor
) -> float:
    """Fréchet distance between two normal distributions with known moments.

    Args:
        mean: (d,).
        covariance: (d, d), symmetric and positive semidefinite.
        other_mean: (d,).
        other_covariance: (d, d).

    Raises:
        MetricError: Shapes disagree, or a covariance is not symmetric or has a negative eigenvalue
            beyond rounding.

    Example:
        >>> one = torch.eye(2)  # in one dimension: (μ - μ')² + (σ - σ')²
        >>> gaussian_frechet(torch.zeros(2), one, torch.tensor([3.0, 0.0]), 4 * one)
        11.0
    """
    return _distance(_known(mean, covariance), _known(other_mean, other_covariance))


def _known(mean: Tensor, covariance: Tensor) -> _Gaussian:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise MetricError(
            "A normal distribution is a mean (d,) and a covariance (d, d); "
            f"{tuple(mean.shape)} and {tuple(covariance.shape)} were given."
        )
    matrix = covariance.double()
    if not torch.allclose(matrix, matrix.T, rtol=1e-5, atol=1e-8 * float(matrix.abs().max())):
        raise MetricError("A covariance is symmetric; the given one is not.")
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh((matrix + matrix.T) / 2))
    # A float32 covariance of rank below d has eigenvalues of about -1e-7 of the largest.
    if float(values[0]) < -1e-6 * max(float(values[-1]), 0.0):
        raise MetricError(
            f"A covariance has no negative eigenvalues; the given one has {float(values[0]):.3g}."
        )
    return _Gaussian(mean.double(), values.clamp_min(0).sqrt()[:, None] * vectors.T)


def _fit(rows: Tensor, counts: Tensor | None = None) -> _Gaussian:
    """Moments of rows (n, d), each taken as often as ``counts`` says; once if it is not given."""
    if counts is not None:
        present = counts > 0
        rows, counts = rows[present], counts[present]
    else:
        counts = torch.ones(len(rows), dtype=rows.dtype)
    n = counts.sum()
    mean = counts @ rows / n
    factor = (counts / (n - 1)).sqrt()[:, None] * (rows - mean)
    if factor.shape[0] > factor.shape[1]:
        factor = cast("Tensor", torch.linalg.qr(factor, mode="r")[1])
    return _Gaussian(mean, factor)


def _distance(x: _Gaussian, y: _Gaussian) -> float:
    """Fréchet distance of two normal distributions, by the singular values of their factors."""
    if x.mean.shape != y.mean.shape:
        raise MetricError(
            "Distributions of one dimension are compared; "
            f"{len(x.mean)} and {len(y.mean)} were given."
        )
    overlap = cast("Tensor", torch.linalg.svdvals(x.factor @ y.factor.T)).sum()
    spread = x.factor.square().sum() + y.factor.square().sum() - 2 * overlap
    return float((x.mean - y.mean).square().sum() + spread)


def _rows(
    features: Features,
    reference: Features,
    n: int,
    principal: int | None,
) -> tuple[Tensor, Tensor]:
    """The first n rows of both, float64, along the principal axes if there are any."""
    check_comparable(features, reference)
    fewest = min(len(features), len(reference))
    if not 2 <= n <= fewest:
        raise MetricError(
            f"n must be from 2 to the number of pictures in each set; it is {n}, with "
            f"{len(features)} pictures and {len(reference)} reference pictures."
        )
    if principal is not None and not 1 <= principal <= min(features.dim, n - 1):
        raise MetricError(
            f"principal must be from 1 to {min(features.dim, n - 1)}, the axes that {n} pictures "
            f"with {features.dim} features have; {principal} was given."
        )
    axes = features.dim if principal is None else principal
    if n <= axes:
        raise MetricError(
            f"The Fréchet distance along {axes} axes needs more than {axes} pictures in each set; "
            f"n is {n}. Use kid, which is unbiased at any n, or principal=64, the distance along "
            "the reference's first 64 axes."
        )
    x, y = features.values[:n].double(), reference.values[:n].double()
    if principal is None:
        return x, y
    centre = y.mean(dim=0)
    rows = cast("Tensor", torch.linalg.svd(y - centre, full_matrices=False)[2])
    basis = rows[:principal].T
    return (x - centre) @ basis, (y - centre) @ basis


def _described(features: Features, principal: int | None) -> str:
    if principal is None:
        return features.extractor
    return f"{features.extractor}, {principal} principal axes of the reference"


def estimated(name: str, x: Tensor, y: Tensor, resamples: int, seed: int) -> Estimate:
    """Fréchet distance of rows x (n, d) to rows y (m, d), float64, with its interval."""
    replicates = [
        _distance(_fit(x, count), _fit(y, reference_count))
        for count, reference_count in _counts(x, y, resamples, seed)
    ]
    return _shifted(name, _distance(_fit(x), _fit(y)), replicates, (len(x), len(y)))


def estimated_difference(
    name: str, x: Tensor, z: Tensor, y: Tensor, resamples: int, seed: int
) -> Estimate:
    """Distance of rows x to y minus that of z to y; x and z are paired, and resampled together."""

    def difference(counts: Tensor | None, reference_counts: Tensor | None) -> float:
        target = _fit(y, reference_counts)
        return _distance(_fit(x, counts), target) - _distance(_fit(z, counts), target)

    replicates = [difference(*counts) for counts in _counts(x, y, resamples, seed)]
    return _shifted(name, difference(None, None), replicates, (len(x), len(y)))


def _counts(x: Tensor, y: Tensor, resamples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """How often each row of both is in each resample."""
    own = resampled_counts(len(x), resamples, seed=seed)
    return zip(own, resampled_counts(len(y), resamples, seed=seed + 1), strict=True)


def _shifted(
    name: str, value: float, replicates: list[float], numbers: tuple[int, int]
) -> Estimate:
    """An estimate, its replicates shifted so that their mean is its value."""
    spread = torch.tensor(replicates, dtype=torch.float64)
    low, high = percentiles(spread - spread.mean() + value)
    return Estimate(name, value, low, high, *numbers)
