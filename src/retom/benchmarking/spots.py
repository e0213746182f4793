"""Where the clock stands: one call of a denoiser, of a block or a layer, or a whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from retom.benchmarking.places import places
from retom.benchmarking.ready import ready_denoiser, ready_picture, ready_place
from retom.benchmarking.subject import given
from retom.calls import bind
from retom.errors import ConfigError
from retom.explanation.one_call import one_call
from retom.models import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from retom.benchmarking.ready import Ready
    from retom.benchmarking.settings import Settings
    from retom.benchmarking.subject import Subject
    from retom.evaluation.contenders import Contender
    from retom.grid import Grid

    MakeReady = Callable[..., Ready]


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """What one timed call is.

    Attributes:
        name: Part, size and batch; the module too where one is timed.
        size: (height, width) of the picture in pixels.
        grid: Tokens on the largest grid that merges.
        make: From a contender, or None for un-merged, and ``compiled=`` to what is timed.
    """

    name: str
    size: tuple[int, int]
    grid: Grid
    make: MakeReady

    def ready(self, contender: Contender | None, *, compiled: bool = False) -> Ready:
        """A contender, ready to run."""
        return self.make(contender, compiled=compiled)


@dataclass(frozen=True, slots=True, eq=False)
class Sized:
    """A model at a size.

    Attributes:
        size: (height, width) in pixels.
        batch: Pictures in a call of the denoiser.
        inputs: Arguments of that call on the meta device.
    """

    size: tuple[int, int]
    batch: int
    inputs: dict[str, Any]


def sized(subject: Subject, size: tuple[int, int] | None, batch: int | None) -> Sized:
    """A model's call at a size.

    Args:
        subject: The model.
        size: (height, width) in pixels; the model's own for None.
        batch: Pictures in it; for None 2, or 1 where guidance is distilled into the model.

    Raises:
        ConfigError: The picture does not divide into tokens, or nothing tells its size.
        UnsupportedModelError: How to call the model is not known.
    """
    height, width = size or (None, None)
    found, _, inputs = one_call(subject.about, height, width, batch=batch or 2)
    if batch is None and "guidance" in inputs:
        found, _, inputs = one_call(subject.about, height, width, batch=1)
    return Sized(found, batch or (1 if "guidance" in inputs else 2), inputs)


def spots(subject: Subject, part: str, settings: Settings, sizes: list[Sized]) -> Iterator[Spot]:
    """What is timed, one after the other, each with numbers of its own.

    Args:
        subject: The model.
        part: ``layer``, ``block``, ``denoiser`` or ``picture``.
        settings: Levels and seed; steps and guidance of pictures.
        sizes: The model's calls.

    Raises:
        ConfigError: A level does not exist, or the part does not.
    """
    denoiser = None if part in ("layer", "block") else subject.denoiser(settings.seed)
    for call in sizes:
        height, width = call.size
        label = f"{height}x{width} px, batch {call.batch}"
        inputs = given(call.inputs, subject, settings.seed)
        if part in ("layer", "block"):
            for place in places(subject, inputs, part, settings.levels, settings.seed):
                name = f"{part} {place.module}, {label}"
                yield Spot(name, call.size, place.grid, partial(ready_place, place))
            continue
        assert denoiser is not None
        grid = _largest(denoiser, inputs, settings)
        if part == "denoiser":
            make = partial(ready_denoiser, denoiser, inputs)
            yield Spot(f"denoiser call, {label}", call.size, grid, make)
        else:
            assert subject.model is not None
            drawing = _drawing(subject, settings, call.size)
            make = partial(ready_picture, subject.model, call=drawing, seed=settings.seed)
            name = f"whole picture, {height}x{width} px, {drawing['num_inference_steps']} steps"
            yield Spot(name, call.size, grid, make)


def _largest(denoiser: nn.Module, inputs: dict[str, Any], settings: Settings) -> Grid:
    layout = layout_of(denoiser)
    grids = layout.grids(bind(layout.parameters, (), inputs))
    levels = grids if settings.levels == "all" else settings.levels
    missing = sorted(set(levels) - set(grids))
    if missing:
        raise ConfigError(
            f"This model has attention on levels {', '.join(map(str, grids))}, largest grid first; "
            f"level {', '.join(map(str, missing))} was given."
        )
    return grids[min(levels)]


def _drawing(subject: Subject, settings: Settings, size: tuple[int, int]) -> dict[str, Any]:
    model = subject.model
    assert model is not None
    return {
        "num_inference_steps": settings.steps or model.steps,
        "guidance_scale": model.guidance if settings.guidance is None else settings.guidance,
        "height": size[0],
        "width": size[1],
    }
