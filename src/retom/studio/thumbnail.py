"""Small copies of pictures, as text that a page shows without another request."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from typing import TypeGuard

SIDE = 160
"""Of a thumbnail in pixels, at most."""
LONGEST = 40_000
"""Characters of one at most."""

_FORM = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]+={0,2}", re.ASCII)


def data_uri(image: Image.Image, side: int = SIDE) -> str:
    """The picture, shrunk to at most ``side`` pixels, as a ``data:`` address."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def is_data_uri(value: object) -> TypeGuard[str]:
    """Whether a value has the form of what :func:`data_uri` makes."""
    return isinstance(value, str) and len(value) <= LONGEST and bool(_FORM.fullmatch(value))
