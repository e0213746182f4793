"""Write files whole or not at all, and find out before the work whether they can be written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from retom.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path


def check_output(path: Path, suffixes: Sequence[str] = (".png",)) -> None:
    """Refuse a path that could not be written, before the work of drawing is done.

    It is tried out: a file is made beside ``path`` and deleted. Permissions alone do not tell.

    Args:
        path: Of the file to be written.
        suffixes: How it may end, in small letters.

    Raises:
        OutputError: The path ends otherwise, its folder is missing, or it cannot be
            written.
    """
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path} does not end in {' or '.join(suffixes)}; name such a file.")
    try:
        _check_place(path)
    except OSError as error:  # such as a name that is too long to ask for
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    with unfinished(path):
        pass


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """A file to write inside a ``with`` block; ``path`` changes at its end and at once.

    Raises:
        OutputError: It cannot be written. A file that was there is untouched.
    """
    with unfinished(path) as file:
        yield file
        file.flush()
        os.replace(file.name, path.resolve())


@contextmanager
def unfinished(path: Path) -> Generator[BinaryIO]:
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


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name the file to write.")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path} exists and is write-protected.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent} to write {path.name} to.")
