"""What a host can do that a scope cannot work with, each refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def has_fused_projections(attention: nn.Module) -> bool:
    """Whether queries, keys and values of an attention layer come out of one product.

    The processor tells: diffusers leaves the layer's flag set when projections are unfused.
    """
    return "Fused" in type(getattr(attention, "processor", None)).__name__


def refuse_fused_projections(attention: nn.Module) -> None:
    """For scope ``kv``: keys and values come from other tokens than queries."""
    if has_fused_projections(attention):
        raise ConfigError(
            "scope='kv' needs separate projections for keys and values, but this model's are "
            "fused. Call unfuse_qkv_projections() first, or use scope='attention'."
        )


def refuse_chunks(block: nn.Module) -> None:
    """For scope ``attention+mlp``: a plan is for all tokens that enter the MLP at once."""
    if getattr(block, "_chunk_size", None) is not None:
        raise ConfigError(
            "scope='attention+mlp' merges what enters the MLP, but forward chunking hands it over "
            "in pieces. Call disable_forward_chunking() first, or use scope='attention'."
        )


UNMEASURED = (
    "skip='unprofitable' times single layers, which a compiled graph does not have. Draw once "
    "before compiling and name what was skipped, handle.update(skip=handle.summary()."
    "skipped_sites), or use skip=None."
)


def refuse_cache_on_trial(hook: object, layer: str) -> None:
    """For caches of diffusers on modules that ``skip="unprofitable"`` calls to time them."""
    raise ConfigError(
        f"skip='unprofitable' calls layers several times to time them, and {type(hook).__name__} "
        f"in {layer} would take each call for a step. Draw once without the cache and name what "
        "was skipped, handle.update(skip=handle.summary().skipped_sites), or use skip=None."
    )


_ADVICE = (
    "Keep the plans of a picture's first step with refresh=(1.0,), or call disable_cache() and use "
    "a cache of whole blocks, FirstBlockCacheConfig or MagCacheConfig. Plans that are kept need "
    "merging at every noise level: noise=(0.0, 1.0), and no rules by noise."
)


def refuse_hook_on_layer(
    hook: object, layer: str, *, scope: str, keeps_merged: bool, keeps_plans: bool
) -> None:
    """For hooks of diffusers on layers that run on merged tokens.

    Args:
        hook: The hook.
        layer: Qualified name of the site that it is in.
        scope: What merges.
        keeps_merged: Whether it hands out merged tokens that its layer gave earlier.
        keeps_plans: Whether the same tokens are merged in all steps of a picture.
    """
    names = {cls.__name__ for cls in type(hook).__mro__}
    if keeps_merged and not keeps_plans:
        raise ConfigError(
            f"{type(hook).__name__} in {layer} hands out what its layer gave in earlier steps, but "
            f"scope={scope!r} merges other tokens in every step. {_ADVICE}"
        )
    if (
        keeps_merged
        and "FasterCacheBlockHook" in names
        and not getattr(hook, "is_guidance_distilled", True)
    ):
        raise ConfigError(
            f"FasterCache in {layer} leaves out half of the batch in some steps, and the other "
            "half's tokens would merge otherwise than those that it keeps. Use FasterCacheConfig("
            "is_guidance_distilled=True) if the denoiser's batch holds no halves of guidance, or "
            "call disable_cache() and use FirstBlockCacheConfig or MagCacheConfig."
        )
    if "SmoothedEnergyGuidanceHook" in names and scope != "kv":
        raise ConfigError(
            f"Smoothed energy guidance in {layer} blurs the queries as a square picture, which "
            f"scope={scope!r} has merged. Use SkipLayerGuidance or PerturbedAttentionGuidance, or "
            "leave its blocks un-merged with levels=."
        )
    if "AttentionProcessorSkipHook" in names and scope == "kv":
        raise ConfigError(
            f"Perturbed attention guidance in {layer} gives every query its own value, and "
            "scope='kv' leaves fewer values than queries, so that it would do nothing. Use "
            "scope='attention'."
        )
