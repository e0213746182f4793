"""What else diffusers puts on a denoiser, and what retom does beside it: a table for the tests.

The tests of ``test_company_*.py`` run what stands here, and ``compatibility_page.py`` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import hooks
from tiny_transformers import needs_new
from torch import nn


class Time:
    """The timestep that a pipeline would tell a cache."""

    now = 500


@dataclass(frozen=True)
class Cache:
    """A cache of diffusers that may be on the denoiser.

    Attributes:
        shown: How a user writes its configuration.
        config: Makes it; what it keeps serves from the second call on.
        denoisers: Names in ``tiny_transformers.FAMILIES``.
        of_blocks: Whether it keeps what whole blocks gave: then retom merges inside of it.
        hook: What the refusal names.
    """

    shown: str
    config: Callable[[], object]
    denoisers: tuple[str, ...]
    of_blocks: bool = False
    hook: str = ""


def config_of(kind: str) -> object:
    """A new configuration of a cache; the test is skipped where diffusers is too old for it."""
    name = CACHES[kind].shown.split("(")[0]
    if not hasattr(hooks, name):
        needs_new(name)
    return CACHES[kind].config()


MANY = ("flux", "flux2", "chroma", "qwen", "cogview4", "glm-image", "hunyuan-image", "bria")
# FirstBlockCache and MagCache know some block classes only, and the former fails on Flux2's own.
KNOWN = ("flux", "qwen", "cogview4", "hunyuan-image")

# TaylorSeer finds attention by its name, and CogView4's and GLM-Image's have another.
CACHES = {
    "FirstBlockCache": Cache(
        "FirstBlockCacheConfig(threshold=...)",
        lambda: hooks.FirstBlockCacheConfig(threshold=1e9),
        KNOWN,
        of_blocks=True,
    ),
    "MagCache": Cache(
        "MagCacheConfig(mag_ratios=...)",
        lambda: hooks.MagCacheConfig(
            threshold=1e9,
            max_skip_steps=99,
            retention_ratio=0.0,
            num_inference_steps=9,
            mag_ratios=torch.ones(9),
        ),
        (*KNOWN, "flux2", "kandinsky5"),
        of_blocks=True,
    ),
    "TaylorSeer, whole blocks": Cache(
        'TaylorSeerCacheConfig(cache_identifiers=[r"[a-z_]*blocks\\.\\d+"])',
        lambda: _taylor(cache_identifiers=[r"[a-z_]*blocks\.\d+"]),
        ("flux", "qwen", "cogview4"),
        of_blocks=True,
    ),
    "TaylorSeer, lite": Cache(
        "TaylorSeerCacheConfig(use_lite_mode=True)",
        lambda: _taylor(use_lite_mode=True),
        MANY,
        of_blocks=True,
    ),
    "TaylorSeer": Cache(
        "TaylorSeerCacheConfig()",
        lambda: _taylor(),
        tuple(name for name in MANY if name not in ("cogview4", "glm-image")),
        hook="TaylorSeerCacheHook",
    ),
    "PyramidAttentionBroadcast": Cache(
        "PyramidAttentionBroadcastConfig(...)",
        lambda: hooks.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=9, current_timestep_callback=lambda: Time.now
        ),
        MANY,
        hook="PyramidAttentionBroadcastHook",
    ),
    "FasterCache": Cache(
        "FasterCacheConfig(is_guidance_distilled=True, ...)",
        lambda: hooks.FasterCacheConfig(
            spatial_attention_block_skip_range=9,
            spatial_attention_timestep_skip_range=(-1, 681),
            is_guidance_distilled=True,
            current_timestep_callback=lambda: Time.now,
            attention_weight_callback=lambda _: 0.5,
            tensor_format="BCHW",
        ),
        MANY,
        hook="FasterCacheBlockHook",
    ),
}


def _taylor(**options: object) -> object:
    return hooks.TaylorSeerCacheConfig(
        cache_interval=9,
        max_order=0,
        disable_cache_before_step=1,
        taylor_factors_dtype=torch.float32,
        **options,
    )


KEEPING = (1.0,)
"""A ``refresh`` under which the plans of a picture's first step last to its end."""


@dataclass(frozen=True)
class Change:
    """Something that changes a denoiser's layers, and not its tokens.

    Attributes:
        shown: How a user writes it.
        make: Does it.
        denoisers: Names in ``tiny_transformers.FAMILIES``.
        same: Whether the model computes the same as without it, up to rounding.
    """

    shown: str
    make: Callable[[nn.Module], None]
    denoisers: tuple[str, ...] = ("sd3", "flux", "qwen")
    same: bool = False


def _offloaded(kind: str) -> Callable[[nn.Module], None]:
    def make(model: nn.Module) -> None:
        needs_new("offloading on a CPU alone")
        cpu = torch.device("cpu")
        model.enable_group_offload(cpu, cpu, offload_type=kind, num_blocks_per_group=1)

    return make


def _lora(model: nn.Module) -> None:
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    model.add_adapter(config)


def _quantised_by_quanto(model: nn.Module) -> None:
    # Not torchao: diffusers imports it where it is installed, and its source warns, an error here.
    from optimum.quanto import freeze, qint8, quantize

    quantize(model, weights=qint8)
    freeze(model)


def _quantised_by_torch(model: nn.Module) -> None:
    from torch.ao.quantization import quantize_dynamic

    quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8, inplace=True)


CHANGES = {
    "group offload, by blocks": Change(
        'enable_group_offload(..., offload_type="block_level")',
        _offloaded("block_level"),
        same=True,
    ),
    "group offload, by leaves": Change(
        'enable_group_offload(..., offload_type="leaf_level")',
        _offloaded("leaf_level"),
        same=True,
    ),
    "layerwise casting": Change(
        "enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)",
        lambda model: model.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
        ),
    ),
    "weights quantised by quanto": Change(
        "optimum.quanto: quantize(denoiser, weights=qint8), freeze(denoiser)", _quantised_by_quanto
    ),
    "linear layers quantised by torch": Change(
        "torch.ao.quantization.quantize_dynamic(denoiser, {nn.Linear}, inplace=True)",
        _quantised_by_torch,
    ),
    "LoRA": Change("peft: add_adapter(LoraConfig(...))", _lora),
    "attention backend": Change(
        'set_attention_backend("_native_math")',
        lambda model: model.set_attention_backend("_native_math"),
        denoisers=("flux", "qwen", "cogview4"),
        same=True,
    ),
}
