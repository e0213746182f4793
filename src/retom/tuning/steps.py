"""What one picture's steps are: their noise, how often the denoiser runs, and its grids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from retom.calls import bind, noise_level
from retom.drawing.failing import failures_of
from retom.errors import ConfigError
from retom.evaluation.noise import schedule_length
from retom.evaluation.store import key_of
from retom.grid import Grid
from retom.models import find_denoiser, find_entry, layout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject


@dataclass(frozen=True, slots=True)
class Plateau:
    """A stretch of noise on which nothing changes.

    Attributes:
        noise: (low, high), 1 for pure noise.
        calls: Of the denoiser in it, for one picture.
        timesteps: Of the scheduler, one or two in it, the least noisy first.
    """

    noise: tuple[float, float]
    calls: int
    timesteps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """The calls of the denoiser for one picture.

    Attributes:
        noise: Of each call, in their order.
        batch: Items of a call for one picture: 2 where both halves of guidance are in one.
        grids: Of each attention level, in tokens.
    """

    noise: tuple[float, ...]
    batch: int
    grids: dict[int, Grid]

    def plateaus(self, count: int, length: int) -> tuple[Plateau, ...]:
        """Stretches with as equal a number of steps as can be, from pure noise down.

        Their edges lie between steps.

        Args:
            count: How many; there are no more than steps.
            length: Of the scheduler's training schedule, in timesteps.
        """
        steps = sorted(set(self.noise), reverse=True)
        count = min(count, len(steps))
        cuts = [round(place * len(steps) / count) for place in range(count + 1)]
        groups = [steps[a:b] for a, b in pairwise(cuts)]
        edges = [1.0, *(round((a[-1] + b[0]) / 2, 6) for a, b in pairwise(groups)), 0.0]
        found: list[Plateau] = []
        for group, (high, low) in zip(groups, pairwise(edges), strict=True):
            shown = sorted(group)
            places = [len(shown) // 4, len(shown) - 1 - len(shown) // 4]
            timesteps = {min(round(shown[place] * length), length - 1) for place in places}
            calls = sum(noise in group for noise in self.noise)
            found.append(Plateau((low, high), calls, tuple(sorted(timesteps))))
        return tuple(found)


def steps_of(subject: Subject, samples: Sequence[Sample]) -> Steps:
    """Watch the denoiser draw one picture un-merged.

    Raises:
        ConfigError: It is not called for pictures of one noise level.
    """
    content = subject.drawing(samples[:1], None)
    key = key_of("steps", content)
    if not subject.store.has_record(key):
        subject.store.add_record(key, content, _watched(subject, samples[0]))
    values = subject.store.record(key)["values"]
    grids = {int(level): Grid(*size) for level, size in values["grids"].items()}
    return Steps(tuple(values["noise"]), values["batch"], grids)


def plateaus_of(subject: Subject, steps: Steps, count: int) -> tuple[Plateau, ...]:
    """The plateaus of a model's schedule; see :meth:`Steps.plateaus`."""
    return steps.plateaus(count, schedule_length(subject.pipe.scheduler))


def _watched(subject: Subject, sample: Sample) -> dict[str, Any]:
    layout = layout_of(find_denoiser(subject.pipe))
    noise: list[float] = []
    seen: dict[str, Any] = {}

    def note(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = bind(layout.parameters, args, kwargs)
        noise.append(round(noise_level(bound[layout.timestep.argument], layout.timestep), 6))
        seen["batch"] = len(bound[layout.picture])
        grids = layout.grids(bound)
        seen["grids"] = {str(level): [grid.height, grid.width] for level, grid in grids.items()}

    removable = find_entry(subject.pipe).register_forward_pre_hook(note, with_kwargs=True)
    try:
        with failures_of(subject.name):
            subject.pipe(
                prompt=sample.prompt,
                generator=torch.Generator().manual_seed(sample.seed),
                num_inference_steps=subject.content["steps"],
                guidance_scale=subject.content["guidance"],
                height=subject.height,
                width=subject.width,
                output_type="latent",
            )
    finally:
        removable.remove()
    if not all(0 <= value <= 1 for value in noise):
        raise ConfigError(
            f"The denoiser was called at noise levels from {min(noise):g} to {max(noise):g}; rules "
            "by noise know 0 to 1. Use another scheduler."
        )
    return {"noise": noise, **seen}
