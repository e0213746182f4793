"""How large the windows of a method are in pixels of the picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retom.methods.window import window_of
from retom.metrics.artefacts import FEWEST_WINDOWS
from retom.models import layout_of

if TYPE_CHECKING:
    from torch import nn

    from retom.methods import Method
    from retom.rules import Levels


def window_period(
    denoiser: nn.Module,
    method: Method | None,
    *,
    levels: Levels,
    size: tuple[int, int],
    scale: int,
) -> tuple[int, int] | None:
    """(height, width) in pixels of the windows on the largest grid that merges.

    Args:
        denoiser: The network.
        method: Whose windows; None for tomesd, which has windows of 2x2.
        levels: Those that merge.
        size: (height, width) of the picture in pixels.
        scale: Pixels to a latent.

    Returns:
        None where there are no windows, where they are smaller than 2 pixels, or where the picture
        holds fewer than four of them: there is no grid to look for then. None also for denoisers
        whose tokens come packed, because the size of a picture does not tell their grid.
    """
    grids_of_size = layout_of(denoiser).grids_of_size
    if grids_of_size is None:
        return None
    grids = grids_of_size(size[0] // scale, size[1] // scale)
    grid = grids[min(grids) if levels == "all" else min(levels)]
    window = (2, 2) if method is None else window_of(method, grid)
    if window is None:
        return None
    period = (
        window[0] * math.ceil(size[0] / grid.height),
        window[1] * math.ceil(size[1] / grid.width),
    )
    fits = all(FEWEST_WINDOWS * p <= side for p, side in zip(period, size, strict=True))
    return period if fits and min(period) >= 2 else None
