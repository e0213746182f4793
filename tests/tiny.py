"""Tiny, random, real: diffusers and transformers classes of the supported families, built offline.

Every builder seeds its own weights, so two calls give equal models.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_WIDTH = 16
CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
PLAIN = "DownBlock2D", "UpBlock2D"


def unet(*, attention: tuple[bool, ...] = (True, True, False), **options) -> UNet2DConditionModel:
    """A UNet of one layer a block; ``attention`` says which stages have it, top to bottom."""
    stages = [CROSS if has else PLAIN for has in attention]
    settings = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 8, 16)[-len(stages) :],
        "down_block_types": tuple(down for down, _ in stages),
        "up_block_types": tuple(up for _, up in reversed(stages)),
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**settings, **options}).eval()


def sd15_unet(**options) -> UNet2DConditionModel:
    """Stable Diffusion 1.5: convolutional projections, attention at every depth."""
    return unet(**options)


def sd21_unet(**options) -> UNet2DConditionModel:
    """Stable Diffusion 2.1: linear projections, a number of heads for each stage."""
    return unet(**{"use_linear_projection": True, "attention_head_dim": (2, 2, 4), **options})


_SDXL = {
    "attention": (False, True, True),
    "use_linear_projection": True,
    "attention_head_dim": (2, 2, 4),
    "transformer_layers_per_block": (1, 1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": TEXT_WIDTH + 6 * 8,
}


def sdxl_unet(**options) -> UNet2DConditionModel:
    """SDXL: no attention on the first stage, several blocks a transformer, size conditioning."""
    return unet(**{**_SDXL, "cross_attention_dim": 2 * TEXT_WIDTH, **options})


def kolors_unet(**options) -> UNet2DConditionModel:
    """Kolors: an SDXL UNet that projects the text states of another width itself."""
    projection = {"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_proj"}
    return unet(**{**_SDXL, **projection, "cross_attention_dim": 12, **options})


def gligen_unet(**options) -> UNet2DConditionModel:
    """GLIGEN: a gated self-attention over grounding tokens after every self-attention."""
    model = unet(**{"attention_type": "gated", **options})
    for name, parameter in model.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):  # zero at first: the gates would be shut
            torch.nn.init.constant_(parameter, 1.0)
    return model


@dataclass(frozen=True)
class Family:
    """A UNet family: how to build it, and its layers of self-attention by level."""

    name: str
    build: Callable[..., UNet2DConditionModel]
    depth_of_level: tuple[int, ...]
    layers_of_level: tuple[int, ...]
    text_width: int = TEXT_WIDTH
    is_xl: bool = False
    is_grounded: bool = False


# Layers of a level: its down stage (1) and its up stage (2), times the blocks of a transformer; the
# deepest level is the middle block's.
FAMILIES = {
    family.name: family
    for family in (
        Family("sd15", sd15_unet, (0, 1, 2), (3, 3, 1)),
        Family("sd21", sd21_unet, (0, 1, 2), (3, 3, 1)),
        Family("sdxl", sdxl_unet, (1, 2), (3, 8), text_width=2 * TEXT_WIDTH, is_xl=True),
        Family("kolors", kolors_unet, (1, 2), (3, 8), text_width=24, is_xl=True),
        Family("gligen", gligen_unet, (0, 1, 2), (3, 3, 1), is_grounded=True),
    )
}


def inputs(family: str = "sd15", *, size=(16, 16), batch=2, seed=1, dtype=torch.float32) -> dict:
    """Keyword arguments of one call of a family's UNet."""
    facts = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    arguments = {
        "sample": draw(batch, 4, *size),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": draw(batch, 5, facts.text_width),
    }
    if facts.is_xl:
        arguments["added_cond_kwargs"] = {
            "text_embeds": draw(batch, TEXT_WIDTH),
            "time_ids": torch.full((batch, 6), 32.0, dtype=dtype),
        }
    if facts.is_grounded:
        grounding = {
            "boxes": torch.rand((batch, 3, 4), generator=generator).to(dtype),
            "positive_embeddings": draw(batch, 3, TEXT_WIDTH),
            "masks": torch.tensor([1, 1, 0], dtype=dtype).expand(batch, 3),
        }
        arguments["cross_attention_kwargs"] = {"gligen": grounding}
    return arguments


@torch.no_grad()
def call(model, arguments: dict, **overrides) -> torch.Tensor:
    """The UNet's output without gradients."""
    return model(**{**arguments, **overrides}, return_dict=False)[0]


def vae(stages: int = 4) -> AutoencoderKL:
    """An autoencoder that scales by 2 ** (stages - 1)."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,) * stages,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        latent_channels=4,
        norm_num_groups=2,
        layers_per_block=1,
        mid_block_add_attention=False,
    ).eval()


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with letters as its vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if int(transformers.__version__.split(".")[0]) >= 5:
        return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)
    with TemporaryDirectory() as folder:  # transformers 4 reads them from files
        names, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        names.write_text(json.dumps(vocabulary))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(names), str(merges), model_max_length=8)


def text_encoder(cls=CLIPTextModel):
    """A text encoder of one layer."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return cls(config).eval()


_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_STABLE_DIFFUSION = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def sd_pipeline(cls=StableDiffusionPipeline, *, model: UNet2DConditionModel | None = None):
    """A Stable Diffusion 1.5 pipeline whose default size is 128 px."""
    pipe = cls(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=model or sd15_unet(),
        scheduler=DDIMScheduler(**_BETAS, **_STABLE_DIFFUSION),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sdxl_pipeline(cls=StableDiffusionXLPipeline, *, model: UNet2DConditionModel | None = None):
    """An SDXL pipeline whose default size is 128 px."""
    pipe = cls(
        vae=vae(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=model or sdxl_unet(),
        scheduler=EulerDiscreteScheduler(**_BETAS, steps_offset=1),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(
    pipe, prompt="a red apple", *, seed=0, num_inference_steps=2, **options
) -> torch.Tensor:
    """What the pipeline draws, before decoding."""
    generator = torch.Generator().manual_seed(seed)
    result = pipe(
        prompt,
        num_inference_steps=num_inference_steps,
        generator=generator,
        output_type="latent",
        **options,
    )
    return result.images


def depth_of(name: str, *, stages: int = 3) -> int:
    """How often the feature map was halved where a layer of this qualified name sits."""
    where, _, rest = name.partition(".")
    if where == "mid_block":
        return stages - 1
    stage = int(rest.split(".")[0])
    return stage if where == "down_blocks" else stages - 1 - stage


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """The size of a feature map after some strided convolutions, each rounding up."""
    for _ in range(times):
        size = tuple(math.ceil(side / 2) for side in size)
    return size


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0"
"""The block of a UNet that merges at the defaults and comes first."""
TOLD_BY = {
    "attention": "attn1",
    "attention+mlp": "ff",
    "block": "attn2.to_q",
    "kv": "attn1.to_k",
}
"""Whose tokens tell a scope: the first module in it that runs on merged ones."""


@contextmanager
def tokens_seen(model: UNet2DConditionModel, layer: str = "attn1"):
    """Record how many tokens reach a layer of every transformer block, by qualified name.

    For ``attn1``, a whole self-attention, it is the mean of its queries and its keys, which may
    merge apart.
    """
    seen: dict[str, list[int]] = {}

    def count(name: str):
        return lambda _module, args: seen.setdefault(name, []).append(args[0].shape[1])

    def with_keys(name: str):
        def average(_module, args):
            seen[name][-1] = (seen[name][-1] + args[0].shape[1]) // 2

        return average

    hooks = []
    for name, module in model.named_modules():
        if name.endswith(f".{layer}"):
            asking = module.to_q if layer == "attn1" else module
            hooks.append(asking.register_forward_pre_hook(count(name)))
            if layer == "attn1":
                hooks.append(module.to_k.register_forward_pre_hook(with_keys(name)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def is_idle(handle) -> bool:
    """Whether nothing of a call of the denoiser is left in the handle's state."""
    state = handle._state
    left = [level.source_grid or level.plans for level in state.levels.values()]
    return not (state.running or state.in_flight or any(left))
