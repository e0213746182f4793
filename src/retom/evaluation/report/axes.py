"""Axes with round numbers, and the frame that charts are drawn in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values with round ticks.

    Attributes:
        low: Left or lower end.
        high: The other end, above ``low``.
        ticks: Round values between them.
        title: Of the axis.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    title: str

    @staticmethod
    def around(values: Sequence[float], title: str) -> Axis:
        """The axis that holds these values with some room.

        Example:
            >>> Axis.around([1.02, 1.31], "x").ticks
            (1.1, 1.2, 1.3)
        """
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
        low, high = low - room, high + room
        step = _round_step((high - low) / (_MOST_TICKS - 1))
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        ticks = tuple(round(i * step, 10) for i in range(first, last + 1))
        return Axis(low, high, ticks, title)

    def text(self, value: float) -> str:
        """A tick as text, with as many digits as the ticks need."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = max(0, math.ceil(-math.log10(step) - 1e-9))
        return f"{value:.{digits}f}"


@dataclass(frozen=True, slots=True)
class Frame:
    """Where values lie in a chart of 600 x 400 units."""

    WIDTH: ClassVar[int] = 600
    HEIGHT: ClassVar[int] = 400
    LEFT: ClassVar[int] = 64
    RIGHT: ClassVar[int] = 20
    TOP: ClassVar[int] = 20
    BOTTOM: ClassVar[int] = 52

    x: Axis
    y: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Units from the left and from the top."""
        across = (x - self.x.low) / (self.x.high - self.x.low)
        up = (y - self.y.low) / (self.y.high - self.y.low)
        inner_width = self.WIDTH - self.LEFT - self.RIGHT
        inner_height = self.HEIGHT - self.TOP - self.BOTTOM
        return self.LEFT + across * inner_width, self.TOP + (1 - up) * inner_height

    def points(self, values: Iterable[tuple[float, float]]) -> str:
        """Values as the points of a polyline."""
        return " ".join("{:.1f},{:.1f}".format(*self.place(*value)) for value in values)

    def vertical(self, x: float, text: str) -> str:
        """A dashed line at a value, with a word on it; nothing outside the frame."""
        if not self.x.low <= x <= self.x.high:
            return ""
        left, _ = self.place(x, self.y.low)
        return (
            f'<line class="mark" x1="{left:.1f}" x2="{left:.1f}" y1="{self.TOP}" '
            f'y2="{self.HEIGHT - self.BOTTOM}"/>'
            f'<text class="tick" x="{left + 5:.1f}" y="{self.TOP + 11}">{escape(text)}</text>'
        )

    def svg(self, parts: Iterable[str], title: str) -> str:
        """The chart: axes, grid and what is drawn on them."""
        bottom, right = self.HEIGHT - self.BOTTOM, self.WIDTH - self.RIGHT
        lines: list[str] = []
        for tick in self.x.ticks:
            left, _ = self.place(tick, self.y.low)
            lines.append(
                f'<line class="grid" x1="{left:.1f}" x2="{left:.1f}" y1="{self.TOP}" '
                f'y2="{bottom}"/><text class="tick middle" x="{left:.1f}" y="{bottom + 18}">'
                f"{self.x.text(tick)}</text>"
            )
        for tick in self.y.ticks:
            _, top = self.place(self.x.low, tick)
            lines.append(
                f'<line class="grid" x1="{self.LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}"/>'
                f'<text class="tick end" x="{self.LEFT - 8}" y="{top + 4:.1f}">'
                f"{self.y.text(tick)}</text>"
            )
        middle = (self.TOP + bottom) / 2
        lines.append(
            f'<text class="axis middle" x="{(self.LEFT + right) / 2}" y="{self.HEIGHT - 10}">'
            f"{escape(self.x.title)}</text>"
            f'<text class="axis side middle" transform="rotate(-90 16 {middle})" x="16" '
            f'y="{middle}">'
            f"{escape(self.y.title)}</text>"
        )
        return (
            f'<svg viewBox="0 0 {self.WIDTH} {self.HEIGHT}" role="img" '
            f'aria-label="{escape(title)}">{"".join(lines)}{"".join(parts)}</svg>'
        )


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
