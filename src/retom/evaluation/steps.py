"""What one picture's steps are: their noise, how often the denoiser runs, and its grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.calls import bind, noise_level
from retom.drawing.failing import failures_of
from retom.evaluation.store import key_of
from retom.grid import Grid
from retom.models import find_denoiser, find_entry, layout_of
from retom.noise import check_noise_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.evaluation.settings import Sample
    from retom.evaluation.subject import Subject


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


def steps_of(subject: Subject, samples: Sequence[Sample]) -> Steps:
    """Watch the denoiser draw one picture un-merged.

    Raises:
        ConfigError: It is not called for pictures of one noise level, or of a noise level that
            merging by noise does not know.
    """
    content = subject.drawing(samples[:1], None)
    key = key_of("steps", content)
    if not subject.store.has_record(key):
        subject.store.add_record(key, content, _watched(subject, samples[0]))
    values = subject.store.record(key)["values"]
    grids = {int(level): Grid(*size) for level, size in values["grids"].items()}
    return Steps(tuple(values["noise"]), values["batch"], grids)


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
    for value in noise:
        check_noise_level(value)
    return {"noise": noise, **seen}
