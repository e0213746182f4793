"""Save pictures as PNG with what they were drawn from inside, and read it again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from retom.drawing.files import whole_file
from retom.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL.Image import Image

RECORD_KEY = "retom"


def save_png(image: Image, path: Path, record: Mapping[str, Any]) -> None:
    """Write a picture, its record inside; ``path`` changes at the very end and at once.

    The record is stored as JSON under ``retom``, its prompt also as ``Description``, which picture
    viewers show.

    Args:
        image: What to write.
        path: Where. A file that is there is replaced.
        record: Plain data for JSON.

    Raises:
        OutputError: It cannot be written. A file that was there is untouched.
    """
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_itxt("Software", f"retom {record['environment']['retom']}")
    texts.add_itxt("Description", str(record["prompt"]))
    texts.add_itxt(RECORD_KEY, json.dumps(record, ensure_ascii=False, allow_nan=False))
    with whole_file(path) as file:
        image.save(file, "PNG", pnginfo=texts)


def read_record(path: str | Path) -> dict[str, Any]:
    """What :func:`save_png` stored in a picture.

    Raises:
        OutputError: ``path`` is not a PNG file with a record.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = image.info[RECORD_KEY]
    except (OSError, UnidentifiedImageError, KeyError) as error:
        raise OutputError(f"{path} is not a picture that retom saved.") from error
    return cast("dict[str, Any]", json.loads(text))
