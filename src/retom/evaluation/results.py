"""What an evaluation found: one row a contender, each number with its interval and its n."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from retom.metrics import Estimate, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retom.evaluation.settings import Sample

UNMERGED = "un-merged"
FLOOR = "un-merged, another seed"
ONE_BY_ONE = "un-merged, one at a time"


@dataclass(slots=True)
class Row:
    """One contender, or one of the two un-merged references.

    Attributes:
        name: What tells it from every other row.
        method: Its specification without ratio and scope.
        family: The method without its options.
        ratio: Fraction of the tokens that go; None for un-merged rows.
        scope: None for un-merged rows.
        config: Everything that its pictures depend on beside the model and the prompts.
        other_tokens: Whether it computes on other numbers of tokens than the others of its ratio.
        values: By measure, the mean or the ratio.
        differences: By measure, minus the baseline of the same ratio and scope, on the same
            prompts; for un-merged rows empty.
        from_unmerged: By measure, minus the un-merged pictures of the same prompts, for measures
            that need no un-merged twin; of merged rows at the same seeds.
        by_level: Mean denoiser error at each timestep of the screening.
        pictures: Where the pictures are, in the order of the samples; empty if none were drawn.
    """

    name: str
    method: str
    family: str
    ratio: float | None = None
    scope: str | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    other_tokens: bool = False
    values: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    differences: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    from_unmerged: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    by_level: list[float] = field(default_factory=list[float])
    pictures: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class SampleValue:
    """One number of one picture, as it was measured.

    Attributes:
        name: Of the row.
        measure: Key of the measure.
        prompt: Text.
        seed: Of the noise.
        timestep: Of the screening; None for pictures.
        value: The number.
    """

    name: str
    measure: str
    prompt: str
    seed: int
    timestep: int | None
    value: float


@dataclass(slots=True)
class Results:
    """An evaluation.

    Attributes:
        rows: Contenders in the given order, then the un-merged rows.
        model: Name.
        content: What all numbers depend on: model, versions, steps, guidance, size.
        settings: What was asked, as plain data.
        samples: What was drawn.
        timesteps: Of the screening.
        baseline: Method that differences are to; None for none.
        left_out: Contenders that cannot reach their ratio, with the reason.
        notes: What a reader has to know, one sentence each.
        floors: Sets of one kind against each other, such as real half against real half.
        sample_values: Every single number.
        sources: Provenance of each process that measured something, this one last.
        extractor: Name of the network behind features; None if none were computed.
        reference: What KID and Fréchet distance are to, and how many; None for nothing.
    """

    rows: list[Row]
    model: str
    content: dict[str, Any]
    settings: dict[str, Any]
    samples: list[Sample]
    timesteps: list[int]
    baseline: str | None
    left_out: dict[str, str]
    notes: list[str]
    floors: dict[str, Estimate]
    sample_values: list[SampleValue]
    sources: list[dict[str, Any]]
    extractor: str | None
    reference: str | None = None

    def about(self) -> dict[str, Any]:
        """What the numbers are of and where they come from, as plain data."""
        return {
            "model": self.model,
            "content": self.content,
            "settings": self.settings,
            "timesteps": self.timesteps,
            "baseline": self.baseline,
            "extractor": self.extractor,
            "reference": self.reference,
            "left_out": self.left_out,
            "notes": self.notes,
            "sources": self.sources,
        }

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def merged(self) -> list[Row]:
        """Rows of contenders."""
        return [row for row in self.rows if row.ratio is not None]

    @property
    def groups(self) -> list[tuple[float, str]]:
        """Ratios and scopes that occur: within one all contenders save the same tokens."""
        found = {(row.ratio, row.scope) for row in self.merged}
        return sorted((r, s) for r, s in found if r is not None and s is not None)

    def of(self, group: tuple[float, str]) -> list[Row]:
        """Rows of one ratio and scope."""
        return [row for row in self.merged if (row.ratio, row.scope) == group]


def over_prompts(values: Iterable[float], samples: Sequence[Sample], metric: str) -> Estimate:
    """Mean with its interval over prompts; seeds of one prompt are averaged first.

    Args:
        values: One a sample.
        samples: Theirs.
        metric: Name in the result.

    Raises:
        MetricError: They are of fewer than two prompts, or not finite.
    """
    return mean_estimate(torch.tensor(list(_by_prompt(values, samples).values())), metric)


def difference(
    values: Iterable[float], others: Iterable[float], samples: Sequence[Sample], metric: str
) -> Estimate:
    """Mean of ``values`` minus ``others``, sample by sample, with its interval over prompts."""
    pairs = [a - b for a, b in zip(values, others, strict=True)]
    return over_prompts(pairs, samples, metric)


def pareto(rows: Iterable[Row], speed: str, quality: str, *, higher_is_better: bool) -> list[Row]:
    """The rows that no other beats in speed and quality at once, slowest first.

    Args:
        rows: Those without one of the two measures are passed over.
        speed: Key of a measure that is better where it is higher.
        quality: Key of the other measure.
        higher_is_better: Which way the other measure is good.
    """
    sign = 1 if higher_is_better else -1
    points = [r for r in rows if speed in r.values and quality in r.values]
    best: list[Row] = []
    reached = float("-inf")
    order = sorted(points, key=lambda r: (-r.values[speed].value, -sign * r.values[quality].value))
    for row in order:
        if sign * row.values[quality].value > reached:
            reached = sign * row.values[quality].value
            best.append(row)
    return best[::-1]


def _by_prompt(values: Iterable[float], samples: Sequence[Sample]) -> Mapping[int, float]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for value, sample in zip(values, samples, strict=True):
        found[sample.group].append(value)
    return {group: fmean(own) for group, own in found.items()}
