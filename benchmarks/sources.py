"""UNets of published structure at random weights: they cost and merge what the trained ones do.

`retom bench NAME` times the full ones; what is here is for counting.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

SD15: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
NARROW: dict[str, Any] = {"norm_num_groups": 4, "cross_attention_dim": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    # The published stages, blocks and levels at a fraction of the width.
    "sd15-narrow": {**SD15, **NARROW, "block_out_channels": (16, 16, 32, 32)}
    | {"attention_head_dim": 2, "sample_size": 32},
    "sdxl-narrow": {**SDXL, **NARROW, "block_out_channels": (8, 16, 32)}
    | {"attention_head_dim": (1, 2, 4), "addition_time_embed_dim": 8}
    | {"projection_class_embeddings_input_dim": 80},
}


def random_unet(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> UNet2DConditionModel:
    """A UNet of a published configuration at random weights, small enough to stay finite."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGS[name])
    unet = unet.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for key, weight in unet.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.fill_(1.0 if "norm" in key and key.endswith("weight") else 0.0)
    return unet.eval()


def unet_inputs(
    unet: UNet2DConditionModel,
    *,
    batch: int,
    height: int,
    width: int,
    seed: int = 0,
    timestep: int = 500,
) -> dict[str, Any]:
    """Arguments of one call of ``unet``; height and width are those of the latents."""
    weight = next(unet.parameters())
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight.device, weight.dtype)

    config = unet.config
    given: dict[str, Any] = {
        "sample": draw(batch, config.in_channels, height, width),
        "timestep": torch.tensor(timestep, device=weight.device),
        "encoder_hidden_states": draw(batch, 77, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {
            "text_embeds": draw(batch, pooled),
            "time_ids": torch.ones((batch, 6), device=weight.device, dtype=weight.dtype),
        }
    return given


def call(unet: nn.Module, given: dict[str, Any]) -> Tensor:
    """One call, the latents and the timestep by position: tomesd reads the first argument."""
    named = {key: value for key, value in given.items() if key not in ("sample", "timestep")}
    with torch.no_grad():
        return unet(given["sample"], given["timestep"], return_dict=False, **named)[0]
