"""The size that a denoiser was trained for, where its configuration names one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from retom.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


def default_size(config: object) -> tuple[int, int] | None:
    """(height, width) in latents; None if the configuration has no ``sample_size``.

    Args:
        config: Of a UNet or a transformer, or None.

    Raises:
        UnsupportedModelError: It is neither a whole number nor two of them.
    """
    size: object = getattr(config, "sample_size", None)
    if size is None:
        return None
    sides = cast("Sequence[object]", size) if isinstance(size, (list, tuple)) else (size, size)
    whole = [side for side in sides if type(side) is int and side >= 1]
    if len(whole) != 2 or len(sides) != 2:
        raise UnsupportedModelError(
            "sample_size in a model's configuration is a whole number of at least 1, or a list of "
            f"two, height and width; {size!r} was given."
        )
    return whole[0], whole[1]
