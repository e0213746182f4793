"""Draw shapes over a picture, as SVG."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from retom.viz.shapes import Box, Line

if TYPE_CHECKING:
    from PIL import Image

    from retom.viz.shapes import Colour, Dot, Drawing

_PIXELS_A_TOKEN = 16
_LEGEND_LINE = 1.6
"""Height of a line of the legend in tokens of a 32-token grid."""


def to_svg(drawing: Drawing, picture: Image.Image | None = None) -> str:
    """Draw shapes over the picture that was drawn; its pixels are part of the file.

    Args:
        drawing: From :func:`retom.viz.drawn`.
        picture: Stretched to the grid; a plain grey ground if not given.

    Returns:
        A whole SVG document, with the legend under the grid.
    """
    width, height = drawing.width, drawing.height
    line = _LEGEND_LINE * max(width, height) / 32
    whole = height + line * (len(drawing.legend) + 1.5)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole:g}" '
        f'width="{width * _PIXELS_A_TOKEN}" height="{whole * _PIXELS_A_TOKEN:.0f}" '
        f'font-family="sans-serif" role="img" aria-label={quoteattr(drawing.title)}>',
        f"<title>{escape(drawing.title)}</title>",
        f'<rect width="{width}" height="{whole:g}" fill="#F7F7F5"/>',
        _ground(picture, width, height),
        *(_markup(shape) for shape in drawing.shapes),
        _text(drawing.title, 0.2, height + line, line * 0.7),
    ]
    for place, (label, colour) in enumerate(drawing.legend):
        y = height + line * (place + 1.5)
        paint = _paint("fill", colour)
        parts.append(
            f'<rect x="0.2" y="{y:g}" width="{line * 0.7:g}" height="{line * 0.7:g}" {paint} '
            'stroke="#6B7280" stroke-width="0.04"/>'
        )
        parts.append(_text(label, 0.4 + line, y + line * 0.6, line * 0.65))
    return "\n".join([*parts, "</svg>\n"])


def _ground(picture: Image.Image | None, width: int, height: int) -> str:
    if picture is None:
        return f'<rect width="{width}" height="{height}" fill="#8A8F98"/>'
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<image width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _markup(shape: Box | Line | Dot) -> str:
    if isinstance(shape, Box):
        place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" height="{shape.height:g}"'
        return f"<rect {place} {_paint('fill', shape.fill)}/>"
    if isinstance(shape, Line):
        ends = f'x1="{shape.x1:g}" y1="{shape.y1:g}" x2="{shape.x2:g}" y2="{shape.y2:g}"'
        return f'<line {ends} {_paint("stroke", shape.colour)} stroke-width="{shape.weight:g}"/>'
    place = f'cx="{shape.x:g}" cy="{shape.y:g}" r="{shape.radius:g}"'
    return f"<circle {place} {_paint('fill', shape.fill)}/>"


def _text(words: str, x: float, y: float, size: float) -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="#1F2328">{escape(words)}</text>'


def _paint(kind: str, colour: Colour) -> str:
    red, green, blue, opacity = colour
    paint = f'{kind}="rgb({red},{green},{blue})"'
    return paint if opacity == 255 else f'{paint} {kind}-opacity="{opacity / 255:.3g}"'
