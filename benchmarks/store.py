"""A folder of results that grows line by line, so that a killed run continues where it stood.

``settings.json`` says what every line was measured under, ``results.jsonl`` has one line for each
(stage, variant, prompts), ``sessions.jsonl`` the provenance of each run, and ``*.safetensors``
cache what the un-merged model gave. One process writes at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from record import progress
from safetensors.torch import load_file, save_file
from torch import Tensor

Record = dict[str, Any]
Key = tuple[str, str, tuple[int, ...]]


class Store:
    """Results below one folder.

    Args:
        folder: Made if absent.
        settings: What must be equal for results to stand in one table.

    Raises:
        SystemExit: The folder holds results measured under other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        file = folder / "settings.json"
        if file.is_file():
            before = json.loads(file.read_text(encoding="utf-8"))
            changed = sorted(k for k in before | settings if before.get(k) != settings.get(k))
            if changed:
                names = ", ".join(
                    f"{k} ({before.get(k)!r}, now {settings.get(k)!r})" for k in changed
                )
                raise SystemExit(
                    f"{folder} holds results under other settings: {names}. Name another folder "
                    "with --work."
                )
        else:
            file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        self.settings = settings
        self._lines = folder / "results.jsonl"
        self.records = self._read()
        self._done = {_key(record) for record in self.records}

    def has(self, stage: str, variant: str, prompts: list[int]) -> bool:
        """Whether this was measured already."""
        return (stage, variant, tuple(prompts)) in self._done

    def add(self, stage: str, variant: str, prompts: list[int], **values: object) -> None:
        """Append one result; it is on the disk when this returns."""
        record = {"stage": stage, "variant": variant, "prompts": prompts, **values}
        with self._lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.records.append(record)
        self._done.add(_key(record))

    def session(self, source: Mapping[str, Any]) -> None:
        """Note the provenance of what this process adds."""
        with (self.folder / "sessions.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(source) + "\n")

    @property
    def sessions(self) -> list[Record]:
        """Provenance of every process that added something."""
        file = self.folder / "sessions.jsonl"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return [json.loads(line) for line in _whole(text).splitlines()]

    def of(self, stage: str) -> dict[str, list[Record]]:
        """Records of a stage by variant."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            if record["stage"] == stage:
                found.setdefault(record["variant"], []).append(record)
        return found

    def cached(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors from the disk, or from ``make`` and then kept."""
        file = self.folder / f"{name}.safetensors"
        if not file.is_file():
            unfinished = file.with_suffix(".unfinished")
            tensors = {key: value.cpu().contiguous() for key, value in make().items()}
            save_file(tensors, unfinished)
            unfinished.replace(file)
        return load_file(file)

    def _read(self) -> list[Record]:
        """All whole lines; a last line that a kill tore is cut off the file."""
        if not self._lines.is_file():
            return []
        text = self._lines.read_text(encoding="utf-8")
        whole = _whole(text)
        if whole != text:
            progress(f"{self._lines.name}: dropping a line that was not finished")
            self._lines.write_text(whole, encoding="utf-8")
        return [json.loads(line) for line in whole.splitlines()]


def _whole(text: str) -> str:
    """The lines that end."""
    return text[: text.rfind("\n") + 1]


def _key(record: Record) -> Key:
    return record["stage"], record["variant"], tuple(record["prompts"])
