"""Feature vectors of pictures, from any network that gives one vector a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import cosine_similarity

from retom.errors import MetricError
from retom.metrics.pictures import in_batches

if TYPE_CHECKING:
    from torch import Tensor

    from retom.metrics.pictures import Pictures


class Extractor(Protocol):
    """What turns pictures into feature vectors; any object with a name that can be called so."""

    @property
    def name(self) -> str:
        """Name and, where there are several, version of the weights; stands in every result."""
        ...

    def __call__(self, pictures: Tensor) -> Tensor:
        """Give one vector a picture.

        Args:
            pictures: float32 (B, 3, H, W), values in [0, 1], any size. Resizing and normalising
                are the extractor's business.

        Returns:
            (B, d), any float dtype, any device.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Feature vectors of a set of pictures.

    Attributes:
        values: float32 (n, d) on the CPU, finite.
        extractor: Name of what computed them. Only features of one extractor are compared.

    Raises:
        MetricError: ``values`` is not such a matrix.
    """

    values: Tensor
    extractor: str

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != torch.float32 or not self.values.numel():
            raise MetricError(
                f"Features are float32 (n, d); {self.extractor} gave {self.values.dtype} "
                f"{tuple(self.values.shape)}."
            )
        if not bool(self.values.isfinite().all()):
            raise MetricError(f"Features are finite; some by {self.extractor} are not.")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """Length d of a vector."""
        return self.values.shape[1]


@torch.no_grad()
def extract(pictures: Pictures, extractor: Extractor, *, batch_size: int = 32) -> Features:
    """Compute the features of pictures.

    Args:
        pictures: One or several of one size, in any form of :mod:`retom.metrics.pictures`. They
            are converted a batch at a time.
        extractor: The network.
        batch_size: Pictures at a time. Results agree between batch sizes as closely as the
            network's own do.

    Returns:
        One row a picture, in the given order.

    Raises:
        ShapeError: What was given is no set of pictures.
        MetricError: The extractor did not give one finite vector a picture.
    """
    rows: list[Tensor] = []
    for batch in in_batches(pictures, batch_size):
        found = extractor(batch)
        if found.ndim != 2 or len(found) != len(batch):
            raise MetricError(
                f"An extractor gives one vector a picture, ({len(batch)}, d) here; "
                f"{extractor.name} gave {tuple(found.shape)}. Pool maps over their positions."
            )
        rows.append(found.float().cpu())
    return Features(torch.cat(rows), extractor.name)


def feature_cosine(features: Features, reference: Features) -> Tensor:
    """Cosine of the feature vectors of pairs of pictures, at most 1; higher is closer.

    Features after a rectifier have no negative entries, so that even unrelated pictures score well
    above 0: report the un-merged pictures of another seed beside it, as the floor.

    Args:
        features: Of n pictures.
        reference: Of the n pictures they are compared with, in the same order.

    Returns:
        float32 (n,).

    Raises:
        MetricError: The two are of different extractors or numbers of pictures.

    Example:
        >>> a = Features(torch.tensor([[3.0, 4.0]]), "none")
        >>> feature_cosine(a, Features(torch.tensor([[4.0, 3.0]]), "none"))
        tensor([0.9600])
    """
    check_comparable(features, reference)
    if len(features) != len(reference):
        raise MetricError(
            f"Pairs of pictures are compared; {len(features)} and {len(reference)} were given."
        )
    return cosine_similarity(features.values, reference.values, dim=1)


def check_comparable(features: Features, reference: Features) -> None:
    """Raise unless two sets of features come from one extractor.

    Raises:
        MetricError: They do not.
    """
    ours, theirs = features, reference
    if (ours.extractor, ours.dim) != (theirs.extractor, theirs.dim):
        raise MetricError(
            f"Features of one extractor are compared; {ours.extractor} ({ours.dim} numbers) and "
            f"{theirs.extractor} ({theirs.dim} numbers) were given."
        )
