"""Where benchmarks get a model: a diffusers folder, the bundled one, or random weights.

Nothing here asks a hub, unless HF_HUB_OFFLINE=0 is set and --model names something on it. The
published configurations of SD 1.5 and SDXL are written out; at random weights they cost what the
trained ones cost, and draw nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import diffusers
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

import retom
from retom.drawing.loading import BUNDLED, load_model, quiet_libraries

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
    "sd15": SD15,
    "sdxl": SDXL,
    # The same stages, blocks and levels at a fraction of the width.
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


@dataclass(frozen=True)
class Source:
    """A pipeline and what tells it from others.

    Attributes:
        pipe: The pipeline.
        label: Name and fingerprint, without folders of this machine.
        folder: Where it lies; None for random weights and for a model from a hub.
    """

    pipe: StableDiffusionPipeline
    label: str
    folder: Path | None


def load(name: str | None, device: str, dtype: str) -> Source:
    """A diffusers folder, or the bundled model for None.

    Raises:
        SystemExit: There is no such model.
    """
    try:
        with quiet_libraries():
            pipe = load_model(name, device=device, dtype=dtype).pipe
    except retom.RetomError as error:
        raise SystemExit(str(error)) from error
    folder = Path(name or importlib.import_module("retom_emoji").folder())
    if not folder.is_dir():
        return Source(pipe, str(name), None)
    label = folder.name if name else BUNDLED
    return Source(pipe, f"{label} ({fingerprint(folder)})", folder)


def tiny() -> Source:
    """A Stable Diffusion pipeline at random weights: seconds for everything."""
    return Source(tiny_pipeline(), "tiny, random weights", None)


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline at random weights: 16x16 tokens, seconds for everything."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    tokenizer = CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 32
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
        ),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=diffusers.DDIMScheduler(
            clip_sample=False, steps_offset=1, timestep_spacing="trailing"
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_unet(pipe: StableDiffusionPipeline, unet: nn.Module) -> StableDiffusionPipeline:
    """A pipeline of the same parts around another UNet."""
    parts = {**pipe.components, "unet": unet}
    optional = {"requires_safety_checker": False} if "safety_checker" in parts else {}
    twin = type(pipe)(**parts, **optional)
    twin.set_progress_bar_config(disable=True)
    return twin


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with the weights and configurations of a model folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".json", ".safetensors"):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
