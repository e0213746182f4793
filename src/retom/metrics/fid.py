"""FID as it is reported: a Fréchet distance of all pictures of two sets, however many are in each.

Heusel et al. 2017, arXiv:1706.08500, equation 6, on the features of a network; it is FID where
these are Inception's, see :class:`retom.metrics.adapters.InceptionFeatures`. Tables hold it at
2,000 to 50,000 drawn pictures against other numbers of real ones, also with fewer pictures than
features, where covariances are singular. :func:`retom.metrics.frechet` refuses both, and is the
better measure where one is free to choose. An interval does not cure the bias of a small n: rows of
one table are compared, at one n. Where pictures are about as many as features, 2,000 of 2,048, say,
resampled sets have fewer distinct pictures, and intervals come out wider than 95 % asks for, by up
to a factor of two in simulations: what they show is there, and something small may be missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import MetricError
from retom.metrics.features import check_comparable
from retom.metrics.frechet import estimated, estimated_difference

if TYPE_CHECKING:
    from retom.metrics.estimate import Estimate
    from retom.metrics.features import Features


def fid(
    features: Features, reference: Features, *, resamples: int = 100, seed: int = 0
) -> Estimate:
    """FID of pictures with a bootstrap interval over the pictures of both sets.

    Args:
        features: Of at least two pictures.
        reference: Of at least two pictures that they should look like.
        resamples: Bootstrap resamples; each costs as much as the distance itself, a second or more
            for 2,048 features.
        seed: Of the resampling. Equal input gives equal output.

    Raises:
        MetricError: The features are of different extractors, or there are too few pictures.
    """
    _check(features, reference)
    x, y = features.values.double(), reference.values.double()
    return estimated(f"FID ({features.extractor})", x, y, resamples, seed)


def fid_difference(
    features: Features,
    other: Features,
    reference: Features,
    *,
    resamples: int = 100,
    seed: int = 0,
) -> Estimate:
    """FID of one set minus that of another: below 0, the first is closer to the reference.

    Args:
        features: Of at least two pictures.
        other: Of the pictures that they are paired with, picture i of both being of the same
            prompt: both are resampled together.
        reference: Of the pictures that both are compared with.
        resamples: As in :func:`fid`; each costs two distances.
        seed: As in :func:`fid`.

    Raises:
        MetricError: As :func:`fid`, or the sets are not paired.
    """
    _check(features, reference)
    _check(other, reference)
    if len(features) != len(other):
        raise MetricError(
            f"A difference is between paired pictures, as many of each; {len(features)} and "
            f"{len(other)} were given."
        )
    x, z, y = (each.values.double() for each in (features, other, reference))
    return estimated_difference(f"FID difference ({features.extractor})", x, z, y, resamples, seed)


def _check(features: Features, reference: Features) -> None:
    check_comparable(features, reference)
    fewest = min(len(features), len(reference))
    if fewest < 2:
        raise MetricError(f"FID needs at least 2 pictures in each set; one has {fewest}.")
