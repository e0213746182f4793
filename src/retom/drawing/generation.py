"""Draw a picture with a diffusers pipeline, merged or both ways from one seed, and time it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retom.drawing.failing import failures_of
from retom.drawing.stopwatch import DenoiserStopwatch
from retom.errors import ConfigError
from retom.handle import applied
from retom.metrics import psnr, ssim
from retom.models import find_denoiser
from retom.profit import UNPROFITABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from retom.config import Config
    from retom.drawing.loading import Model
    from retom.summary import Summary

    OnStep = Callable[[str, int, int], None]
    """Told what is being drawn, its steps done, and its steps in all."""
    OnLatents = Callable[[torch.Tensor], None]
    """Told the latents after each step, the clock stopped meanwhile."""

# diffusers checks for multiples of 8 whatever the autoencoder's own scale.
_SIZE_STEP = 8
# SSIM looks through a window of 11 px, and smaller pictures show nothing.
_SMALLEST_SIDE = 16
# Long enough to allocate, to pick kernels and to read every weight; more would be time lost.
_WARM_UP_STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a picture is drawn from.

    Attributes:
        prompt: Text to draw.
        negative_prompt: Text to steer away from, or None.
        seed: Of the noise, drawn on the CPU so that every device starts from the same.
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        height: In pixels.
        width: In pixels.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int
    guidance: float
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Series:
    """One picture, drawn one or more times.

    Attributes:
        image: The picture; every run draws the same.
        seconds: Of each run: text encoding, denoising, decoding.
        denoiser_seconds: Of each run: the denoiser's calls alone, merging included.
    """

    image: Image
    seconds: tuple[float, ...]
    denoiser_seconds: tuple[float, ...]

    @staticmethod
    def of(runs: list[Series]) -> Series:
        """Several runs of one picture as one series."""
        return Series(
            image=runs[0].image,
            seconds=tuple(second for run in runs for second in run.seconds),
            denoiser_seconds=tuple(second for run in runs for second in run.denoiser_seconds),
        )

    @property
    def median_seconds(self) -> float:
        """Median over the runs."""
        return median(self.seconds)

    @property
    def median_denoiser_seconds(self) -> float:
        """Median over the runs."""
        return median(self.denoiser_seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The un-merged picture, and how the merged one stands to it.

    Attributes:
        unmerged: The picture without merging.
        speedup: Median seconds un-merged over merged.
        denoiser_speedup: The same for the denoiser alone.
        psnr: Of the 8-bit pictures in dB; infinite for equal ones.
        ssim: Of the 8-bit pictures.
    """

    unmerged: Series
    speedup: float
    denoiser_speedup: float
    psnr: float
    ssim: float

    @staticmethod
    def of(unmerged: Series, merged: Series) -> Comparison:
        """Compare two series."""
        ours, reference = _tensor(merged.image), _tensor(unmerged.image)
        return Comparison(
            unmerged=unmerged,
            speedup=unmerged.median_seconds / merged.median_seconds,
            denoiser_speedup=unmerged.median_denoiser_seconds / merged.median_denoiser_seconds,
            psnr=psnr(ours, reference).item(),
            ssim=ssim(ours, reference).item(),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What was drawn.

    Attributes:
        merged: The picture, merged as asked.
        summary: What merged where, at this size.
        comparison: With the un-merged picture, if that was drawn too.
    """

    merged: Series
    summary: Summary
    comparison: Comparison | None = None


def size_step(model: Model) -> int:
    """Heights and widths that the model can draw are multiples of this, in px."""
    return math.lcm(_SIZE_STEP, int(model.pipe.vae_scale_factor))


def check_size(model: Model, height: int, width: int) -> None:
    """Refuse a size that the model cannot draw; it would fail late, or draw another size.

    Raises:
        ConfigError: A side is too small, or not a multiple of the model's step.
    """
    step = size_step(model)
    smallest = math.ceil(_SMALLEST_SIDE / step) * step
    for side, pixels in (("height", height), ("width", width)):
        if pixels < smallest or pixels % step:
            below = pixels // step * step
            nearest = f"{below} or {below + step}" if below >= smallest else f"{smallest}"
            raise ConfigError(
                f"The {side} of a picture is a multiple of {step} px and at least {smallest} with "
                f"this model; {pixels} was given, use {nearest}."
            )


def draw(model: Model, settings: Settings, config: Config, *, on_step: OnStep) -> Result:
    """Draw the merged picture once.

    Raises:
        RetomError: The model cannot merge, or not as ``config`` says; before the first step.
    """
    with applied(model.pipe, config) as handle:
        merged = draw_once(model, settings, "drawing", on_step)
        return Result(merged, handle.summary())


def compare(
    model: Model,
    settings: Settings,
    config: Config,
    *,
    repeat: int,
    on_step: OnStep,
    on_latents: OnLatents | None = None,
) -> Result:
    """Draw the picture both ways from one seed, in interleaved pairs after a short warm-up of each.

    Un-merged runs have no hook of retom in place. Every second pair runs merged first, so that a
    machine that slows down or speeds up favours neither.

    Args:
        model: Draws.
        settings: What, from which seed.
        config: How the merged runs merge.
        repeat: Pairs to time, at least 1.
        on_step: Told of every step.
        on_latents: Told the latents after every step that is timed.

    Raises:
        RetomError: The model cannot merge, or not as ``config`` says; before the first step.
    """
    short = replace(settings, steps=min(_WARM_UP_STEPS, settings.steps))
    if config.skip == UNPROFITABLE and len(config.plateaus()) > 1:
        short = settings  # each stretch of noise merges its own way and is timed when it comes
    with applied(model.pipe, config) as handle:  # first of all: it checks the ratio at this size
        draw_once(model, short, "warming up", on_step)
        if not config.steady and not handle.summary().seen:  # so few steps may have no such noise
            draw_once(model, settings, "warming up", on_step)
        summary = handle.summary()
    if config.skip == UNPROFITABLE:
        # Each pair applies merging anew; it shall not be decided anew, nor timed in what is timed.
        config = config.with_options(skip=summary.skipped_sites)
    draw_once(model, short, "warming up", on_step)

    merged: list[Series] = []
    unmerged: list[Series] = []
    for pair in range(repeat):
        count = f" {pair + 1}/{repeat}" if repeat > 1 else ""
        for merges in (False, True) if pair % 2 == 0 else (True, False):
            if merges:
                with applied(model.pipe, config):
                    merged.append(draw_once(model, settings, f"merged{count}", on_step, on_latents))
            else:
                unmerged.append(
                    draw_once(model, settings, f"un-merged{count}", on_step, on_latents)
                )
    series = Series.of(merged)
    return Result(series, summary, Comparison.of(Series.of(unmerged), series))


def draw_once(
    model: Model,
    settings: Settings,
    label: str,
    on_step: OnStep,
    on_latents: OnLatents | None = None,
) -> Series:
    """Draw one picture with the pipeline as it is, merging or not, and time it.

    Args:
        model: Draws.
        settings: What, from which seed.
        label: What ``on_step`` is told is being drawn.
        on_step: Told of every step.
        on_latents: Told the latents after every step; what it takes is no part of the times.

    Raises:
        ModelError: The pipeline fails.
    """
    aside = 0.0

    def after_step(
        _pipe: object, index: int, _timestep: object, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        # Schedulers of second order take more steps than were asked for.
        nonlocal aside
        on_step(label, index + 1, len(model.pipe.scheduler.timesteps))
        if on_latents is not None:
            stopped = stopwatch.now()
            on_latents(tensors["latents"])
            aside += stopwatch.now() - stopped
        return tensors

    on_step(label, 0, settings.steps)
    arguments: dict[str, Any] = {
        "prompt": settings.prompt,
        "height": settings.height,
        "width": settings.width,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "generator": torch.Generator().manual_seed(settings.seed),
        "callback_on_step_end": after_step,
    }
    if settings.negative_prompt is not None:
        arguments["negative_prompt"] = settings.negative_prompt
    with DenoiserStopwatch(find_denoiser(model.pipe), model.device) as stopwatch:
        began = stopwatch.now()
        with failures_of(model.name):
            image = model.pipe(**arguments)[0][0]
        seconds = stopwatch.now() - began - aside
    return Series(image.convert("RGB"), (seconds,), (stopwatch.seconds,))


def _tensor(image: Image) -> torch.Tensor:
    """An 8-bit picture as float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
