"""Which patch points of ComfyUI serve which model class, and putting the patches there."""

from __future__ import annotations

import dataclasses
from typing import Any

from retom import AlreadyAppliedError, ConfigError, UnsupportedModelError

from .blocks import MergeBlock
from .layers import MergedLayer
from .running import APPLY_MODEL, KEY, RunMerged, Settings
from .unet import OVERRIDE, MergeAttention, UnmergeAttention, WeighBySize

LISTS = {
    "MMDiT": {"joint_blocks": "double_block"},
    "Flux": {"double_blocks": "double_block", "single_blocks": "single_block"},
    "QwenImageTransformer2DModel": {"transformer_blocks": "double_block"},
}
"""Transformers whose blocks can be replaced: where they keep them, and how ComfyUI names them."""

SUPPORTED = (
    "SD 1.5, SD 2 and SDXL (UNetModel), SD3 (MMDiT), Flux (Flux), Qwen-Image "
    "(QwenImageTransformer2DModel), Lumina 2 and Z-Image (NextDiT)"
)


def patched(model: Any, settings: Settings) -> Any:
    """A clone of a MODEL that merges; the given one stays as it is.

    Raises:
        AlreadyAppliedError: It merges already.
        UnsupportedModelError: Its class has no patch point for merging, or is not known.
        ConfigError: The scope does not exist for its class.
    """
    if model.get_wrappers(APPLY_MODEL, KEY):
        raise AlreadyAppliedError(
            "This MODEL already comes from a ReToM node. Use one, and change that."
        )
    diffusion = model.get_model_object("diffusion_model")
    names = {base.__name__ for base in type(diffusion).__mro__}
    clone = model.clone()
    if "UNetModel" in names:
        settings = _patch_unet(clone, diffusion, settings)
    elif "NextDiT" in names:
        settings = _with_scope(settings, "block", names)
        _patch_layers(clone, diffusion)
    else:
        lists = _lists(diffusion, names)
        settings = _with_scope(settings, "block", names)
        _patch_blocks(clone, diffusion, lists)
    clone.add_wrapper_with_key(APPLY_MODEL, KEY, RunMerged(settings))
    return clone


def _patch_unet(clone: Any, diffusion: Any, settings: Settings) -> Settings:
    if any(type(module).__name__ == "SpatialVideoTransformer" for module in diffusion.modules()):
        raise UnsupportedModelError(
            "ReToM merges pictures; this UNet draws video, and its patch points do not tell "
            "frames from rows of tokens."
        )
    scope = "kv" if settings.config.scope == "kv" else "attention"
    settings = _with_scope(settings, scope, {"UNetModel"})
    weighs = settings.config.weighs_by_size
    clone.set_model_attn1_patch(MergeAttention(keys_alone=scope == "kv", weighs=weighs))
    clone.set_model_attn1_output_patch(UnmergeAttention())
    options = clone.model_options["transformer_options"]
    outputs = options["patches"]["attn1_output_patch"]
    # Nodes before this one saw all tokens on the way in, and see all on the way out.
    options["patches"]["attn1_output_patch"] = [outputs[-1], *outputs[:-1]]
    if weighs:
        options[OVERRIDE] = WeighBySize(options.get(OVERRIDE))
    return settings


def _patch_blocks(clone: Any, diffusion: Any, lists: dict[str, str]) -> None:
    options = clone.model_options["transformer_options"]
    before = options.get("patches_replace", {}).get("dit", {})
    for attribute, name in lists.items():
        for number in range(len(getattr(diffusion, attribute))):
            merge = MergeBlock(
                patch=_patch_size(diffusion),
                single=name == "single_block",
                previous=before.get((name, number)),
            )
            clone.set_model_patch_replace(merge, "dit", name, number)


def _patch_layers(clone: Any, diffusion: Any) -> None:
    for number in range(len(diffusion.layers)):
        name = f"diffusion_model.layers.{number}"
        multiple = getattr(diffusion, "pad_tokens_multiple", None) or 1
        layer = clone.get_model_object(name)
        clone.add_object_patch(name, MergedLayer(layer, _patch_size(diffusion), multiple))


def _lists(diffusion: Any, names: set[str]) -> dict[str, str]:
    for name, lists in LISTS.items():
        if name in names and all(hasattr(diffusion, attribute) for attribute in lists):
            return lists
    compiled = "OptimizedModule" in names
    raise UnsupportedModelError(
        f"ReToM does not know the model class {type(diffusion).__name__}. "
        + ("Apply ReToM before the node that compiles the model. " if compiled else "")
        + f"It merges in {SUPPORTED}."
    )


def _patch_size(diffusion: Any) -> int:
    size = diffusion.patch_size
    return size if isinstance(size, int) else size[-1]


def _with_scope(settings: Settings, scope: str, names: set[str]) -> Settings:
    config = settings.config
    if config.scope not in ("auto", scope):
        kind = "UNet" if "UNetModel" in names else "transformer"
        allowed = "auto, attention or kv" if kind == "UNet" else "auto or block"
        raise ConfigError(
            f"scope={config.scope!r} has no patch point in a {kind} of ComfyUI; use {allowed}."
        )
    return dataclasses.replace(settings, config=dataclasses.replace(config, scope=scope))
