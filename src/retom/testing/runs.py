"""Running a model for a proof, and comparing outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from retom.calls import Args, Kwargs


def plain_run(
    model: nn.Module, arguments: Mapping[str, Any]
) -> tuple[Tensor, dict[nn.Module, tuple[Args, Kwargs]]]:
    """The output un-merged, and the arguments of every module's last call."""
    calls: dict[nn.Module, tuple[Args, Kwargs]] = {}

    def note(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        calls[module] = (args, kwargs)

    hooks = [m.register_forward_pre_hook(note, with_kwargs=True) for m in model.modules()]
    try:
        return run(model, arguments), calls
    finally:
        for hook in hooks:
            hook.remove()


def randomise_zeros(model: nn.Module, seed: int) -> None:
    """Make parameters that are all zero random: a gate of zero hides whatever is behind it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not bool(parameter.any()):
            drawn = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.copy_(drawn.to(parameter.device))


def run(model: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    """The model's output as one tensor, float32, however the model hands it out.

    That of a ControlNet, tensors for each of its blocks, is laid out in one dimension.
    """
    output: Any = model(**arguments)
    output = getattr(output, "sample", output)
    if isinstance(output, dict):  # a named output without a sample
        return torch.cat([item.flatten() for item in _tensors(cast("object", output))]).float()
    if isinstance(output, tuple):
        output = cast("tuple[Any, ...]", output)[0]
    if isinstance(output, list):  # a picture an item
        output = torch.stack(cast("list[Tensor]", output))
    return cast("Tensor", cast("object", output)).float()


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in a nest."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors([*cast("dict[str, object]", value).values()])
    elif isinstance(value, (tuple, list)):
        for item in cast("list[object]", value):
            yield from _tensors(item)


def relative(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    distance = cast("Tensor", torch.linalg.vector_norm(found - expected))
    return float(distance / cast("Tensor", torch.linalg.vector_norm(expected)))
