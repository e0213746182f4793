"""What is explained: a denoiser without weights, its size and its text, from whatever was given."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import MissingExtraError, ModelError
from retom.explanation.known import Known, load_known
from retom.handle import handle_of
from retom.models import find_denoiser

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Subject:
    """A denoiser on the meta device.

    Attributes:
        name: What the user calls it, or its class.
        denoiser: On the meta device; a copy, if the user holds the model.
        source: Where its configuration is from.
        size: Default (height, width) of a picture in pixels; None if nothing says it.
        pixels_per_latent: Pixels along a side of a latent; None if nothing says it.
        text_tokens: Length of the text; None if nothing says it.
        text_tokens_from: Why that length.
    """

    name: str
    denoiser: nn.Module
    source: str
    size: tuple[int, int] | None
    pixels_per_latent: int | None
    text_tokens: int | None
    text_tokens_from: str


def subject_of(target: object) -> Subject:
    """Read a name, a folder, a pipeline or a denoiser.

    Raises:
        ModelError: The name is unknown, or its configuration cannot be built.
        UnsupportedModelError: ``target`` is no model.
        MissingExtraError: A name or a folder needs diffusers.
    """
    if isinstance(target, str):
        return _subject_of_known(load_known(target))
    denoiser = find_denoiser(target)
    stride = getattr(target, "vae_scale_factor", None)
    sample = getattr(getattr(denoiser, "config", None), "sample_size", None)
    size = None
    if isinstance(stride, int) and sample is not None:
        height, width = (sample, sample) if isinstance(sample, int) else sample
        size = int(height) * stride, int(width) * stride
    only = not hasattr(target, "tokenizer_3") and hasattr(target, "unet")
    limit = getattr(getattr(target, "tokenizer", None), "model_max_length", None) if only else None
    return Subject(
        name=type(target).__name__,
        denoiser=meta_copy(denoiser),
        source="the given model",
        size=size,
        pixels_per_latent=stride if isinstance(stride, int) else None,
        text_tokens=limit if isinstance(limit, int) and limit < 10_000 else None,
        text_tokens_from="the tokenizer's model_max_length",
    )


def meta_copy(denoiser: nn.Module) -> nn.Module:
    """A copy on the meta device, without numbers; adapters come along, merging does not."""
    memo: dict[int, Any] = {}
    for parameter in denoiser.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = torch.nn.Parameter(empty, requires_grad=False)
    for buffer in denoiser.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(denoiser, memo).eval()
    handle = handle_of(twin)
    if handle is not None:
        handle.remove()
    return twin


def build(known: Known) -> nn.Module:
    """The denoiser of a configuration, on the meta device.

    Raises:
        MissingExtraError: diffusers is not installed.
        ModelError: diffusers has no such class, or the configuration does not fit it.
    """
    try:
        diffusers = cast("Any", import_module("diffusers"))
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Explaining {known.name} by its configuration needs diffusers, which is not "
            'installed: pip install "retom[cli]".'
        ) from error
    cls = getattr(diffusers, known.denoiser, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
        raise ModelError(
            f"{known.name} is a {known.denoiser or 'model without a class name'}, which diffusers "
            f"{diffusers.__version__} does not have. Install a newer one."
        )
    try:
        with torch.device("meta"):
            denoiser = cls(**known.config)
    except Exception as error:  # a constructor may trip over anything that a file says
        raise ModelError(
            f"The configuration of {known.name} does not fit {known.denoiser} of diffusers "
            f"{diffusers.__version__}: {type(error).__name__}: {str(error).rstrip('.')}."
        ) from error
    # Tables that come from numpy are made on the CPU whatever the default device.
    return denoiser.to("meta").eval()


def _subject_of_known(known: Known) -> Subject:
    size = None
    if known.height is not None and known.width is not None:
        size = known.height, known.width
    return Subject(
        name=known.name,
        denoiser=build(known),
        source=known.source,
        size=size,
        pixels_per_latent=known.pixels_per_latent,
        text_tokens=known.text_tokens,
        text_tokens_from=known.text_tokens_from,
    )
