"""Masks of places whose tokens must not go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import adaptive_max_pool2d

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid


def read_mask(mask: object) -> Tensor:
    """Turn what users hold into a mask.

    Args:
        mask: A PIL picture, an array or a tensor of (height, width), with leading dimensions of
            size 1 allowed: booleans; floats from 0 to 1, of which those from 0.5 are protected;
            whole numbers from 0 to 255, of which those from 128 are; or whole numbers of which none
            is above 1, as segmentation leaves them, of which the ones are.

    Returns:
        bool (height, width) on the CPU.

    Raises:
        ConfigError: It is nothing of the kind, or its values are out of that range.
    """
    if hasattr(mask, "convert") and hasattr(mask, "tobytes"):  # a PIL picture
        grey = cast("Any", mask).convert("L")
        width, height = cast("tuple[int, int]", grey.size)
        mask = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8)
        mask = mask.reshape(height, width)
    try:
        values = torch.as_tensor(cast("Any", mask)).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            "protect takes a PIL picture, an array or a tensor of (height, width); "
            f"{type(mask).__name__} was given."
        ) from error
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or 0 in values.shape:
        raise ConfigError(
            "protect takes one mask of (height, width) for all pictures; a mask of shape "
            f"{tuple(values.shape)} was given."
        )
    if values.dtype == torch.bool:
        return values
    whole = not values.is_floating_point()
    most = 255 if whole else 1
    if values.is_complex() or not bool(((values >= 0) & (values <= most)).all()):
        raise ConfigError(
            "protect takes booleans, floats from 0 to 1 or whole numbers from 0 to 255; a mask of "
            f"{str(values.dtype).removeprefix('torch.')} with other values was given. Scale it, or "
            "give mask > threshold."
        )
    if whole and int(values.max()) <= 1:
        return values == 1
    return values >= (128 if whole else 0.5)


def protected_tokens(mask: Tensor, grid: Grid) -> Tensor:
    """Tokens of a grid that a mask touches, bool (N,): one protected pixel protects its token."""
    pooled = adaptive_max_pool2d(mask[None, None].float(), (grid.height, grid.width))
    return pooled.reshape(-1) > 0
