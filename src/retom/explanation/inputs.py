"""The arguments of one call of a denoiser at a size, made on the meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ConfigError, UnsupportedModelError
from retom.explanation.arguments import make
from retom.stand_ins import without_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retom.explanation.arguments import Inputs


def latent_size(family: Inputs, height: int, width: int, pixels_per_latent: int) -> tuple[int, int]:
    """(height, width) of the latent of a picture.

    Raises:
        ConfigError: The picture does not divide into tokens.
    """
    step = pixels_per_latent * family.patch
    if min(height, width) < step or height % step or width % step:
        raise ConfigError(
            f"Height and width are multiples of {step} pixels for this model; {height}x{width} was "
            "given."
        )
    return height // pixels_per_latent, width // pixels_per_latent


def make_inputs(
    denoiser: object,
    family: Inputs,
    latent: tuple[int, int],
    text_tokens: int,
    *,
    batch: int = 1,
) -> dict[str, Any]:
    """Arguments of one call: tensors on the meta device, positions on the CPU.

    Args:
        denoiser: The model, for the entries of its configuration.
        family: Its row.
        latent: Height and width of the latent.
        text_tokens: Length of the text.
        batch: Pictures in the call.

    Raises:
        UnsupportedModelError: The configuration asks for inputs that the row does not have.
    """
    config = dict(cast("Any", denoiser).config)
    rows, columns = (side // family.patch for side in latent)
    sizes: dict[str, Any] = {
        "batch": batch,
        "height": latent[0],
        "width": latent[1],
        "rows": rows,
        "columns": columns,
        "tokens": rows * columns,
        "text": text_tokens,
        "sequence": text_tokens + rows * columns,
    }
    if "block_out_channels" in config:
        sizes |= _unet_sizes(config)
    known = config | _of_lists(config) | sizes
    return {
        name: make(argument, known)
        for name, argument in family.arguments.items()
        if name not in family.only_if or known.get(family.only_if[name])
    }


def on_meta(value: Any) -> Any:  # noqa: ANN401 - arguments of any kind
    """The same arguments with every tensor on the meta device; whole numbers are remembered."""
    if isinstance(value, torch.Tensor):
        return without_numbers(value)
    if isinstance(value, dict):
        return {key: on_meta(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        items = [on_meta(item) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def _of_lists(config: Mapping[str, Any]) -> dict[str, Any]:
    """What lists of a configuration hold, and how many, by the names that shapes use."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, (list, tuple)):
            items = list(cast("Sequence[Any]", value))
            found |= {f"{name}.{place}": item for place, item in enumerate(items)}
            found[f"{name}.len"] = len(items)
    return found


def _unet_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes that a UNet's configuration gives by way of others.

    Raises:
        UnsupportedModelError: It wants inputs that a text-to-image call does not give.
    """
    allowed = {
        "addition_embed_type": (None, "text", "text_time"),
        "encoder_hid_dim_type": (None, "text_proj"),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
    }
    for name, values in allowed.items():
        if config.get(name) not in values:
            raise UnsupportedModelError(
                f"This UNet has {name}={config[name]!r}, for which retom.explain does not know the "
                "inputs. Pass the arguments of one call for one picture as inputs={...}."
            )
    width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
    if not isinstance(width, int):
        raise UnsupportedModelError(
            "This UNet has a cross_attention_dim for each stage, which retom.explain does not "
            "know. Pass the arguments of one call for one picture as inputs={...}."
        )
    sizes: dict[str, Any] = {"text_width": width}
    if config.get("addition_embed_type") == "text_time":
        times = 6 * config["addition_time_embed_dim"]
        sizes["pooled"] = config["projection_class_embeddings_input_dim"] - times
    return sizes
