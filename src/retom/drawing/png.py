"""Save pictures as PNG: whole or not at all, with what they were drawn from inside."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from retom.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from PIL.Image import Image

RECORD_KEY = "retom"


def check_output(path: Path) -> None:
    """Refuse a path that :func:`save_png` could not write, before the work of drawing is done.

    It is tried out: a file is made beside ``path`` and deleted. Permissions alone do not tell.

    Raises:
        OutputError: The path is not one of a PNG file, its folder is missing, or it cannot be
            written.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"Pictures are saved as PNG; {path} does not end in .png.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name the file to write.")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path} exists and is write-protected.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent} to write {path.name} to.")
    with _sibling(path):
        pass


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
    with _sibling(path) as file:
        image.save(file, "PNG", pnginfo=texts)
        file.flush()
        os.replace(file.name, path.resolve())


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


@contextmanager
def _sibling(path: Path) -> Generator[BinaryIO]:
    """A new file in the folder of ``path``, gone at the end unless it was moved to its place."""
    target = path.resolve()
    temporary = target.with_name(f".{os.getpid()}.retom-unfinished")
    try:
        # Opened, not made by tempfile: the picture gets the permissions of any new file.
        with temporary.open("wb") as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}.") from error
    finally:
        temporary.unlink(missing_ok=True)
