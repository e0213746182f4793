"""How large local windows are: as asked for, or as large as the ratio needs them on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from retom.allocation import num_asked
from retom.errors import ConfigError
from retom.grid import Windows, check_window

if TYPE_CHECKING:
    from retom.grid import Grid
    from retom.methods import Method

WindowSize = tuple[int, int] | Literal["auto"]

FEWEST_KEPT = 1.5
"""Tokens that a window of ``auto`` keeps on average, at least."""


def window_for(ratio: float, grid: Grid, *, alternate: bool = False) -> tuple[int, int]:
    """(height, width) of the smallest windows in which a ratio leaves a choice.

    A window has to keep one token, so that near ratio 1 - 1/m windows of m tokens collapse whole,
    be their tokens alike or not. Measured on retom-emoji-128
    (``benchmarks/results/high_ratios.md``) windows should keep 1.5 tokens on average, or more. From
    2x2 they double in height, then in width, until they do, or are the whole grid.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.
        grid: Height and width of the tokens.
        alternate: Whether the windows take turns with windows shifted by half of one.

    Example:
        >>> from retom.grid import Grid
        >>> [window_for(ratio, Grid(64, 64)) for ratio in (0.3, 0.5, 0.7, 0.9)]
        [(2, 2), (2, 2), (4, 2), (4, 4)]
        >>> window_for(0.7, Grid(1, 64))
        (2, 8)
    """
    kept = grid.num_tokens - num_asked(ratio, grid)
    height, width = 2, 2
    while _count(grid, (height, width), alternate=alternate) * FEWEST_KEPT > kept:
        # Twice the grid is one window however it is shifted.
        higher, wider = height < 2 * grid.height, width < 2 * grid.width
        if higher and (height <= width or not wider):
            height *= 2
        elif wider:
            width *= 2
        else:
            break
    return height, width


def window_of(method: Method, grid: Grid) -> tuple[int, int] | None:
    """(height, width) in tokens of a method's windows on a grid; None where it has none."""
    window: WindowSize | None = getattr(method, "window", None)
    if window == "auto":
        return window_for(method.ratio, grid, alternate=getattr(method, "alternate", False))
    return window


def check_window_size(window: object) -> WindowSize:
    """Return ``window`` as (height, width) or ``"auto"``.

    Raises:
        ConfigError: It is neither; the message says what is allowed.
    """
    if isinstance(window, str) and window == "auto":
        return "auto"
    try:
        return check_window(window)
    except ConfigError as error:
        message = f"{str(error).rstrip('.')}, or window='auto', which follows the ratio."
        raise ConfigError(message) from None


def _count(grid: Grid, window: tuple[int, int], *, alternate: bool) -> int:
    windows = Windows.over(grid, window)
    return max(windows.count, windows.shifted().count) if alternate else windows.count
