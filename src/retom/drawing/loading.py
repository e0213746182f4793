"""Load a diffusers text-to-image pipeline: from a folder, from the hub, or a bundled one.

Imports diffusers, so only what draws pictures imports this file.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.drawing.bundled import (
    BUNDLED,
    BUNDLED_GUIDANCE,
    BUNDLED_STEPS,
    DEFAULT,
    bundled_folder,
)
from retom.drawing.pretrained import pretrained, reason_of, source_of
from retom.errors import ConfigError, ModelError
from retom.models import find_denoiser
from retom.models.names import class_names
from retom.models.sizes import default_size

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

DTYPES = ("float32", "float16", "bfloat16")

_NEEDED = {
    "prompt",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "generator",
}
_ON_STEP = "callback_on_step_end"
_UNWANTED = {"image", "video", "num_frames"}
_WITHOUT_IMAGE = {
    "BriaFibo2Pipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "FluxKontextPipeline",
    "GlmImagePipeline",
}
"""Pipelines that take a picture to edit, and draw from a prompt alone where they get none."""


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline, ready to draw.

    Attributes:
        name: As the user gave it; ``retom-emoji-256`` if nothing was given.
        pipe: A diffusers pipeline, on ``device``.
        device: Where it runs.
        dtype: What it computes in.
        steps: Denoising steps by default.
        guidance: Guidance scale by default.
    """

    name: str
    pipe: Any
    device: torch.device
    dtype: torch.dtype
    steps: int
    guidance: float

    @property
    def default_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels that the denoiser was trained for; None if it does not say.

        Raises:
            UnsupportedModelError: It says something else than a size.
        """
        denoiser = getattr(self.pipe, "unet", None) or getattr(self.pipe, "transformer", None)
        size = default_size(getattr(denoiser, "config", None))
        scale = getattr(self.pipe, "vae_scale_factor", None)
        return (
            None
            if size is None or not isinstance(scale, int)
            else (size[0] * scale, size[1] * scale)
        )

    @property
    def prompt_limit(self) -> int | None:
        """Tokens of a prompt that are read; None if the tokenizer does not say."""
        limit = getattr(getattr(self.pipe, "tokenizer", None), "model_max_length", None)
        return limit if isinstance(limit, int) else None

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, with those that mark its beginning and end; 0 without a tokenizer.

        Raises:
            ModelError: The tokenizer fails.
        """
        tokenizer = getattr(self.pipe, "tokenizer", None)
        if tokenizer is None:
            return 0
        try:
            return len(tokenizer(prompt).input_ids)
        except Exception as error:  # its files can be wrong in any way, and each raises its own
            raise ModelError(
                f"The tokenizer of {self.name} cannot read the prompt ({reason_of(error)}); check "
                "the files in its folder."
            ) from error


def load_model(name: str | None = None, *, device: str = "auto", dtype: str = "auto") -> Model:
    """Load a text-to-image pipeline.

    Args:
        name: One of :data:`~retom.drawing.bundled.BUNDLED`, before a folder of that name (write
            ``./`` before it), or a diffusers folder or hub id; None for the first bundled one.
        device: ``auto`` for the accelerator if there is one, else the CPU; or a torch device.
        dtype: ``auto`` for float16 on CUDA and float32 elsewhere; or one of :data:`DTYPES`.

    Raises:
        ConfigError: The device or the dtype is unknown or not available.
        ModelError: The model cannot be found or loaded, or does not draw from a prompt alone.
    """
    place = device_named(device)
    precision = dtype_named(dtype, place)
    name = DEFAULT if name is None else name
    bundled = name in BUNDLED
    source = str(bundled_folder(name)) if bundled else source_of(name)
    pipe = pretrained(source, precision, place)
    parameters = _parameters(pipe, f"{source} holds a {type(pipe).__name__}, which")
    pipe.set_progress_bar_config(disable=True)  # callers show steps in their own way
    return Model(
        name=name,
        pipe=pipe,
        device=place,
        dtype=precision,
        steps=BUNDLED_STEPS if bundled else int(parameters["num_inference_steps"].default),
        guidance=BUNDLED_GUIDANCE if bundled else float(parameters["guidance_scale"].default),
    )


def as_model(pipe: Any) -> Model:  # noqa: ANN401 - a pipeline of any class
    """A pipeline that a user holds, with what its own signature and configuration say of it.

    Raises:
        ModelError: It does not draw a picture from a prompt alone.
        UnsupportedModelError: It is no pipeline with a denoiser.
    """
    denoiser = find_denoiser(pipe)
    parameters = _parameters(pipe, type(pipe).__name__)
    weight = next(denoiser.parameters())
    source = getattr(pipe.config, "_name_or_path", "") if hasattr(pipe, "config") else ""
    return Model(
        name=Path(source).name or type(pipe).__name__,
        pipe=pipe,
        device=weight.device,
        dtype=weight.dtype,
        steps=int(parameters["num_inference_steps"].default),
        guidance=float(parameters["guidance_scale"].default),
    )


def _parameters(pipe: object, whose: str) -> Mapping[str, inspect.Parameter]:
    """What a pipeline's call takes.

    Raises:
        ModelError: It does not draw a picture from a prompt alone, step by step.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    unwanted = _UNWANTED & parameters.keys()
    if not _WITHOUT_IMAGE.isdisjoint(class_names(pipe)):
        unwanted = unwanted - {"image"}
    if unwanted or _NEEDED - parameters.keys():
        raise ModelError(
            f"{whose} does not draw a picture from a prompt alone; a text-to-image pipeline of "
            "diffusers is needed."
        )
    if _ON_STEP not in parameters:
        raise ModelError(
            f"{whose} has no {_ON_STEP}: it does not tell when a step ends, which retom's commands "
            "follow. In Python, retom.apply(pipe) merges in it all the same."
        )
    return parameters


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Silence the loggers, bars and warnings of diffusers and transformers inside a ``with`` block.

    Their bars and notices would stand between the lines of a command's own output.
    """
    # Through transformers first: diffusers' import has notices of its own to log.
    loggers = [
        import_module(f"{library}.utils.logging") for library in ("transformers", "diffusers")
    ]
    before = [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    for logger in loggers:
        logger.set_verbosity(CRITICAL)  # what is an error to them, retom says in a sentence
        logger.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, (verbosity, bars) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bars:
                logger.enable_progress_bar()


def device_named(name: str) -> torch.device:
    """The device of a name; ``auto`` is the accelerator if there is one, else the CPU.

    Raises:
        ConfigError: It is not there.
    """
    if name == "auto":
        found = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "meta" or (device.type == "cpu" and device.index):
            raise NotImplementedError  # torch takes both, and neither is a device to draw on
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"The device {name} is not available on this machine.") from error
    return device


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The precision of a name; ``auto`` is float16 on CUDA and float32 elsewhere.

    Raises:
        ConfigError: It is none of :data:`DTYPES`.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype is auto or one of {', '.join(DTYPES)}; {name!r} was given.")
    return cast("torch.dtype", getattr(torch, name))
