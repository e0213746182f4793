"""Reading and changing the arguments of a module's call, however the caller passed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from retom.models.layout import Timestep
    from retom.token_plan import TokenPlan

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def noise_level(value: object, timestep: Timestep) -> float:
    """The noise level of a call, 1 for pure noise; waits for the device that it is on.

    Raises:
        ConfigError: The pictures of the call have different timesteps.
    """
    read = torch.as_tensor(cast("Any", value)).detach().reshape(-1)
    values = cast("list[float]", read.tolist())
    if any(value != values[0] for value in values):
        raise ConfigError(
            "Merging by noise, refresh and importance need one timestep for all pictures of a "
            f"call; {len(set(values))} different ones were given."
        )
    return (values[0] - timestep.clean) / (timestep.noisy - timestep.clean)


def bind(parameters: tuple[str, ...], args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The arguments by name; those left to their defaults are absent."""
    return {**dict(zip(parameters, args, strict=False)), **kwargs}


def read_path(
    parameters: tuple[str, ...], args: Args, kwargs: Kwargs, keys: tuple[str, ...]
) -> Any:  # noqa: ANN401 - whatever the caller passed
    """What stands at a path in the arguments; None where nothing does."""
    value = bind(parameters, args, kwargs).get(keys[0])
    for key in keys[1:]:
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(key)
        elif isinstance(value, (tuple, list)) and key.isdecimal():
            value = cast("list[Any]", value)[int(key)]
        else:
            value = getattr(cast("object", value), key, None)
    return value


def with_path(
    parameters: tuple[str, ...],
    args: Args,
    kwargs: Kwargs,
    keys: tuple[str, ...],
    value: object,
) -> tuple[Args, Kwargs]:
    """The arguments with another value at a path that exists; the caller's own stay as they are."""
    name = keys[0]
    position = parameters.index(name) if name in parameters else len(args)
    if position < len(args):
        value = _replaced(args[position], keys[1:], value)
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, name: _replaced(kwargs[name], keys[1:], value)}


def _replaced(holder: object, keys: tuple[str, ...], value: object) -> object:
    if not keys:
        return value
    if isinstance(holder, dict):
        held = cast("dict[str, Any]", holder)
        return {**held, keys[0]: _replaced(held[keys[0]], keys[1:], value)}
    items = list(cast("list[Any]", holder))
    items[int(keys[0])] = _replaced(items[int(keys[0])], keys[1:], value)
    return items if isinstance(holder, list) else tuple(items)


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
