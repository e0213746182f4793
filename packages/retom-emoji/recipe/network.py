"""The UNet of a preset: untrained, or with the levels that a phase of its training has."""

from __future__ import annotations

from functools import partial
from typing import Any

from diffusers import UNet2DConditionModel

from .grow import grow
from .preset import DenoiserSettings, Phase, Preset


def build(preset: Preset, levels: int = 0) -> UNet2DConditionModel:
    """Make an untrained UNet for a preset's latents and texts, with attention at every level.

    The text also reaches every residual block: pooled, it joins the time embedding, which scales
    and shifts all channels. Through attention alone the model took hours to tell two pictures with
    the same colours apart.

    Args:
        preset: Its widths, latents and texts.
        levels: How many levels, from the innermost; 0 for all.
    """
    settings, channels = preset.denoiser, preset.autoencoder.latent_channels
    text_width = preset.text.width
    widths = settings.widths[-levels:]  # -0 takes all
    levels = len(widths)
    heads: Any = tuple(width // settings.head_width for width in widths)
    return UNet2DConditionModel(
        sample_size=settings.phases[-1].size // 4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=text_width,
        # diffusers calls it a dimension, but for this class it is the number of heads
        attention_head_dim=heads,
        norm_num_groups=8,
        time_embedding_dim=settings.embedding,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=text_width // 32,
    )


def grown(settings: DenoiserSettings, phase: Phase) -> int:
    """Return how many levels a phase has more than the first one."""
    levels = [p.levels or len(settings.widths) for p in (phase, settings.phases[0])]
    return levels[0] - levels[1]


def fitted(unet: UNet2DConditionModel, phase: Phase, preset: Preset) -> UNet2DConditionModel:
    """Return a UNet with the levels that a phase has, grown where it has fewer."""
    widths = preset.denoiser.widths
    config: Any = unet.config
    for levels in range(len(config.block_out_channels) + 1, (phase.levels or len(widths)) + 1):
        unet = grow(unet, widths[-levels], partial(build, preset, levels))
        print(f"denoiser-{phase.name}: grown to {levels} levels", flush=True)
    return unet
