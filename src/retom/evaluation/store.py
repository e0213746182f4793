"""A folder of results that survives a kill: every piece of work is there as a whole or not at all.

A piece is named by a digest of everything it depends on, so that a changed setting makes a new
piece and an unchanged one is never measured twice. Pieces are written beside their place, flushed
to the disk and then renamed. Below the folder:

- ``records/KEY.json``: numbers, what they depend on, and who measured them;
- ``tensors/KEY.safetensors``: un-merged latents and outputs, features;
- ``pictures/KEY/0000.png ...``: what was drawn, lossless.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from retom.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from torch import Tensor

Record = dict[str, Any]
_FOLDERS = ("records", "tensors", "pictures")


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """The name of a piece of work: its kind and a digest of what it depends on.

    Args:
        kind: A word.
        content: Plain data for JSON; the order of its keys does not matter.

    Example:
        >>> key_of("x", {"a": 1, "b": [2]}) == key_of("x", {"b": [2], "a": 1})
        True
        >>> key_of("x", {"a": 1}) == key_of("x", {"a": 2})
        False
    """
    text = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


class Store:
    """Results below one folder, for one process at a time, inside a ``with`` block.

    Args:
        folder: Made if absent.
        source: Stands in every record: versions, commit, hardware, command.

    Raises:
        OutputError: The folder cannot be written, or another process is at work in it.
    """

    def __init__(self, folder: Path | str, source: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.source = dict(source or {})
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            for name in _FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{self.folder} cannot hold results: {reason}.") from error
        if not _locked(self._lock):
            os.close(self._lock)
            self._lock = None
            raise OutputError(
                f"Another process is at work in {self.folder}; wait for it, or name another folder."
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)  # and unlocks; so does the end of the process, however it ends
            self._lock = None

    def has_record(self, key: str) -> bool:
        """Whether these numbers are there."""
        return self._record(key).is_file()

    def record(self, key: str) -> Record:
        """Numbers that are there."""
        return json.loads(self._record(key).read_text(encoding="utf-8"))

    def add_record(self, key: str, content: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Keep numbers; they are on the disk when this returns."""
        record = {"key": key, "content": content, "values": values, "source": self.source}
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        self._write(self._record(key), text.encode())

    def tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors from the disk, or from ``make`` and then kept."""
        torch_files: Any = import_module("safetensors.torch")
        path = self.folder / "tensors" / f"{key}.safetensors"
        if not path.is_file():
            made = {name: value.detach().cpu().contiguous() for name, value in make().items()}
            self._write(path, torch_files.save(made))
        return torch_files.load_file(path)

    def has_pictures(self, key: str) -> bool:
        """Whether these pictures are there."""
        return (self.folder / "pictures" / key).is_dir()

    def add_pictures(self, key: str, pictures: Tensor) -> None:
        """Keep pictures (B, 3, H, W) of uint8."""
        from PIL import Image

        place = self.folder / "pictures" / key
        unfinished = place.with_name(f".{key}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for number, picture in enumerate(pictures.movedim(1, -1).cpu().numpy()):
            with (unfinished / f"{number:04}.png").open("wb") as file:
                Image.fromarray(picture).save(file, "PNG")
                _flush(file.fileno())
        _flush_folder(unfinished)
        unfinished.rename(place)
        _flush_folder(place.parent)

    def picture_paths(self, key: str) -> list[Path]:
        """Files of pictures that are there."""
        return sorted((self.folder / "pictures" / key).glob("*.png"))

    def pictures(self, key: str) -> Tensor:
        """Pictures that are there, uint8 (B, 3, H, W)."""
        from PIL import Image

        found: list[Tensor] = []
        for path in self.picture_paths(key):
            with Image.open(path) as image:
                found.append(torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0))
        return torch.stack(found)

    def _record(self, key: str) -> Path:
        return self.folder / "records" / f"{key}.json"

    def _write(self, path: Path, data: bytes) -> None:
        write_whole(path, data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part.

    Raises:
        OutputError: It cannot be written. A file that was there is untouched.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}.") from error
    _flush_folder(path.parent)


def _flush(file: int) -> None:
    os.fsync(file)


def _flush_folder(folder: Path) -> None:
    """Make a rename in a folder last; systems that cannot open folders do so by themselves."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _flush(opened)
        finally:
            os.close(opened)


def _locked(file: int) -> bool:
    """Take the lock of a file; True also where the system has no such locks."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
