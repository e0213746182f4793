"""Several pictures on one page: all maps of a layer, the steps of a picture, methods by seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from retom.drawing.sheet import PAPER, Lines, Panel, sheet
from retom.errors import ConfigError
from retom.viz.maps import drawn
from retom.viz.raster import to_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.viz.maps import Map
    from retom.viz.recording import Look


def page(look: Look, picture: Image.Image, *, title: str) -> Image.Image:
    """The picture, and everything recorded of one layer and call, side by side.

    Args:
        look: From :meth:`retom.viz.Recording.look`.
        picture: What was drawn meanwhile.
        title: First line of the page.
    """
    shows: list[Map] = ["groups", "similarity", "error"]
    if look.coherence is not None:
        shows.append("coherence")
    maps: list[Panel] = []
    for show in shows:
        drawing = drawn(look, show)
        words = " · ".join(label for label, _ in drawing.legend)
        detail = words if show == "groups" else f"dark to bright: {words}"
        maps.append(Panel(to_picture(drawing, picture), show, detail))
    plain = picture.convert("RGB").resize(maps[0].image.size, Image.Resampling.LANCZOS)
    panels = [Panel(plain, "picture", f"{picture.height}x{picture.width} px"), *maps]
    caption = (
        f"{look.layer} · call {look.call} · {look.grid} grid · "
        f"{look.grid.num_tokens} tokens to {look.num_kept}"
    )
    return sheet(panels, title=title, caption=caption)


def animation(
    looks: Sequence[Look], picture: Image.Image, show: Map = "groups"
) -> list[Image.Image]:
    """One frame for each call: how what merges changes while a picture is drawn.

    Args:
        looks: Of one layer, from :meth:`retom.viz.Recording.of_layer`.
        picture: The finished picture, under every frame.
        show: See :func:`retom.viz.drawn`.

    Returns:
        RGB frames of one size, with the number of the call underneath.

    Raises:
        ConfigError: There is nothing to show.
    """
    if not looks:
        raise ConfigError("An animation needs at least one call that merged; none was given.")
    frames: list[Image.Image] = []
    for look in looks:
        drawing = drawn(look, show)
        frame = to_picture(drawing, picture)
        words = Lines(frame.width // 24, frame.width - 16).add(drawing.title, large=False)
        whole = Image.new("RGB", (frame.width, frame.height + words.height + 16), PAPER)
        whole.paste(frame, (0, 0))
        words.write(ImageDraw.Draw(whole), 8, frame.height + 8)
        frames.append(whole)
    tallest = max(frame.height for frame in frames)
    return [_padded(frame, tallest) for frame in frames]


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture of a grid.

    Attributes:
        image: What was drawn.
        detail: Written underneath, such as how far it is from the un-merged picture.
    """

    image: Image.Image
    detail: str = ""


def grid_of(
    cells: Sequence[Sequence[Cell]], *, columns: Sequence[str], rows: Sequence[str], title: str
) -> Image.Image:
    """Lay out pictures by two properties, each with a label: methods across, seeds down.

    Args:
        cells: Row by row; all pictures of one size.
        columns: A label for each column.
        rows: A label for each row.
        title: First line of the page.

    Raises:
        ConfigError: The labels do not fit the cells.
    """
    if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
        shape = f"{len(rows)} rows of {len(columns)}"
        given = ", ".join(str(len(row)) for row in cells)
        raise ConfigError(f"Labels for {shape} pictures were given with rows of {given} pictures.")
    strips = [
        sheet(
            [
                Panel(cell.image, column, cell.detail)
                for cell, column in zip(line, columns, strict=True)
            ],
            title=title if place == 0 else "",
            caption=row,
        )
        for place, (line, row) in enumerate(zip(cells, rows, strict=True))
    ]
    whole = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), PAPER)
    top = 0
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    return whole


def _padded(frame: Image.Image, height: int) -> Image.Image:
    if frame.height == height:
        return frame
    whole = Image.new("RGB", (frame.width, height), PAPER)
    whole.paste(frame, (0, 0))
    return whole
