"""Get a pipeline from a folder or from the hub, or say in a sentence why there is none.

Imports diffusers where it loads, so that the names of folders are checked without it.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.drawing.bundled import BUNDLED
from retom.errors import ModelError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_CONFIGS = ("*/config.json", "*/scheduler_config.json")
_LAYERS = re.compile("layers|^depth$|_blocks$")
_SCALES = re.compile("theta|seed|max_depth|max_length|_id$|_ids$|_token")
"""Whole numbers that nothing is built of."""
_MOST_LAYERS = 1000
_MOST = 2**27
"""Of anything else that a configuration counts: steps of training, positions, words."""


def source_of(name: str) -> str:
    """The name, if it is a pipeline folder or may be a hub id.

    Raises:
        ModelError: It is neither.
    """
    folder = Path(name)
    try:
        folder.exists()
    except OSError as error:  # such as a name that is too long to ask for
        raise ModelError(f"{name} cannot be read: {error.strerror or error}.") from error
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(
                f"{name} is not a diffusers pipeline: the folder has no model_index.json."
            )
    elif folder.exists():
        raise ModelError(
            f"{name} is a file; a model is a diffusers pipeline folder or a hub id such as "
            "owner/name."
        )
    elif not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelError(
            f"There is no folder {name}; a model is a diffusers pipeline folder or a hub id such "
            "as owner/name."
        )
    return name


def pretrained(source: str, dtype: torch.dtype, place: torch.device) -> DiffusionPipeline:
    """The pipeline of a folder or hub id, on a device.

    Raises:
        ModelError: It cannot be loaded.
        torch.OutOfMemoryError: It does not fit into the memory of the device.
    """
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    _check_numbers(Path(source))
    try:
        with warnings.catch_warnings():
            # Newer diffusers calls it dtype; torch_dtype is what every supported version knows.
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            parts, missing = _text_models(Path(source), dtype)
            pipe = cast("Any", DiffusionPipeline).from_pretrained(
                source, torch_dtype=dtype, **parts
            )
        missing = missing or _without_values(pipe)
        if missing:
            raise ModelError(
                f"{source} cannot be loaded as a diffusers pipeline: its configuration asks for "
                f"the weight {missing}, which its files do not have."
            )
        return pipe.to(place)
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a folder can be broken in any way, and each raises its own
        if Path(source).is_dir():
            raise ModelError(
                f"{source} cannot be loaded as a diffusers pipeline: {reason_of(error)}."
            ) from error
        raise ModelError(
            f"There is no folder {source}, and the Hugging Face hub gives no diffusers pipeline of "
            "that name: check the name and the connection. Models that come along are "
            f"{' and '.join(BUNDLED)}."
        ) from error


def reason_of(error: Exception) -> str:
    """What another library says, as a part of a sentence."""
    line = first_line(error)
    if line and isinstance(error, (AttributeError, LookupError, TypeError)):
        line = f"{type(error).__name__}: {line}"  # such as the bare name of a key
    # What a file holds may stand in it, and must not move a terminal's cursor.
    return "".join(c if c.isprintable() else " " for c in line) or type(error).__name__


def _check_numbers(folder: Path) -> None:
    """Refuse what would be built layer by layer until the memory is full, whatever the weights.

    Raises:
        ModelError: A configuration asks for more than any model has.
    """
    for file in sorted(path for pattern in _CONFIGS for path in folder.glob(pattern)):
        try:
            numbers = [*_numbers("", json.loads(file.read_text(encoding="utf-8")))]
        except (OSError, ValueError, RecursionError):
            continue  # loading says what is wrong with it
        for key, number in numbers:
            if _SCALES.search(key):
                continue
            most = _MOST_LAYERS if _LAYERS.search(key) else _MOST
            if number > most:
                # Not the number itself: Python refuses to write one of thousands of digits.
                raise ModelError(
                    f"{file} asks for {key!r} beyond {most}; no model has as many. Check the file."
                )


def _numbers(key: str, value: object) -> Iterator[tuple[str, int]]:
    """Every whole number in a configuration, with the key that it belongs to."""
    if isinstance(value, int):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield from _numbers(name, inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _numbers(key, inner)


def _text_models(folder: Path, dtype: torch.dtype) -> tuple[dict[str, Any], str | None]:
    """The parts that transformers loads, and a weight that their files lack, if there is one.

    transformers fills it with random numbers, and tells only those who load the part themselves. A
    hub id has no parts here yet: diffusers downloads and loads them.
    """
    import transformers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        named = cast("dict[str, object]", dict(index))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}, None  # loading says what is wrong with it
    parts: dict[str, Any] = {}
    for part, names in named.items():
        library, kind = cast("list[object]", names) if _is_pair(names) else (None, None)
        if library != "transformers" or not (folder / part).is_dir():
            continue
        kind = getattr(transformers, str(kind), None)
        if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
            continue
        loaded = cast("Any", kind).from_pretrained(
            str(folder / part), torch_dtype=dtype, output_loading_info=True
        )
        parts[part], told = loaded[0].eval(), loaded[1]
        lacking = min(told["missing_keys"], default=None)
        if lacking is not None:
            return parts, f"{part}.{lacking}"
    return parts, None


def _is_pair(names: object) -> bool:
    return isinstance(names, list) and len(cast("list[object]", names)) == 2


def _without_values(pipe: Any) -> str | None:  # noqa: ANN401 - a pipeline of any class
    """A weight that was planned and never filled, if there is one."""
    for part, module in pipe.components.items():
        if isinstance(module, torch.nn.Module):
            for name, weight in module.named_parameters():
                if weight.is_meta:
                    return f"{part}.{name}"
    return None
