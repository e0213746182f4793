"""The token grid and its partition into local windows: sizes, counts and static index tables.

Everything here is a function of (height, width, window) alone, never of the data, so every shape
downstream is static. Tables are built with ``arange`` where they are used: it costs microseconds,
needs no cache keyed by device, and traces cleanly.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from retom.errors import ConfigError, ShapeError
from retom.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """Height and width of a token grid.

    Tokens are in raster order: token i sits at row i // width, column i % width.

    Args:
        height: Rows of tokens, at least 1.
        width: Columns of tokens, at least 1.

    Example:
        >>> Grid(65, 49).num_tokens
        3185
    """

    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens, N = height x width."""
        return self.height * self.width

    def fixed(self) -> Grid:
        """The same in plain numbers: under torch.compile sizes may be symbols.

        A plan is made of counts of counts, which torch cannot bound in symbols: a graph serves one
        size, and another size is another graph.
        """
        return Grid(operator.index(self.height), operator.index(self.width))

    def check_tokens(self, x: Tensor) -> None:
        """Raise :class:`ShapeError` unless ``x`` is (B, N, C) with this grid's N."""
        if x.ndim != 3 or x.shape[1] != self.num_tokens:
            raise ShapeError(
                f"A plan for a {self} grid needs tokens of shape (batch, {self.num_tokens}, "
                f"channels); {tuple(x.shape)} was given."
            )

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True, slots=True)
class Windows:
    """A partition of ``grid`` into local windows of ``height`` x ``width`` tokens.

    Windows at the edge are ragged: they hold the tokens that are left, and no token is invented.
    Tensors in *window order* have shape (..., num_windows, window_area): windows in raster order,
    slots of a window in raster order, slots beyond the edge marked by :meth:`valid`.

    Args:
        grid: The tokens to partition.
        height: Rows of a window, at least 1; more than the grid has means one window down.
        width: Columns of a window, at least 1.
        top: Rows by which the partition is shifted up, 0 <= top < height: the first row of windows
            has height - top rows.
        left: Columns by which the partition is shifted to the left, 0 <= left < width.
    """

    grid: Grid
    height: int
    width: int
    top: int = 0
    left: int = 0

    @staticmethod
    def over(grid: Grid, window: tuple[int, int]) -> Windows:
        """The partition of ``grid`` into windows of (height, width), however large they are.

        Tables have an entry for each slot. More than twice the rows or columns of the grid are the
        same partition, shifted or not, and are kept as twice.
        """
        return Windows(grid, min(window[0], 2 * grid.height), min(window[1], 2 * grid.width))

    @property
    def rows(self) -> int:
        """Windows from top to bottom."""
        return -(-(self.grid.height + self.top) // self.height)

    @property
    def columns(self) -> int:
        """Windows from left to right."""
        return -(-(self.grid.width + self.left) // self.width)

    @property
    def count(self) -> int:
        """Number of windows; each keeps at least its representative."""
        return self.rows * self.columns

    @property
    def area(self) -> int:
        """Slots in a full window."""
        return self.height * self.width

    @property
    def is_ragged(self) -> bool:
        """Whether some window at the edge holds fewer tokens than the others."""
        divides = self.grid.height % self.height == 0 and self.grid.width % self.width == 0
        return not divides or bool(self.top or self.left)

    def shifted(self) -> Windows:
        """The partition shifted by half a window up and to the left."""
        return replace(self, top=self.height // 2, left=self.width // 2)

    def gather(
        self, tokens: Tensor, places: slice = slice(None), room: Tensor | None = None
    ) -> Tensor:
        """Copy tokens (B, N, C) into window order, (B, n, window_area, C).

        Slots beyond a ragged edge hold a copy of some token; mask them with :meth:`valid`.

        Args:
            tokens: In raster order.
            places: Which n windows; all of them if not given.
            room: Memory of at least that many elements to copy to, in one dimension and of the
                dtype of the tokens; fresh memory if not given.
        """
        batch, _, channels = tokens.shape
        rows = self._rows(batch, tokens.device)[:, places]
        shape = (*rows.shape, channels)
        flat = tokens.reshape(-1, channels)
        if room is None:
            return flat.index_select(0, rows.reshape(-1)).reshape(shape)
        out = room[: rows.numel() * channels].view(-1, channels)
        return torch.index_select(flat, 0, rows.reshape(-1), out=out).view(shape)

    def token_order(self, values: Tensor) -> Tensor:
        """Reorder (B, num_windows, window_area) to tokens (B, N), without slots beyond the edge."""
        batch = values.shape[0]
        field = values.reshape(batch, self.rows, self.columns, self.height, self.width)
        field = field.permute(0, 1, 3, 2, 4)
        field = field.reshape(batch, self.rows * self.height, self.columns * self.width)
        rows = slice(self.top, self.top + self.grid.height)
        columns = slice(self.left, self.left + self.grid.width)
        return field[:, rows, columns].reshape(batch, self.grid.num_tokens)

    @table
    def token_index(self, device: torch.device) -> Tensor:
        """Token of every slot, int64 (num_windows, window_area); a neighbour's beyond the edge."""
        row, column = self._slot_positions(device)
        row = row.clamp(0, self.grid.height - 1)
        return row * self.grid.width + column.clamp(0, self.grid.width - 1)

    @table
    def valid(self, device: torch.device) -> Tensor:
        """Whether a slot holds a token, bool (num_windows, window_area)."""
        row, column = self._slot_positions(device)
        inside = (row < self.grid.height) & (column < self.grid.width)
        return inside & (row >= 0) & (column >= 0)

    def neighbours(self, reach: int, device: torch.device) -> Tensor:
        """Windows within ``reach`` rows and columns of each window, int64 (num_windows, K).

        K = (2 reach + 1)². The window itself comes first, so that a tie stays at home, then the
        others in raster order. A neighbour beyond the border of the grid is replaced by the window
        itself.
        """
        return beside(self.rows, self.columns, around(reach), device)

    @table
    def _rows(self, batch: int, device: torch.device) -> Tensor:
        """Row of every slot among the tokens of a batch, int64 (batch, num_windows, area)."""
        item = torch.arange(batch, device=device)[:, None, None]
        return self.token_index(device) + item * self.grid.num_tokens

    def _slot_positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column of every slot, each int64 (num_windows, window_area)."""
        window = torch.arange(self.count, device=device)[:, None]
        slot = torch.arange(self.area, device=device)[None, :]
        row = window // self.columns * self.height + slot // self.width - self.top
        column = window % self.columns * self.width + slot % self.width - self.left
        return row, column


def around(reach: int) -> tuple[tuple[int, int], ...]:
    """Rows down and columns right to each window within ``reach``, in the order of neighbours."""
    span = range(-reach, reach + 1)
    return ((0, 0), *((down, right) for down in span for right in span if down or right))


@table
def beside(
    rows: int, columns: int, offsets: tuple[tuple[int, int], ...], device: torch.device
) -> Tensor:
    """What stands at each offset from each cell of rows x columns, in raster order.

    Args:
        rows: Of the cells.
        columns: Of the cells.
        offsets: Rows down and columns right.
        device: Of the result.

    Returns:
        Cell index, int64 (rows x columns, number of offsets); the cell itself where the offset
        leads beyond the border.
    """
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    own = row * columns + column
    found: list[Tensor] = []
    for down, right in offsets:
        inside = (row + down >= 0) & (row + down < rows)
        inside &= (column + right >= 0) & (column + right < columns)
        found.append(torch.where(inside, own + down * columns + right, own))
    return torch.stack(found, dim=1)


def check_window(window: object) -> tuple[int, int]:
    """Return ``window`` as (height, width), or raise :class:`ConfigError` with what is allowed."""
    sides = tuple(cast("Sequence[object]", window)) if isinstance(window, (tuple, list)) else ()
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ConfigError(
            f"window is (height, width) in tokens, two whole numbers of at least 1; {window!r} was "
            "given. Use for example window=(2, 2)."
        )
    return cast("tuple[int, int]", sides)
