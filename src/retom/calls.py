"""Reading and changing the arguments of a module's call, however the caller passed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ConfigError
from retom.rules import TRAINING_TIMESTEPS

if TYPE_CHECKING:
    from torch import Tensor

    from retom.token_plan import TokenPlan

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def noise_level(timestep: object) -> float:
    """The timestep of a call over those of training; waits for the device that it is on.

    Raises:
        ConfigError: The pictures of the call have different timesteps.
    """
    read = torch.as_tensor(cast("Any", timestep)).detach().reshape(-1)
    values = cast("list[float]", read.tolist())
    if any(value != values[0] for value in values):
        raise ConfigError(
            "Rules by noise, refresh and importance need one timestep for all pictures of a call; "
            f"{len(set(values))} different ones were given."
        )
    return values[0] / TRAINING_TIMESTEPS


def first_input(args: Args, kwargs: Kwargs, name: str) -> Tensor:
    """A module's main input."""
    return cast("Tensor", args[0] if args else kwargs[name])


def with_first_input(args: Args, kwargs: Kwargs, tokens: Tensor) -> tuple[Args, Kwargs]:
    """The arguments with other tokens as the main input."""
    if args:
        return (tokens, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": tokens}


def with_mask(
    args: Args, kwargs: Kwargs, position: int, plan: TokenPlan, *, size_weighted: bool
) -> tuple[Args, Kwargs]:
    """The arguments with the kept tokens' part of the attention mask, and their sizes if asked.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        position: Where ``attention_mask`` stands among the positional ones.
        plan: Which tokens are kept.
        size_weighted: Whether to add the logarithm of their sizes.
    """
    positional = len(args) > position
    mask = cast("Tensor | None", args[position] if positional else kwargs.get("attention_mask"))
    if mask is not None:
        mask = plan.pick(mask, dim=-1)
    if size_weighted:
        bias = plan.log_sizes.to(first_input(args, kwargs, "hidden_states").dtype)[:, None]
        mask = bias if mask is None else mask + bias
    if positional:
        return (*args[:position], mask, *args[position + 1 :]), kwargs
    if mask is None:
        return args, kwargs
    return args, {**kwargs, "attention_mask": mask}
