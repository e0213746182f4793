"""Train the contrastive head of :mod:`retom.metrics.alignment` on pairs of pictures and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import cross_entropy

from retom.errors import MetricError
from retom.metrics.alignment import AlignmentHead, Retrieval, retrieval
from retom.metrics.features import Features

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Training:
    """How a head is trained.

    Attributes:
        width: Length of the common vectors.
        steps: Steps of AdamW, with a cosine decay of the rate to zero.
        batch_size: Groups in a step, one random pair of each.
        rate: Peak learning rate.
        weight_decay: Of AdamW.
        temperature: Cosines are divided by it.
        dropout: Share of the picture features that are hidden in each step. Few pictures have many
            features each; with all of them in view a head knows its pictures and no others.
        held_out: Share of the groups that is kept for validation.
        seed: Of the split, the initial weights and the batches.
    """

    width: int = 256
    steps: int = 1500
    batch_size: int = 256
    rate: float = 1e-3
    weight_decay: float = 0.1
    temperature: float = 0.07
    dropout: float = 0.0
    held_out: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.steps, self.batch_size - 1) < 1:
            raise MetricError(
                "width and steps must be at least 1 and batch_size at least 2; "
                f"{self.width}, {self.steps} and {self.batch_size} were given."
            )
        if not 0 < self.held_out < 1:
            raise MetricError(
                f"held_out is a share of the groups between 0 and 1; {self.held_out} was given."
            )
        if not 0 <= self.dropout < 1:
            raise MetricError(
                "dropout is a share of the features, at least 0 and below 1; "
                f"{self.dropout} was given."
            )


def train_head(
    features: Features,
    texts: Tensor,
    groups: Tensor,
    *,
    text_encoder: str,
    held_out: Tensor | None = None,
    training: Training | None = None,
) -> AlignmentHead:
    """Train a head on groups of pictures, and measure it on groups it has not seen.

    The loss is the symmetric cross entropy of Radford et al. 2021, arXiv:2103.00020, figure 3, at a
    fixed temperature. Pairs of one group never meet as opposites, because a step takes one pair of
    a group. The split is by group: pictures of one concept in several styles are near copies, and a
    split by picture would report memory as understanding.

    Args:
        features: Of n pictures.
        texts: Vectors of their texts, float (n, t).
        groups: What each pair shows, int64 (n,), any numbers: an emoji's code point, for example.
        text_encoder: Name of what made ``texts``.
        held_out: Which pairs to validate on, bool (n,), whole groups; a random share if not given.
        training: Settings; the defaults if not given.

    Returns:
        The head, with the retrieval among the held-out groups in ``held_out``: every held-out
        picture against the first text of every held-out group.

    Raises:
        MetricError: The numbers disagree, there are too few groups to train and to validate, or a
            group is held out in part.
    """
    settings = training or Training()
    if texts.ndim != 2 or not len(features) == len(texts) == len(groups):
        raise MetricError(
            "Every picture has a text vector and a group; "
            f"{len(features)} pictures, texts {tuple(texts.shape)} and {len(groups)} groups were "
            "given."
        )
    generator = torch.Generator().manual_seed(settings.seed)
    if held_out is None:
        kept_out = _held_out(groups, settings.held_out, generator)
    else:
        kept_out = _checked(held_out, groups)
    seen = (~kept_out).nonzero().flatten()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = AlignmentHead(
            features=features.extractor,
            feature_dim=features.dim,
            texts=text_encoder,
            text_dim=texts.shape[1],
            width=settings.width,
        )
    head.mean.copy_(features.values[seen].mean(dim=0))
    head.deviation.copy_(features.values[seen].std(dim=0).clamp_min(1e-3))  # dead features
    _fit(head, features.values[seen], texts[seen].float(), groups[seen], settings, generator)
    rows = kept_out.nonzero().flatten()
    head.held_out = _validate(
        head, Features(features.values[rows], features.extractor), texts[rows], groups[rows]
    )
    return head


def _numbered(groups: Tensor) -> tuple[Tensor, int]:
    """Groups numbered from 0, (n,), and how many there are."""
    numbers = cast("tuple[Tensor, Tensor]", torch.unique(groups, return_inverse=True))[1]
    return numbers, int(numbers.max()) + 1


def _held_out(groups: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which pairs are of a group that is kept for validation, bool (n,)."""
    numbers, total = _numbered(groups)
    count = round(share * total)
    if count < 2 or total - count < 2:
        raise MetricError(
            "At least 2 groups are needed to train and 2 to validate; "
            f"{total} groups with held_out={share} give {total - count} and {count}."
        )
    return torch.isin(numbers, torch.randperm(total, generator=generator)[:count])


def _checked(held_out: Tensor, groups: Tensor) -> Tensor:
    """The pairs that were named, if they are whole groups and enough."""
    if held_out.shape != groups.shape or held_out.dtype != torch.bool:
        raise MetricError(
            f"held_out says of every pair whether to validate on it, bool ({len(groups)},); "
            f"{held_out.dtype} {tuple(held_out.shape)} was given."
        )
    there = set(cast("list[int]", groups[held_out].tolist()))
    here = set(cast("list[int]", groups[~held_out].tolist()))
    if both := there & here:
        raise MetricError(
            f"A group is held out as a whole or not at all; {len(both)} are in part, such as "
            f"{min(both)}."
        )
    if min(len(there), len(here)) < 2:
        raise MetricError(
            "At least 2 groups are needed to train and 2 to validate; held_out leaves "
            f"{len(here)} and {len(there)}."
        )
    return held_out


def _fit(
    head: AlignmentHead,
    features: Tensor,
    texts: Tensor,
    groups: Tensor,
    settings: Training,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    rows = _OneOfEach(groups)
    for _ in range(settings.steps):
        batch = rows.draw(settings.batch_size, generator)
        seen = _dropped(features[batch], head.mean, settings.dropout, generator)
        pictures = head.embed_pictures(seen)
        scores = pictures @ head.embed_texts(texts[batch]).T / settings.temperature
        own = torch.arange(len(batch))
        loss = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    head.eval().requires_grad_(requires_grad=False)


def _dropped(features: Tensor, mean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features of which a share is set to the mean, and the others scaled about it to make up."""
    if share == 0:
        return features
    kept = torch.rand(features.shape, generator=generator) >= share
    return mean + (features - mean) * kept / (1 - share)


class _OneOfEach:
    """Draws one random row of each of several random groups."""

    def __init__(self, groups: Tensor) -> None:
        numbers, self._total = _numbered(groups)
        self._rows = numbers.argsort(stable=True)
        self._sizes = torch.bincount(numbers)
        self._starts = self._sizes.cumsum(0) - self._sizes

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(self._total, generator=generator)[:count]
        place = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
        return self._rows[self._starts[chosen] + (place * self._sizes[chosen]).long()]


def _validate(head: AlignmentHead, features: Features, texts: Tensor, groups: Tensor) -> Retrieval:
    owner, total = _numbered(groups)
    first = torch.stack([(owner == number).nonzero()[0, 0] for number in range(total)])
    return retrieval(head, features, texts[first], owner)
