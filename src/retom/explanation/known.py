"""Published configurations of well-known models, and those of folders: what to build, at what size.

Each shipped one is a JSON file in ``models`` that says where it comes from. A model that is neither
shipped nor in a folder is refused: nothing about a model is guessed from its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from retom.errors import ModelError

_PARTS = ("unet", "transformer")


@dataclass(frozen=True, slots=True)
class Known:
    """A denoiser's configuration, without weights.

    Attributes:
        name: What the user calls it.
        denoiser: Class name in diffusers.
        config: Arguments of the class.
        source: Where the configuration was published.
        height: Default height of a picture in pixels; None if the source names none.
        width: Default width in pixels.
        pixels_per_latent: Pixels along a side of the autoencoder's latent.
        text_tokens: Length of the text that the denoiser sees; None if the source names none.
        text_tokens_from: Why that length.
    """

    name: str
    denoiser: str
    config: dict[str, Any]
    source: str
    height: int | None
    width: int | None
    pixels_per_latent: int | None
    text_tokens: int | None
    text_tokens_from: str


def known_models() -> tuple[str, ...]:
    """Names of the models whose published configurations are shipped."""
    files = (resources.files("retom.explanation") / "models").iterdir()
    return tuple(sorted(f.name.removesuffix(".json") for f in files if f.name.endswith(".json")))


def load_known(name: str) -> Known:
    """A shipped configuration by its name, or that of a diffusers folder.

    Raises:
        ModelError: It is neither.
    """
    if Path(name).is_dir():
        return read_folder(Path(name))
    if name not in known_models():
        raise ModelError(
            f"{name} is neither a diffusers folder nor a model whose configuration is shipped; "
            f"those are {', '.join(known_models())}. For another model give the folder that it was "
            "saved to: its configuration is enough, weights are not read."
        )
    file = resources.files("retom.explanation") / "models" / f"{name}.json"
    return Known(**json.loads(file.read_text(encoding="utf-8")))


def read_folder(folder: Path) -> Known:
    """The denoiser's configuration in a diffusers pipeline folder; no weights are read.

    Raises:
        ModelError: The folder holds no pipeline with a denoiser's configuration.
    """
    index = _read(folder / "model_index.json")
    part = next((name for name in _PARTS if name in index), None)
    if part is None:
        raise ModelError(
            f"{folder} holds a pipeline without {' or '.join(_PARTS)}; there is nothing to explain."
        )
    config = _read(folder / part / "config.json")
    denoiser = str(config.pop("_class_name", ""))
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    stride = _pixels_per_latent(folder)
    height, width = _sides(config.get("sample_size"), folder / part / "config.json")
    text = _text_tokens(folder)
    return Known(
        name=folder.resolve().name,
        denoiser=denoiser,
        config=config,
        source=f"{part}/config.json of the folder",
        height=height * stride if height and stride else None,
        width=width * stride if width and stride else None,
        pixels_per_latent=stride,
        text_tokens=text,
        text_tokens_from="the tokenizer's model_max_length",
    )


def _sides(size: object, file: Path) -> tuple[int, int] | tuple[None, None]:
    """Height and width of a latent from a configuration's ``sample_size``; None if it has none."""
    if size is None:
        return None, None
    sides = cast("list[object]", size) if isinstance(size, list) else [size, size]
    height, width = sides if len(sides) == 2 else (None, None)
    if type(height) is int and type(width) is int and min(height, width) > 0:
        return height, width
    raise ModelError(
        f"sample_size in {file} is a whole number of at least 1, or a list of two, height and "
        f"width; {size!r} stands there."
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{file} cannot be read as JSON; a diffusers pipeline folder has it."
        ) from error
    if not isinstance(data, dict):
        raise ModelError(f"{file} holds {type(data).__name__}, not a configuration.")
    return cast("dict[str, Any]", data)


def _pixels_per_latent(folder: Path) -> int | None:
    """Two for each halving of the autoencoder; None where its configuration lists no stages."""
    file = folder / "vae" / "config.json"
    config = _read(file) if file.is_file() else {}
    # AutoencoderTiny and AutoencoderDC list those of the encoder apart
    stages = config.get("block_out_channels", config.get("encoder_block_out_channels"))
    return 2 ** (len(stages) - 1) if isinstance(stages, list) else None  # pyright: ignore[reportUnknownArgumentType]


def _text_tokens(folder: Path) -> int | None:
    """The length that the only tokenizer pads to; with several the pipeline's code decides."""
    if not (folder / "tokenizer").is_dir() or (folder / "tokenizer_3").is_dir():
        return None
    if (folder / "tokenizer_2").is_dir() and not (folder / "unet").is_dir():
        return None
    file = folder / "tokenizer" / "tokenizer_config.json"
    limit = _read(file).get("model_max_length") if file.is_file() else None
    return limit if isinstance(limit, int) and limit < 10_000 else None
