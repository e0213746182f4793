"""How large local windows are: as asked for, or as large as the ratio needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from retom.checks import check_ratio
from retom.errors import ConfigError
from retom.grid import check_window

if TYPE_CHECKING:
    from retom.methods import Method

WindowSize = tuple[int, int] | Literal["auto"]

FEWEST_KEPT = 1.5
"""Tokens that a window keeps on average, at least, of those that the ratio chooses."""


def window_for(ratio: float) -> tuple[int, int]:
    """(height, width) of the smallest windows that a ratio leaves a choice in.

    A window has to keep one token, so that near ratio 1 - 1/m windows of m tokens collapse whole,
    be their tokens alike or not. Measured on the bundled model (``benchmarks/results``), windows
    of 2x2 are best up to a ratio of about 0.6, and then twice as many tokens each time that a
    window would keep fewer than 1.5 on average.

    Args:
        ratio: Fraction of the tokens to remove, 0 <= ratio < 1.

    Raises:
        ConfigError: The ratio is out of its range.

    Example:
        >>> [window_for(ratio) for ratio in (0.3, 0.5, 0.7, 0.9)]
        [(2, 2), (2, 2), (4, 2), (4, 4)]
    """
    check_ratio(ratio)
    height, width = 2, 2
    # Rounded like the number of tokens to remove: 1 - 0.625 must not miss by its last bit.
    while round(height * width * (1 - ratio), 9) < FEWEST_KEPT:
        height, width = (height, 2 * width) if height > width else (2 * height, width)
    return height, width


def window_of(method: Method) -> tuple[int, int] | None:
    """(height, width) in tokens of a method's windows as it uses them; None where it has none."""
    window: WindowSize | None = getattr(method, "window", None)
    return None if window is None else window_at(window, method.ratio)


def window_at(window: WindowSize, ratio: float) -> tuple[int, int]:
    """(height, width) that a size asked for means at a ratio."""
    return window_for(ratio) if window == "auto" else window


def check_window_size(window: object) -> WindowSize:
    """Return ``window`` as (height, width) or ``"auto"``.

    Raises:
        ConfigError: It is neither; the message says what is allowed.
    """
    if window == "auto":
        return "auto"
    try:
        return check_window(window)
    except ConfigError as error:
        message = f"{str(error).rstrip('.')}, or window='auto', which follows the ratio."
        raise ConfigError(message) from None
