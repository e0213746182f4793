"""What a drawing of merging consists of, in units of tokens and before any pixel or markup."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, each 0 to 255."""


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle: upper left corner, width and height in tokens."""

    x: float
    y: float
    width: float
    height: float
    fill: Colour


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line between two points in tokens; ``weight`` is its width in tokens."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: Colour
    weight: float


@dataclass(frozen=True, slots=True)
class Dot:
    """A filled circle: centre and radius in tokens."""

    x: float
    y: float
    radius: float
    fill: Colour


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes over a grid of tokens, later ones on top.

    Attributes:
        height: Of the grid in tokens.
        width: Of the grid in tokens.
        shapes: What to draw.
        title: What it shows, in a few words.
        legend: What colours mean: label and colour.
    """

    height: int
    width: int
    shapes: tuple[Box | Line | Dot, ...]
    title: str
    legend: tuple[tuple[str, Colour], ...]
