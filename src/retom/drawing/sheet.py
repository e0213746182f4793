"""Draw the comparison sheet: un-merged, merged and their difference side by side."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN = 10
"""How much differences are amplified: a tenth of the value range is the brightest colour."""

# Nine steps of the colour map "magma" (S. van der Walt, N. Smith; CC0): lightness grows evenly.
_MAGMA = ("000004", "1D1147", "51127C", "822681", "B63679", "E65164", "FB8861", "FEC287", "FCFDBF")

PAPER = "#F7F7F5"
_INK = "#1F2328"
_GREY = "#6B7280"
_SMALLEST_PANEL = 384

# Pillow's own font has the letters of English alone; these are usual on Linux, Windows and macOS.
_WIDER_FONTS = ("DejaVuSans.ttf", "arial.ttf", "Arial Unicode.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        image: RGB, all panels of a sheet of one size.
        label: Written underneath.
        detail: Written under the label, in grey.
    """

    image: Image.Image
    label: str
    detail: str


def difference_map(picture: Image.Image, reference: Image.Image, gain: int = GAIN) -> Image.Image:
    """Absolute difference, mean over the channels, amplified: from black to pale yellow."""
    a, b = (np.asarray(image.convert("RGB"), dtype=np.float32) for image in (picture, reference))
    return _coloured(np.abs(a - b).mean(axis=2) / 255 * gain)


def sheet(panels: list[Panel], *, title: str, caption: str) -> Image.Image:
    """Lay panels out in a row under a title and a caption; small pictures are enlarged.

    Args:
        panels: From left to right.
        title: First line, wrapped where it is too long.
        caption: Grey lines under the title, wrapped as well.
    """
    small = panels[0].image
    scale = max(1, -(-_SMALLEST_PANEL // min(small.size)))
    width, height = small.width * scale, small.height * scale
    unit = max(16, width // 24)  # about the height of a line; all spaces are shares of it
    margin, gap = round(1.5 * unit), round(0.75 * unit)
    total = len(panels) * width + (len(panels) - 1) * gap + 2 * margin
    head = Lines(unit, total - 2 * margin).add(title, large=True).add(caption, large=False)
    feet = [
        Lines(unit, width).add(panel.label, large=True).add(panel.detail, large=False)
        for panel in panels
    ]
    top = margin + head.height + gap
    below = top + height + gap
    page = Image.new("RGB", (total, below + max(foot.height for foot in feet) + margin), PAPER)
    pen = ImageDraw.Draw(page)
    head.write(pen, margin, margin)
    for place, (panel, foot) in enumerate(zip(panels, feet, strict=True)):
        x = margin + place * (width + gap)
        page.paste(panel.image.resize((width, height), Image.Resampling.LANCZOS), (x, top))
        foot.write(pen, x, below)
    return page


class Lines:
    """Wrapped lines of text, placed under each other.

    Args:
        unit: Size that the two sizes of text derive from, in px.
        width: Of the column, in px.
    """

    def __init__(self, unit: int, width: int) -> None:
        self.height = 0
        self._unit = unit
        self._width = width
        self._placed: list[tuple[int, str, Font, str]] = []

    def add(self, text: str, *, large: bool) -> Lines:
        """Append a paragraph, dark and large or grey and small."""
        size = self._unit * (1.15 if large else 0.85)
        font = _font(text, size)
        for words in _wrap(text, font, self._width):
            self._placed.append((self.height, words, font, _INK if large else _GREY))
            self.height += round(1.35 * size)
        return self

    def write(self, pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
        """Draw the lines with their upper left corner at (x, y)."""
        for offset, words, font, colour in self._placed:
            pen.text((x, y + offset), words, colour, font)


def _font(text: str, size: float) -> Font:
    """Pillow's own font where it has the letters, else one of the system, if there is one."""
    for name in () if text.replace("·", "").isascii() else _WIDER_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _coloured(values: NDArray[np.float32]) -> Image.Image:
    """Values (H, W), 0 to 1 and clipped there, as an RGB picture."""
    stops = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _MAGMA])
    place = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, place, stops[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=2).round().astype(np.uint8))


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Break text into lines of at most ``width`` px, inside a word only where the word is wider."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            lengths = range(1, len(word) + 1)
            fits = max(1, bisect_right(lengths, width, key=lambda n: font.getlength(word[:n])))
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines
