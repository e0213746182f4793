"""How similar tokens are to the representatives of the windows around their own.

On a CPU each window is a small product of matrices, its tokens by all representatives within reach,
which reads each token once. Elsewhere, in a graph that is compiled, and where the user allows
products of matrices of lower precision for the model, it is one multiplication and sum for each
place around, in float32, which a compiler fuses to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retom.grid import around
from retom.representative import dot, multiplies_well
from retom.tables import table

if TYPE_CHECKING:
    from torch import Tensor


def similarities(
    unit: Tensor, field: Tensor, columns: int, reach: int, room: Tensor | None
) -> Tensor:
    """Compare the tokens of each window with the representatives of the windows around it.

    Args:
        unit: Unit tokens of n windows in raster order, float32 (B, n, window_area, C).
        field: The representatives of these windows and of what stands before and behind them, unit
            tokens (B, n + 2 reach (columns + 1), C): the window that is ``down`` rows and ``right``
            columns from a window is ``down * columns + right`` places from it. Where that leads
            beyond the left or right border it is some other window, whose figure means nothing.
        columns: How many windows stand in a row.
        reach: How many windows away to look.
        room: Memory for what is derived, float32 of at least as many elements as
            :func:`room_needed` and ``unit`` have, in one dimension; None where there is no need.

    Returns:
        Cosine similarities, float32 (K, B, n, window_area), in the order of
        :func:`retom.grid.around`.
    """
    # A window's own representative alone is no matrix: products with one column are slow.
    if reach and room is not None and multiplies_well(unit.device):
        return _window_by_window(unit, field, columns, reach, room)
    return _place_by_place(unit, field, columns, reach, room)


def room_needed(batch: int, num_windows: int, channels: int, reach: int) -> int:
    """How many numbers :func:`similarities` derives from the representatives around."""
    return batch * (num_windows + 2 * reach) * (2 * reach + 1) * channels


def _place_by_place(
    unit: Tensor, field: Tensor, columns: int, reach: int, room: Tensor | None
) -> Tensor:
    num_windows = unit.shape[1]
    if room is not None:
        room = room[: unit.numel()].view(unit.shape)
    first = reach * (columns + 1)
    found: list[Tensor] = []
    for down, right in around(reach):
        start = first + down * columns + right
        found.append(dot(unit, field[:, start : start + num_windows, None], room))
    return torch.stack(found)


def _window_by_window(
    unit: Tensor, field: Tensor, columns: int, reach: int, room: Tensor
) -> Tensor:
    batch, num_windows, area, channels = unit.shape
    side = 2 * reach + 1
    # Side by side what stands in one column of the places around: those of a window, and then its
    # matrix, follow each other without a gap, and matrices of windows in a row overlap.
    shape = (batch, num_windows + 2 * reach, side, channels)
    by_column = room[: room_needed(batch, num_windows, channels, reach)].view(shape)
    strides = (field.stride(0), channels, columns * channels, 1)
    by_column.copy_(field.as_strided(shape, strides))
    products = unit.new_empty(batch, num_windows, area, side * side)
    for item in range(batch):
        beside = by_column[item].as_strided(
            (num_windows, channels, side * side), (side * channels, 1, channels)
        )
        torch.bmm(unit[item], beside, out=products[item])  # with out= in float32 under autocast too
    return products.permute(3, 0, 1, 2).index_select(0, _columnwise(reach, unit.device))


@table
def _columnwise(reach: int, device: torch.device) -> Tensor:
    """Where each place around stands when they are counted column by column, int64 (K,)."""
    side = 2 * reach + 1
    order = [(right + reach) * side + down + reach for down, right in around(reach)]
    return torch.tensor(order, device=device)
