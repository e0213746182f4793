"""What is timed: a pipeline's denoiser, or a published configuration with random weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.benchmarking.memory import available_bytes
from retom.drawing.bundled import BUNDLED
from retom.drawing.loading import as_model, device_named, dtype_named, load_model
from retom.errors import ConfigError, ModelError
from retom.explanation.known import known_models
from retom.explanation.result import readable
from retom.explanation.subject import subject_of
from retom.models import find_denoiser, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from retom.drawing.loading import Model
    from retom.explanation.subject import Subject as About

ROOM = 1.5
"""Memory that a call is taken to need, over that of the weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model under the clock.

    Attributes:
        name: As the user gave it.
        about: Its denoiser on the meta device, its size and its text.
        model: The pipeline; None for random weights.
        device: Where it runs.
        dtype: What it computes in.
    """

    name: str
    about: About
    model: Model | None
    device: torch.device
    dtype: torch.dtype

    @property
    def weights(self) -> str:
        """Whose weights, in a word or two."""
        return "random weights" if self.model is None else "its own weights"

    @property
    def parameters(self) -> int:
        """How many the denoiser has."""
        return sum(parameter.numel() for parameter in self.about.denoiser.parameters())

    def denoiser(self, seed: int) -> nn.Module:
        """The whole denoiser, with numbers in it."""
        if self.model is not None:
            return find_denoiser(self.model.pipe)
        return realised(copy.deepcopy(self.about.denoiser), self.device, seed)


def subject_named(target: object, *, device: str = "auto", dtype: str = "auto") -> Subject:
    """A model by what the user calls it.

    Args:
        target: None for the bundled model or the name of one, a diffusers folder or hub id
            (``owner/name``), the name of a shipped configuration such as ``flux-dev``, which gets
            random weights, or a pipeline, which runs where it is.
        device: As in :func:`~retom.drawing.loading.load_model`.
        dtype: The same.

    Raises:
        ConfigError: The device or the dtype is unknown or not available.
        ModelError: There is no such model.
        UnsupportedModelError: ``target`` is no pipeline with a denoiser.
    """
    if target is not None and not isinstance(target, str):
        return _of_model(as_model(target))
    if target is None or target in BUNDLED or Path(target).exists() or "/" in target:
        return _of_model(load_model(target, device=device, dtype=dtype))
    if target not in known_models():
        raise ModelError(
            f"There is no folder {target}, and no configuration of that name is shipped; those "
            f"are {', '.join(known_models())}. Models that come along are {' and '.join(BUNDLED)}; "
            "a hub id is written owner/name."
        )
    place = device_named(device)
    precision = dtype_named(dtype, place)
    about = subject_of(target)
    if precision != next(about.denoiser.parameters()).dtype:
        about.denoiser.to(precision)
    return Subject(target, about, None, place, precision)


def _of_model(model: Model) -> Subject:
    return Subject(model.name, subject_of(model.pipe), model, model.device, model.dtype)


def part_for(subject: Subject, asked: str) -> tuple[str, str]:
    """What to time, and a sentence on why.

    Args:
        subject: The model.
        asked: One of :data:`~retom.benchmarking.settings.PARTS`.

    Raises:
        ConfigError: Whole pictures are asked for without a pipeline.
    """
    if asked == "picture" and subject.model is None:
        raise ConfigError(
            f"{subject.name} is a configuration without a pipeline, which cannot draw; part is "
            "denoiser, block or layer, or give a diffusers folder."
        )
    if asked != "auto":
        return asked, f"Timed: {asked}, as asked."
    if subject.model is not None:
        return "denoiser", "Timed: the whole denoiser, which is loaded."
    size = torch.empty((), dtype=subject.dtype).element_size()
    need, free = subject.parameters * size, available_bytes(subject.device)
    dtype = str(subject.dtype).removeprefix("torch.")
    facts = f"{subject.name} has {readable(subject.parameters)}parameters, {_gib(need)} in {dtype}"
    if free is None:
        return "denoiser", f"Timed: the whole denoiser. {facts}; nothing tells what memory is left."
    if ROOM * need <= free:
        return "denoiser", f"Timed: the whole denoiser. {facts}; {_gib(free)} are available."
    return "block", (
        f"Timed: single blocks. {facts}; with half as much again for the call that does not fit "
        f"into the {_gib(free)} that are available. Part denoiser times the whole all the same."
    )


def realised(module: nn.Module, device: torch.device, seed: int) -> nn.Module:
    """A module from the meta device with random numbers, small enough for outputs to stay finite.

    Rotary tables, which some models keep in plain attributes, get random numbers as well.

    Args:
        module: Changed in place.
        device: Where it goes.
        seed: Of the numbers.
    """
    module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, value in [*_named(module.named_parameters), *_named(module.named_buffers)]:
            if not value.is_floating_point():
                value.zero_()
            elif value.ndim > 1:
                value.normal_(0.0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
    tables = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if _is_hollow(value):
                setattr(part, name, real(value, device, torch.float32, tables))
    return module.eval()


def _is_hollow(value: object) -> bool:
    """Whether it is a tensor on the meta device, or a list of such."""
    if isinstance(value, torch.Tensor):
        return value.is_meta
    return isinstance(value, list) and any(_is_hollow(item) for item in cast("list[object]", value))


def given(inputs: Mapping[str, Any], subject: Subject, seed: int) -> dict[str, Any]:
    """Arguments on the meta device as real ones, at the middle of the noise.

    An even batch holds its latents twice, as guidance does.

    Args:
        inputs: As :func:`retom.explanation.one_call.one_call` makes them.
        subject: For device and dtype.
        seed: Of the numbers.
    """
    layout = layout_of(subject.about.denoiser)
    timestep = layout.timestep
    made = real(dict(inputs), subject.device, subject.dtype, torch.Generator().manual_seed(seed))
    middle = (timestep.noisy + timestep.clean) / 2
    time = made[timestep.argument]
    made[timestep.argument] = torch.full_like(time, middle, dtype=torch.float32)
    latents = made[layout.picture]
    if len(latents) % 2 == 0:
        half = latents[: len(latents) // 2]
        listed = isinstance(half, list)
        made[layout.picture] = half * 2 if listed else half.repeat(2, *[1] * (half.ndim - 1))
    return made


def real(
    value: Any,  # noqa: ANN401 - arguments of any kind
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Any:  # noqa: ANN401
    """The same arguments with numbers in them: noise of variance 1, masks that let all pass.

    Tensors that have numbers already, such as positions, keep them.
    """
    if isinstance(value, torch.Tensor):
        return _real(value, device, dtype, generator)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {key: real(item, device, dtype, generator) for key, item in items}
    if isinstance(value, (list, tuple)):
        made = [real(item, device, dtype, generator) for item in cast("list[Any]", value)]
        return made if isinstance(value, list) else tuple(made)
    return value


def _real(
    value: Tensor, device: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    if value.device.type != "meta":
        return value.to(device)
    if value.is_complex():
        return torch.randn(value.shape, dtype=value.dtype, generator=generator).to(device)
    if value.is_floating_point():
        return torch.randn(value.shape, generator=generator).to(device, dtype)
    fill = 1 if value.dtype == torch.bool else 0
    return torch.full(value.shape, fill, dtype=value.dtype, device=device)


def _named(listing: Callable[[], Any]) -> list[tuple[str, Tensor]]:
    return list(listing())


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
