"""The studio without its page: models, limits, and the one worker that draws for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from retom import viz
from retom.drawing.generation import compare, draw_once
from retom.errors import ConfigError
from retom.handle import applied
from retom.studio.job import Job, Working
from retom.studio.preview import Preview
from retom.studio.request import Request, read_request
from retom.studio.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image
    from torch import Tensor

    from retom.drawing.generation import Comparison, OnLatents, OnStep, Result
    from retom.drawing.loading import Model
    from retom.studio.limits import Limits
    from retom.viz import Recording


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture both ways.

    Attributes:
        request: What was asked for.
        result: Both pictures, how close they are and what they took.
        note: What the visitor should know besides; may be empty.
    """

    request: Request
    result: Result
    note: str

    @property
    def comparison(self) -> Comparison:
        """How both pictures stand to each other; the studio always draws both."""
        return cast("Comparison", self.result.comparison)

    @property
    def images(self) -> tuple[Image, Image]:
        """Un-merged and merged."""
        return self.comparison.unmerged.image, self.result.merged.image


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What merged in a picture.

    Attributes:
        request: What was asked for.
        image: The merged picture.
        recording: Of every layer that merged, in every call of the denoiser.
    """

    request: Request
    image: Image
    recording: Recording


class Studio:
    """Draws for visitors, one picture at a time.

    Args:
        models: What visitors may draw with, by the name that they see.
        limits: Of what they may ask for.

    Raises:
        ConfigError: There is no model, or one draws beyond the limits by default.
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits) -> None:
        if not models:
            raise ConfigError("A studio needs at least one model; none was given.")
        for name, model in models.items():
            largest = max(model.default_size or (0,))
            if largest > limits.side:
                raise ConfigError(
                    f"{name} draws {largest} px by default, beyond the limit of {limits.side}; "
                    "raise the limit (--max-side)."
                )
        self.models = dict(models)
        self.limits = limits
        self._worker = Worker(limits.queue)

    def draw(self, owner: str, values: object) -> Job:
        """Draw a picture both ways; the job finishes with :class:`Drawn`.

        Args:
            owner: Whose picture it is.
            values: See :func:`retom.studio.request.read_request`.

        Raises:
            ConfigError: A value is wrong, or too many wait.
        """
        request = read_request(values, self.models, self.limits)
        return self._worker.submit(owner, lambda job: self._draw(job, request))

    def look(self, owner: str, values: object) -> Job:
        """Draw the merged picture once more and record what merges; finishes with :class:`Looked`.

        Recording costs time, so it is never part of a picture that is timed.

        Raises:
            ConfigError: A value is wrong, or too many wait.
        """
        request = read_request(values, self.models, self.limits)
        return self._worker.submit(owner, lambda job: self._look(job, request))

    def stop(self, owner: str) -> int:
        """Stop everything of a visitor's; returns how much there was."""
        return self._worker.stop(owner)

    def close(self) -> None:
        """Stop everything of everybody's, and take no more."""
        self._worker.close()

    def _draw(self, job: Job, request: Request) -> Drawn:
        model = self.models[request.model]
        on_step, on_latents = _reporting(job, model)
        result = compare(
            model,
            request.settings,
            request.config,
            repeat=1,
            on_step=on_step,
            on_latents=on_latents,
        )
        return Drawn(request, result, _note(model, request))

    def _look(self, job: Job, request: Request) -> Looked:
        model = self.models[request.model]
        on_step, on_latents = _reporting(job, model)
        with applied(model.pipe, request.config) as handle, viz.record(handle) as recording:
            series = draw_once(model, request.settings, "recorded", on_step, on_latents)
        if not recording.layers:
            raise ConfigError(
                "Nothing merged in this picture: its ratio is 0, or all of its steps are below the "
                f"noise at which they merge, {request.config.noise[0]:g}. Draw one that merges."
            )
        return Looked(request, series.image, recording)


def _reporting(job: Job, model: Model) -> tuple[OnStep, OnLatents]:
    """Tell the job of steps and previews, and end its work once it is stopped."""
    preview = Preview(model.pipe)
    at = Working("", 0, 0)

    def on_step(label: str, done: int, total: int) -> None:
        nonlocal at, preview
        job.check()
        if done == 0:
            preview = Preview(model.pipe)
        at = Working(label, done, total)
        job.tell(at)

    def on_latents(latents: Tensor) -> None:
        image = preview(latents)
        if image is not None:
            job.tell(Working(at.label, at.done, at.total, image))

    return on_step, on_latents


def _note(model: Model, request: Request) -> str:
    limit, length = model.prompt_limit, model.prompt_length(request.settings.prompt)
    if limit is None or length <= limit:
        return ""
    return f"The prompt is {length} tokens long; the model reads the first {limit}."
