"""Draw shapes over a picture, as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from retom.viz.shapes import Box, Line

if TYPE_CHECKING:
    from retom.viz.shapes import Drawing

PIXELS_A_TOKEN = 12
"""At least so many, or lines and dots would cover what they mark."""


def to_picture(drawing: Drawing, picture: Image.Image | None = None) -> Image.Image:
    """Draw shapes over the picture that was drawn, enlarged if need be.

    Args:
        drawing: From :func:`retom.viz.drawn`.
        picture: Stretched to the grid; a plain grey ground if not given.

    Returns:
        RGB, a whole number of pixels a token, the same both ways.
    """
    scale = PIXELS_A_TOKEN
    if picture is not None:
        scale = max(scale, round(picture.width / drawing.width))
    size = (drawing.width * scale, drawing.height * scale)
    ground = Image.new("RGBA", size, "#8A8F98")
    if picture is not None:
        ground = picture.convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for shape in drawing.shapes:
        if isinstance(shape, Box):
            right, below = shape.x + shape.width, shape.y + shape.height
            corners = (shape.x * scale, shape.y * scale, right * scale - 1, below * scale - 1)
            pen.rectangle(corners, shape.fill)
        elif isinstance(shape, Line):
            ends = (shape.x1 * scale, shape.y1 * scale, shape.x2 * scale, shape.y2 * scale)
            pen.line(ends, shape.colour, max(1, round(shape.weight * scale)))
        else:
            left, top = shape.x - shape.radius, shape.y - shape.radius
            right, below = shape.x + shape.radius, shape.y + shape.radius
            pen.ellipse([side * scale for side in (left, top, right, below)], shape.fill)
    return Image.alpha_composite(ground, layer).convert("RGB")
