"""From what was recorded to shapes: groups, windows, similarity, error, coherence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import torch

from retom.checks import check_choice
from retom.errors import ConfigError
from retom.viz.shapes import Box, Colour, Dot, Drawing, Line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from retom.viz.recording import Look

Map = Literal["groups", "windows", "similarity", "error", "coherence"]
MAPS: tuple[str, ...] = get_args(Map)

# Seven steps of the colour map "viridis" (N. Smith, S. van der Walt; CC0).
_VIRIDIS = ("440154", "443983", "31688E", "21918C", "35B779", "90D743", "FDE725")
_WINDOW: Colour = (255, 255, 255, 110)
_EDGE: Colour = (20, 20, 24, 255)
_REPRESENTATIVE: Colour = (255, 64, 96, 255)
_LARGEST_GROUP = 5
"""Groups of this size and more share one colour."""


def drawn(look: Look, show: Map = "groups") -> Drawing:
    """Draw what a layer merged.

    Args:
        look: From :meth:`retom.viz.Recording.look`.
        show: ``groups``: tokens that became one, tinted by how many they are, with a line around
            each group and a dot on the token that stands for it. ``windows``: the method's windows
            and those dots. ``similarity``: of each token to the one that it joined. ``error``: what
            merging alone loses of each token. ``coherence``: how alike the tokens of each window
            are. Colours of the last three run from dark for the worst to bright for the best of
            this look; the legend says which values.

    Raises:
        ConfigError: ``show`` is none of these, or the method has no windows to show.
    """
    check_choice("show", show, MAPS)
    shapes: list[Box | Line | Dot]
    if show == "groups":
        shapes = [*_tints(look), *_borders(look), *_representatives(look)]
        sizes = sorted({min(int(size), _LARGEST_GROUP) for size in _numbers(look.group_size)} - {1})
        more = ["alone, as it is"] + [_size_label(size) for size in sizes]
        colours = [(255, 255, 255, 0)] + [_tint(size) for size in sizes]
        legend = (*zip(more, colours, strict=True), ("stands for its group", _REPRESENTATIVE))
    elif show == "windows":
        shapes = [*_window_lines(look), *_representatives(look)]
        legend = (("window", _WINDOW), ("stands for others", _REPRESENTATIVE))
    else:
        values, best = _values(look, show)
        shapes, legend = _heat(look, values, best)
    kept, tokens = look.num_kept, look.grid.num_tokens
    title = f"{show} · {look.layer} · call {look.call} · {tokens} tokens to {kept}"
    return Drawing(look.grid.height, look.grid.width, tuple(shapes), title, tuple(legend))


def _values(look: Look, show: str) -> tuple[Tensor, float]:
    """A value for each token, and the best it can be."""
    if show == "similarity":
        return look.similarity, 1.0
    if show == "error":
        return look.error, 0.0
    windows = look.windows
    if windows is None or look.coherence is None:
        raise ConfigError(
            "This method has no windows, so there is no coherence of windows to show; show groups, "
            "similarity or error."
        )
    spread = look.coherence[None, :, None].expand(1, -1, windows.area)
    return windows.token_order(spread)[0], 1.0


def _heat(
    look: Look, values: Tensor, best: float
) -> tuple[list[Box | Line | Dot], tuple[tuple[str, Colour], ...]]:
    worst = values.min().item() if best == 1.0 else values.max().item()
    span = best - worst
    places = torch.ones_like(values) if span == 0 else (values - worst) / span
    width = look.grid.width
    boxes: list[Box | Line | Dot] = [
        Box(token % width, token // width, 1, 1, _viridis(place))
        for token, place in enumerate(_numbers(places))
    ]
    steps = (0.0, 0.5, 1.0)
    legend = tuple((f"{worst + step * span:.3g}", _viridis(step)) for step in steps)
    return boxes, legend


def _tints(look: Look) -> Iterator[Box]:
    width = look.grid.width
    for token, size in enumerate(_numbers(look.group_size)):
        if size > 1:
            yield Box(token % width, token // width, 1, 1, _tint(int(size)))


def _borders(look: Look) -> Iterator[Line]:
    """Lines around groups: between neighbours that became different tokens, unless both alone."""
    shape = (look.grid.height, look.grid.width)
    field, grouped = look.joined.reshape(shape), (look.group_size > 1).reshape(shape)
    beside = (field[:, 1:] != field[:, :-1]) & (grouped[:, 1:] | grouped[:, :-1])
    for row, column in _places(beside):
        yield Line(column + 1, row, column + 1, row + 1, _EDGE, 0.08)
    below = (field[1:] != field[:-1]) & (grouped[1:] | grouped[:-1])
    for row, column in _places(below):
        yield Line(column, row + 1, column + 1, row + 1, _EDGE, 0.08)


def _representatives(look: Look) -> Iterator[Dot]:
    token = torch.arange(look.grid.num_tokens)
    stands = (look.joined == token) & (look.group_size > 1)
    for row, column in _places(stands.reshape(look.grid.height, look.grid.width)):
        yield Dot(column + 0.5, row + 0.5, 0.2, _REPRESENTATIVE)


def _window_lines(look: Look) -> Iterator[Line]:
    if look.window is None:
        raise ConfigError("This method has no windows to show; show groups, similarity or error.")
    height, width = look.grid.height, look.grid.width
    for y in range(0, height + 1, look.window[0]):
        yield Line(0, y, width, y, _WINDOW, 0.08)
    for x in range(0, width + 1, look.window[1]):
        yield Line(x, 0, x, height, _WINDOW, 0.08)


def _numbers(values: Tensor) -> list[float]:
    return cast("list[float]", values.tolist())


def _places(field: Tensor) -> list[tuple[int, int]]:
    """Row and column of every True in (height, width)."""
    return cast("list[tuple[int, int]]", field.nonzero().tolist())


def _size_label(size: int) -> str:
    return f"{size} became one" if size < _LARGEST_GROUP else f"{size} or more became one"


def _tint(size: int) -> Colour:
    place = (min(size, _LARGEST_GROUP) - 1) / (_LARGEST_GROUP - 1)
    red, green, blue, _ = _viridis(place)
    return red, green, blue, 120


def _viridis(place: float) -> Colour:
    """The colour at 0 (dark) to 1 (bright)."""
    stops = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _VIRIDIS])
    at = np.linspace(0, 1, len(stops))
    red, green, blue = (round(float(np.interp(place, at, stops[:, c]))) for c in range(3))
    return red, green, blue, 255
