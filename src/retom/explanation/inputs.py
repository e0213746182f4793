"""What each denoiser class is called with, as data, and the making of it on the meta device.

A row names every argument and its shape. The names in a shape are sizes of the call (``batch``,
``height`` and ``width`` of the latent, ``rows``, ``columns`` and ``tokens`` of its patches,
``text``) or entries of the model's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ConfigError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Shape = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Ids:
    """Positions, as real numbers, which merging reads: (tokens, axes), axes 1 and 2 the grid's.

    Args:
        axes: Columns.
        of: ``image`` for the grid's tokens, ``text`` for zeros.
        batch: Whether there is a dimension for the batch.
    """

    axes: int
    of: str
    batch: bool = False


@dataclass(frozen=True, slots=True)
class GridSizes:
    """A list of (1, rows, columns) for each picture."""


Argument = Shape | Ids | GridSizes | dict[str, Shape]


@dataclass(frozen=True, slots=True)
class Inputs:
    """How one class of denoisers is called.

    Attributes:
        arguments: Every argument of a text-to-image call, by name.
        patch: Latents along a side of a token, outside of a UNet.
        only_if: Arguments that depend on an entry of the configuration being true.
        text_tokens: Length of the text where nothing says another.
        text_tokens_from: Why that length.
        pixels_per_latent: Pixels along a side of a latent where nothing says another: that of all
            published models of the class.
    """

    arguments: dict[str, Argument]
    patch: int = 2
    only_if: dict[str, str] = field(default_factory=dict[str, str])
    text_tokens: int = 77
    text_tokens_from: str = "CLIP's length, to which the pipeline pads"
    pixels_per_latent: int = 8


_FLUX: dict[str, Argument] = {
    "hidden_states": ("batch", "tokens", "in_channels"),
    "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
    "timestep": ("batch",),
    "guidance": ("batch",),
}
_T5_512 = "the default max_sequence_length of the pipeline, to which it pads"

FAMILIES: dict[str, Inputs] = {
    "UNet2DConditionModel": Inputs(
        {
            "sample": ("batch", "in_channels", "height", "width"),
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "text_width"),
            "added_cond_kwargs": {"text_embeds": ("batch", "pooled"), "time_ids": ("batch", 6)},
        },
        patch=1,
        only_if={"added_cond_kwargs": "pooled"},
    ),
    "PixArtTransformer2DModel": Inputs(
        {
            "hidden_states": ("batch", "in_channels", "height", "width"),
            "encoder_hidden_states": ("batch", "text", "caption_channels"),
            "encoder_attention_mask": ("batch", "text"),
            "timestep": ("batch",),
            "added_cond_kwargs": {"resolution": ("batch", 2), "aspect_ratio": ("batch", 1)},
        },
        text_tokens=120,
        text_tokens_from="the default max_sequence_length of PixArt-α's pipeline",
    ),
    "SD3Transformer2DModel": Inputs(
        {
            "hidden_states": ("batch", "in_channels", "height", "width"),
            "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
            "pooled_projections": ("batch", "pooled_projection_dim"),
            "timestep": ("batch",),
        },
        text_tokens=333,
        text_tokens_from="CLIP's 77 and the pipeline's max_sequence_length of T5, 256",
    ),
    "FluxTransformer2DModel": Inputs(
        {
            **_FLUX,
            "pooled_projections": ("batch", "pooled_projection_dim"),
            "img_ids": Ids(3, "image"),
            "txt_ids": Ids(3, "text"),
        },
        only_if={"guidance": "guidance_embeds"},
        text_tokens=512,
        text_tokens_from=_T5_512,
    ),
    "Flux2Transformer2DModel": Inputs(
        {
            **_FLUX,
            "img_ids": Ids(4, "image", batch=True),
            "txt_ids": Ids(4, "text", batch=True),
        },
        text_tokens=512,
        text_tokens_from=_T5_512,
    ),
    "QwenImageTransformer2DModel": Inputs(
        {
            "hidden_states": ("batch", "tokens", "in_channels"),
            "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
            "timestep": ("batch",),
            "img_shapes": GridSizes(),
        },
        text_tokens=128,
        text_tokens_from="our choice: the pipeline does not pad the prompt",
    ),
}
"""Rows by class name; :func:`family_of` finds the row of a subclass too."""


def family_of(denoiser: object) -> Inputs:
    """The row of a denoiser's class.

    Raises:
        UnsupportedModelError: There is none.
    """
    for cls in type(denoiser).__mro__:
        if cls.__name__ in FAMILIES:
            return FAMILIES[cls.__name__]
    raise UnsupportedModelError(
        f"retom.explain does not know how {type(denoiser).__name__} is called; it knows "
        f"{', '.join(FAMILIES)}. Pass the arguments of one call for one picture as inputs={{...}}."
    )


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
    }
    if "block_out_channels" in config:
        sizes |= _unet_sizes(config)
    known = config | sizes
    return {
        name: _make(argument, known)
        for name, argument in family.arguments.items()
        if name not in family.only_if or known.get(family.only_if[name])
    }


def on_meta(value: Any) -> Any:  # noqa: ANN401 - arguments of any kind
    """The same arguments with every tensor on the meta device."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: on_meta(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        items = [on_meta(item) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def _make(argument: Argument, sizes: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(argument, dict):
        return {name: _make(shape, sizes) for name, shape in argument.items()}
    if isinstance(argument, GridSizes):
        return [[(1, sizes["rows"], sizes["columns"])]] * sizes["batch"]
    if isinstance(argument, Ids):
        return _ids(argument, sizes)
    shape = [dim if isinstance(dim, int) else int(sizes[dim]) for dim in argument]
    return torch.empty(shape, device="meta")


def _ids(argument: Ids, sizes: Mapping[str, Any]) -> Tensor:
    count = sizes["tokens"] if argument.of == "image" else sizes["text"]
    ids = torch.zeros(count, argument.axes)
    if argument.of == "image":
        ids[:, 1] = torch.arange(sizes["rows"]).repeat_interleave(sizes["columns"])
        ids[:, 2] = torch.arange(sizes["columns"]).repeat(sizes["rows"])
    return ids.expand(sizes["batch"], -1, -1) if argument.batch else ids


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
