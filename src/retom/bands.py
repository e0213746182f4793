"""A partition cut into bands of window rows, each small enough for a processor's cache.

A plan reads each token several times. Done for the whole grid at once on a CPU, every time is a
trip to memory, and the temporary tensors are fresh pages to fault in; done band by band it all
stays in the cache. What is computed for a token is the same. An accelerator gets one band: there
each launch counts, and a compiler fuses them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retom.eager import runs_on_cpu
from retom.grid import Grid, Windows

if TYPE_CHECKING:
    from torch import Tensor

BAND_BYTES = 6 * 2**20
"""The most that the tokens of a band take in float32. Smaller ones fit smaller caches, but each
costs half a millisecond of small operations, and more where something else runs. A plan holds
three, and an allocator such as glibc's gives pieces above 32 MiB back to the system every time."""


@dataclass(frozen=True, slots=True)
class Band:
    """Whole rows of windows, and the tokens in them.

    Args:
        partition: The windows of the whole grid.
        start: The first row of windows.
        stop: The row of windows behind the last.
    """

    partition: Windows
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Rows of windows."""
        return self.stop - self.start

    @property
    def num_windows(self) -> int:
        """How many windows it has."""
        return self.rows * self.partition.columns

    @property
    def places(self) -> slice:
        """Where its windows stand among those of the partition."""
        columns = self.partition.columns
        return slice(self.start * columns, self.stop * columns)

    @property
    def tokens(self) -> slice:
        """Where its tokens stand in raster order."""
        width = self.partition.grid.width
        return slice(self._row(self.start) * width, self._row(self.stop) * width)

    @property
    def windows(self) -> Windows:
        """The partition of its own tokens alone."""
        rows = self._row(self.stop) - self._row(self.start)
        top = self.partition.top if self.start == 0 else 0
        return replace(self.partition, grid=Grid(rows, self.partition.grid.width), top=top)

    def _row(self, window_row: int) -> int:
        """The row of tokens at which a row of windows begins."""
        row = window_row * self.partition.height - self.partition.top
        return min(max(row, 0), self.partition.grid.height)


def bands(x: Tensor, windows: Windows, reach: int) -> list[Band]:
    """Cut a partition for tokens ``x`` (B, N, C).

    Each band but the last has at least ``reach`` rows of windows, so that a window within reach is
    in the band itself or in one beside it.
    """
    if not runs_on_cpu(x.device):
        return [Band(windows, 0, windows.rows)]
    row_bytes = x.shape[0] * windows.columns * windows.area * x.shape[2] * 4
    count = -(-windows.rows * row_bytes // BAND_BYTES)
    rows = max(1, reach, -(-windows.rows // count))
    starts = range(0, windows.rows, rows)
    return [Band(windows, start, min(start + rows, windows.rows)) for start in starts]
