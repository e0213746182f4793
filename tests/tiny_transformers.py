"""A tiny transformer of every family, with the arguments of one call of it. Milliseconds each.

Grids are in tokens. Masks are random where the model takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

TEXT = 5
WIDTH = 16
"""Length and width of text states."""

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How to build a family's transformer, and to call it.

    Attributes:
        build: Makes the model.
        call: (height, width, batch) in tokens to keyword arguments.
        blocks: Blocks that merge.
        unmerged: Blocks that run un-merged.
        odd: Whether the odd grid 7x5 is taken too.
        shares_plan: Whether the pictures of a batch share one plan.
    """

    build: Callable[[], nn.Module]
    call: Callable[[int, int, int], Arguments]
    blocks: int
    unmerged: int = 0
    shares_plan: bool = False
    odd: bool = True


FAMILIES: dict[str, Family] = {}


VERSION = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
IS_OLD = VERSION < (0, 42)
"""Whether diffusers is older than the one that the families are written for."""


def needs_new(what: str) -> None:
    """Skip a test that an old diffusers cannot run, with merging or without."""
    if IS_OLD:
        pytest.skip(f"diffusers {diffusers.__version__} has no {what}")


def _model(name: str, **options: Any) -> nn.Module:
    if not hasattr(diffusers, name):
        needs_new(name)
    torch.manual_seed(0)
    return getattr(diffusers, name)(**options).eval()


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text(batch: int, *, seed: int = 2, length: int = TEXT) -> torch.Tensor:
    return draw(batch, length, WIDTH, seed=seed)


def text_mask(batch: int) -> torch.Tensor:
    """The first token and some of the others, another number for every picture."""
    mask = torch.ones(batch, TEXT, dtype=torch.bool)
    for item in range(batch):
        mask[item, TEXT - 1 - item :] = False
    return mask


def ids(height: int, width: int, columns: int = 3, row: int = 1) -> torch.Tensor:
    grid = torch.zeros(height, width, columns)
    grid[..., row] = torch.arange(height)[:, None]
    grid[..., row + 1] = torch.arange(width)[None]
    return grid.reshape(-1, columns)


def steps(batch: int, value: float = 0.5) -> torch.Tensor:
    return torch.full((batch,), float(value))


# ---- image tokens alone, text by cross-attention


def _pixart(h, w, b):
    mask = text_mask(b)
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "encoder_attention_mask": mask,
        "timestep": steps(b, 500),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }


def _pixart_masked(h, w, b):
    image_mask = torch.rand(b, h * w, generator=torch.Generator().manual_seed(4)) > 0.2
    return {**_pixart(h, w, b), "attention_mask": image_mask}


def pixart():
    return _model(
        "PixArtTransformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=16,
        use_additional_conditions=False,
    )


FAMILIES["pixart"] = Family(pixart, _pixart, 2)
FAMILIES["pixart masked"] = Family(pixart, _pixart_masked, 2)


def dit():
    return _model(
        "DiTTransformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        sample_size=16,
        num_embeds_ada_norm=10,
        norm_num_groups=2,
    )


def _dit(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": torch.full((b,), 5),
        "class_labels": torch.arange(b),
    }


# DiT's positions are those of its default size, and its output is taken for a square.
FAMILIES["dit"] = Family(dit, lambda h, w, b: _dit(8, 8, b), 2, odd=False)


def hunyuan_dit():
    return _model(
        "HunyuanDiT2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        hidden_size=16,
        num_layers=6,
        mlp_ratio=2.0,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=4,
        text_len=TEXT,
        text_len_t5=TEXT,
        activation_fn="gelu-approximate",
    )


def _hunyuan_dit(h, w, b):
    angles = draw(h * w, 8, seed=5)
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b, 500),
        "encoder_hidden_states": draw(b, TEXT, 8, seed=2),
        "text_embedding_mask": text_mask(b).long(),
        "encoder_hidden_states_t5": draw(b, TEXT, 8, seed=3),
        "text_embedding_mask_t5": text_mask(b).long(),
        "image_meta_size": torch.full((b, 6), 64.0),
        "style": torch.zeros(b, dtype=torch.long),
        "image_rotary_emb": (angles.cos(), angles.sin()),
    }


FAMILIES["hunyuan-dit"] = Family(hunyuan_dit, _hunyuan_dit, 4, unmerged=2, shares_plan=True)


def lumina_next():
    return _model(
        "LuminaNextDiT2DModel",
        sample_size=16,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=WIDTH,
        learn_sigma=True,
    )


def _lumina_next(h, w, b):
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b),
        "encoder_hidden_states": text(b),
        "encoder_mask": text_mask(b),
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(16, 384, 384),
        "cross_attention_kwargs": {},
    }


FAMILIES["lumina-next"] = Family(lumina_next, _lumina_next, 2)


def prx():
    return _model(
        "PRXTransformer2DModel",
        in_channels=4,
        patch_size=2,
        context_in_dim=WIDTH,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[4, 4],
    )


def _prx(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b),
        "encoder_hidden_states": text(b),
        "attention_mask": text_mask(b),
    }


FAMILIES["prx"] = Family(prx, _prx, 2)


def nucleus():
    return _model(
        "NucleusMoEImageTransformer2DModel",
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        moe_enabled=False,
    )


def _shaped(h, w, b):
    return {
        "hidden_states": draw(b, h * w, 16),
        "encoder_hidden_states": text(b),
        "encoder_hidden_states_mask": text_mask(b),
        "timestep": steps(b),
    }


def _nucleus(h, w, b):
    return {**_shaped(h, w, b), "img_shapes": [(1, h, w)] * b}


FAMILIES["nucleus"] = Family(nucleus, _nucleus, 2, shares_plan=True)


def kandinsky5():
    return _model(
        "Kandinsky5Transformer3DModel",
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
    )


def _kandinsky5(h, w, b):
    return {
        "hidden_states": draw(b, 1, 2 * h, 2 * w, 4),
        "encoder_hidden_states": text(b),
        "timestep": steps(b, 500),
        "pooled_projections": draw(b, 8, seed=3),
        "visual_rope_pos": [torch.arange(1), torch.arange(h), torch.arange(w)],
        "text_rope_pos": torch.arange(TEXT),
    }


FAMILIES["kandinsky5"] = Family(kandinsky5, _kandinsky5, 2)


def sana():
    return _model(
        "SanaTransformer2DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=16,
    )


def sana_call(h, w, b):
    return {
        "hidden_states": draw(b, 4, h, w),
        "encoder_hidden_states": text(b),
        "timestep": steps(b, 500),
    }


# ---- image and text side by side


def sd3(**options):
    return _model(
        "SD3Transformer2DModel",
        **{
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": 8,
            "out_channels": 4,
            "pos_embed_max_size": 24,
            **options,
        },
    )


def _sd3(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "pooled_projections": draw(b, 8, seed=3),
        "timestep": steps(b, 500),
    }


FAMILIES["sd3"] = Family(sd3, _sd3, 3)
FAMILIES["sd3.5"] = Family(lambda: sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm"), _sd3, 3)


def auraflow():
    return _model(
        "AuraFlowTransformer2DModel",
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=256,
    )


def _auraflow(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "timestep": steps(b),
    }


FAMILIES["auraflow"] = Family(auraflow, _auraflow, 4)


def _cogview_options():
    return {
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "text_embed_dim": WIDTH,
        "time_embed_dim": 8,
        "condition_dim": 4,
    }


def cogview3():
    return _model(
        "CogView3PlusTransformer2DModel",
        **_cogview_options(),
        pos_embed_max_size=16,
        sample_size=16,
    )


def cogview4():
    return _model(
        "CogView4Transformer2DModel",
        **_cogview_options(),
        sample_size=16,
        rope_axes_dim=(16, 16),
    )


def _cogview(h, w, b):
    size = torch.full((b, 2), 64.0)
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "timestep": steps(b, 500),
        "original_size": size,
        "target_size": size,
        "crop_coords": torch.zeros(b, 2),
    }


FAMILIES["cogview3+"] = Family(cogview3, _cogview, 2)
FAMILIES["cogview4"] = Family(cogview4, _cogview, 2, shares_plan=True)


def glm():
    return _model(
        "GlmImageTransformer2DModel",
        **_cogview_options(),
        prior_vq_quantizer_codebook_size=8,
    )


def _glm(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "prior_token_id": torch.arange(h * w).remainder(8).expand(b, -1),
        "prior_token_drop": torch.zeros(b, h * w, dtype=torch.bool),
        "timestep": steps(b, 500),
        "target_size": torch.full((b, 2), 64.0),
        "crop_coords": torch.zeros(b, 2),
    }


FAMILIES["glm-image"] = Family(glm, _glm, 2, shares_plan=True)


def qwen(**options):
    if "zero_cond_t" in options:
        needs_new("zero_cond_t")
    return _model(
        "QwenImageTransformer2DModel",
        **{
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (8, 4, 4),
            **options,
        },
    )


def _qwen(h, w, b):
    lengths = {"txt_seq_lens": [TEXT] * b} if VERSION < (0, 37) else {}
    return {**_shaped(h, w, b), "img_shapes": [[(1, h, w)]] * b, **lengths}


def _qwen_edit(h, w, b):
    arguments = _shaped(h, w, b)
    arguments["hidden_states"] = draw(b, h * w + 12, 16)
    return {**arguments, "img_shapes": [[(1, h, w), (1, 3, 4)]] * b}


FAMILIES["qwen"] = Family(qwen, _qwen, 2, shares_plan=True)
FAMILIES["qwen edit"] = Family(lambda: qwen(zero_cond_t=True), _qwen_edit, 2, shares_plan=True)


def hunyuan_image():
    return _model(
        "HunyuanImageTransformer2DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=False,
        text_embed_dim=WIDTH,
        rope_axes_dim=(4, 4),
    )


def _hunyuan_image(h, w, b):
    return {
        "hidden_states": draw(b, 4, h, w),
        "timestep": steps(b, 500),
        "encoder_hidden_states": text(b),
        "encoder_attention_mask": text_mask(b),
    }


FAMILIES["hunyuan-image"] = Family(hunyuan_image, _hunyuan_image, 4, shares_plan=True)


def hidream():
    return _model(
        "HiDreamImageTransformer2DModel",
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=8,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(16, 16),
        llama_layers=[0, 1],
        force_inference_output=True,
    )


def _hidream(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timesteps": steps(b, 500),
        "encoder_hidden_states_t5": text(b),
        "encoder_hidden_states_llama3": draw(2, b, TEXT, WIDTH, seed=3),
        "pooled_embeds": draw(b, 8, seed=4),
    }


FAMILIES["hidream"] = Family(hidream, _hidream, 2)


def joyimage(name="JoyImageEditTransformer3DModel"):
    return _model(
        name,
        patch_size=[1, 2, 2],
        in_channels=4,
        hidden_size=24,
        num_attention_heads=2,
        text_dim=WIDTH,
        mlp_width_ratio=2.0,
        num_layers=2,
        rope_dim_list=[4, 4, 4],
    )


def _joyimage(h, w, b):
    """A reference of the picture's size stands before it, and comes after it as tokens."""
    return {
        "hidden_states": draw(b, 2, 4, 1, 2 * h, 2 * w),
        "encoder_hidden_states": text(b),
        "timestep": steps(b, 500),
    }


FAMILIES["joyimage"] = Family(joyimage, _joyimage, 2, shares_plan=True)


def _joyimage_plus(h, w, b):
    """References of other sizes, one for each picture, and what is left is padded."""
    references = [(1, 3, 4), (1, 2, 3), (1, 1, 2)]
    return {
        "hidden_states": draw(b, h * w + 12, 4, 1, 2, 2),
        "encoder_hidden_states": text(b),
        "encoder_hidden_states_mask": text_mask(b).float(),
        "shape_list": [[(1, h, w), references[item]] for item in range(b)],
        "timestep": steps(b, 500),
    }


FAMILIES["joyimage plus"] = Family(
    lambda: joyimage("JoyImageEditPlusTransformer3DModel"), _joyimage_plus, 2
)


# ---- Flux and its relatives


def _packed_options(**options):
    return {
        "patch_size": 1,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (2, 2, 4),
        **options,
    }


def _packed(h, w, b):
    return {
        "hidden_states": draw(b, h * w, 4),
        "encoder_hidden_states": text(b),
        "timestep": steps(b),
        "img_ids": ids(h, w),
        "txt_ids": torch.zeros(TEXT, 3),
    }


def flux(**options):
    options = {"pooled_projection_dim": 8, **options}
    return _model("FluxTransformer2DModel", **_packed_options(**options))


def _flux(h, w, b):
    return {**_packed(h, w, b), "pooled_projections": draw(b, 8, seed=3)}


def _kontext(h, w, b):
    """A reference picture of 3x4 tokens follows."""
    reference = ids(3, 4)
    reference[:, 0] = 1
    arguments = _flux(h, w, b)
    return {
        **arguments,
        "hidden_states": draw(b, h * w + 12, 4),
        "img_ids": torch.cat([arguments["img_ids"], reference]),
    }


FAMILIES["flux"] = Family(flux, _flux, 4, shares_plan=True)
FAMILIES["flux kontext"] = Family(flux, _kontext, 4, shares_plan=True)


def flux2():
    return _model(
        "Flux2Transformer2DModel",
        **_packed_options(axes_dims_rope=(2, 2, 2, 2), timestep_guidance_channels=8),
    )


def _flux2(h, w, b):
    reference = ids(3, 4, 4)
    reference[:, 0] = 10
    return {
        **_packed(h, w, b),
        "hidden_states": draw(b, h * w + 12, 4),
        "img_ids": torch.cat([ids(h, w, 4), reference]),
        "txt_ids": ids(1, TEXT, 4, row=2),
        "guidance": steps(b, 4.0),
    }


FAMILIES["flux2"] = Family(flux2, _flux2, 4, shares_plan=True)


def flux3():
    options = _packed_options(axes_dims_rope=(2, 2, 2, 2), cond_in_channels=4)
    options.pop("patch_size")
    return _model("Flux3Transformer2DModel", **options, timestep_channels=8)


def _flux3(h, w, b):
    return {
        **_packed(h, w, b),
        "img_ids": ids(h, w, 4),
        "txt_ids": ids(1, TEXT, 4, row=2),
        "image_cond_hidden_states": draw(b, 12, 4, seed=5),
        "image_cond_ids": ids(3, 4, 4),
    }


FAMILIES["flux3"] = Family(flux3, _flux3, 4, shares_plan=True)


def chroma():
    return _model(
        "ChromaTransformer2DModel",
        **_packed_options(
            approximator_num_channels=8, approximator_hidden_dim=8, approximator_layers=1
        ),
    )


def _chroma(h, w, b):
    mask = torch.cat([text_mask(b), torch.ones(b, h * w, dtype=torch.bool)], dim=1)
    return {**_packed(h, w, b), "attention_mask": mask}


FAMILIES["chroma"] = Family(chroma, _chroma, 4, shares_plan=True)


def bria():
    return _model("BriaTransformer2DModel", **_packed_options(axes_dims_rope=[2, 2, 4]))


def _bria(h, w, b):
    return {**_packed(h, w, b), "timestep": steps(b, 500)}


FAMILIES["bria"] = Family(bria, _bria, 4, shares_plan=True)


def bria_fibo():
    return _model(
        "BriaFiboTransformer2DModel",
        **_packed_options(axes_dims_rope=[2, 2, 4], text_encoder_dim=8),
    )


def _bria_fibo(h, w, b):
    keep = torch.cat([text_mask(b), torch.ones(b, h * w, dtype=torch.bool)], dim=1)
    mask = (keep[:, None, :] & keep[:, :, None])[:, None]
    mask = torch.zeros(mask.shape).masked_fill(~mask, -10000.0)
    return {
        **_packed(h, w, b),
        "timestep": steps(b, 500),
        "text_encoder_layers": [draw(b, TEXT, 8, seed=6 + n) for n in range(4)],
        "joint_attention_kwargs": {"attention_mask": mask},
    }


FAMILIES["bria fibo"] = Family(bria_fibo, _bria_fibo, 4, shares_plan=True)


def ovis():
    return _model("OvisImageTransformer2DModel", **_packed_options(out_channels=4))


FAMILIES["ovis"] = Family(ovis, _packed, 4, shares_plan=True)


def longcat():
    return _model(
        "LongCatImageTransformer2DModel",
        **_packed_options(axes_dims_rope=[2, 2, 4], pooled_projection_dim=8),
    )


FAMILIES["longcat"] = Family(longcat, _packed, 4, shares_plan=True)


# ---- one sequence


def lumina2():
    return _model(
        "Lumina2Transformer2DModel",
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(64, 32, 32),
        cap_feat_dim=WIDTH,
    )


def _lumina2(h, w, b):
    mask = torch.ones(b, TEXT, dtype=torch.bool)
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b),
        "encoder_hidden_states": text(b),
        "encoder_attention_mask": mask,
    }


FAMILIES["lumina2"] = Family(lumina2, _lumina2, 3)
FAMILIES["lumina2 uneven"] = Family(
    lumina2, lambda h, w, b: {**_lumina2(h, w, b), "encoder_attention_mask": text_mask(b)}, 3
)


def z_image():
    return _model(
        "ZImageTransformer2DModel",
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[128, 32, 32],
    )


def _z_image(h, w, b):
    return {
        "x": list(draw(b, 4, 1, 2 * h, 2 * w)),
        "t": steps(b),
        "cap_feats": [draw(TEXT + 30 * n, WIDTH, seed=2 + n) for n in range(b)],
    }


FAMILIES["z-image"] = Family(z_image, _z_image, 3)


def omnigen():
    return _model(
        "OmniGenTransformer2DModel",
        in_channels=4,
        patch_size=2,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        num_layers=2,
        pad_token_id=0,
        vocab_size=32,
        max_position_embeddings=256,
        original_max_position_embeddings=256,
        rope_scaling={"short_factor": [1.0] * 4, "long_factor": [1.0] * 4},
        pos_embed_max_size=16,
        time_step_dim=8,
    )


def _omnigen(h, w, b):
    total = TEXT + 1 + h * w
    mask = torch.ones(b, total, total)
    mask[:, :TEXT, :TEXT] = torch.tril(mask[:, :TEXT, :TEXT])
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b),
        "input_ids": torch.arange(TEXT).expand(b, -1),
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": mask,
        "position_ids": torch.arange(total).expand(b, -1),
    }


FAMILIES["omnigen"] = Family(omnigen, _omnigen, 2, shares_plan=True)


def ernie():
    return _model(
        "ErnieImageTransformer2DModel",
        hidden_size=16,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=16,
        in_channels=4,
        out_channels=4,
        patch_size=1,
        text_in_dim=WIDTH,
        rope_axes_dim=(2, 2, 4),
    )


def _ernie(h, w, b):
    return {
        "hidden_states": draw(b, 4, h, w),
        "timestep": steps(b, 500),
        "text_bth": text(b),
        "text_lens": text_mask(b).sum(dim=1),
    }


FAMILIES["ernie"] = Family(ernie, _ernie, 2)


def krea2():
    return _model(
        "Krea2Transformer2DModel",
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        timestep_embed_dim=8,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )


def _krea2(h, w, b):
    return {
        "hidden_states": draw(b, h * w, 4),
        "encoder_hidden_states": draw(b, TEXT, 2, WIDTH, seed=2),
        "timestep": steps(b),
        "position_ids": torch.cat([torch.zeros(TEXT, 3), ids(h, w)]),
        "encoder_attention_mask": text_mask(b),
    }


FAMILIES["krea2"] = Family(krea2, _krea2, 2, shares_plan=True)


def bria_fibo2():
    return _model(
        "BriaFibo2Transformer2DModel",
        in_channels=4,
        dim=24,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=WIDTH,
        injection_layer_ids=(1,),
        perceiver_num_layers=1,
        min_num_gist_tokens=4,
        max_num_gist_tokens=8,
        gist_step=4,
        gist_min_text_len=8,
        gist_max_text_len=16,
        axes_dims=(4, 4, 4),
        axes_lens=(16, 16, 16),
    )


def _bria_fibo2(h, w, b):
    return {
        "hidden_states": draw(b, 4, 2 * h, 2 * w),
        "timestep": steps(b),
        "encoder_hidden_states": draw(b, 2, TEXT, WIDTH, seed=2),
        "encoder_attention_mask": text_mask(b),
    }


def _bria_fibo2_edit(h, w, b):
    return {**_bria_fibo2(h, w, b), "context_latents": [draw(b, 4, 6, 8), draw(b, 4, 4, 4)]}


FAMILIES["bria fibo 2"] = Family(bria_fibo2, _bria_fibo2, 3)
FAMILIES["bria fibo 2 edit"] = Family(bria_fibo2, _bria_fibo2_edit, 3)


def ideogram4():
    return _model(
        "Ideogram4Transformer2DModel",
        in_channels=4,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        intermediate_size=16,
        adaln_dim=8,
        llm_features_dim=WIDTH,
        rope_theta=100,
        mrope_section=(2, 2, 2),
    )


def _ideogram4(h, w, b):
    """Padding, text and picture, in this order, as the pipeline lays them out."""
    lengths = [TEXT - item for item in range(b)]
    positions = torch.zeros(b, TEXT + h * w, 3, dtype=torch.long)
    positions[:, TEXT:] = ids(h, w).long() + 65536
    segments = torch.full((b, TEXT + h * w), -1)
    indicator = torch.zeros(b, TEXT + h * w, dtype=torch.long)
    for item, length in enumerate(lengths):
        positions[item, TEXT - length : TEXT] = torch.arange(length)[:, None]
        segments[item, TEXT - length :] = 1
        indicator[item, TEXT - length : TEXT] = 3
        indicator[item, TEXT:] = 2
    return {
        "hidden_states": draw(b, TEXT + h * w, 4),
        "timestep": steps(b),
        "encoder_hidden_states": text(b, length=TEXT + h * w),
        "position_ids": positions,
        "segment_ids": segments,
        "indicator": indicator,
    }


FAMILIES["ideogram4"] = Family(ideogram4, _ideogram4, 2)


def qwen21():
    return _model(
        "QwenImage21Transformer2DModel",
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        mlp_ratio=2,
        axes_dims_rope=(8, 4, 4),
    )


def qwen21_call(h, w, b):
    """Text, a reference of 4x2 tokens in two slots, text, and the picture: four tokens a slot."""
    slots = torch.tensor([False, False, True, True, False] + [True] * (h * w // 4))
    mask = torch.ones(b, TEXT, dtype=torch.bool)
    mask[1:, TEXT - 1] = False
    return {
        "hidden_states": draw(b, 8 + h * w, 16),
        "encoder_hidden_states": text(b),
        "encoder_hidden_states_mask": mask,
        "timestep": steps(b),
        "img_shapes": [[(1, 4, 2), (1, h, w)]] * b,
        "img_mask": slots.expand(b, -1),
    }


# A slot of its text encoder stands for 2x2 tokens.
FAMILIES["qwen 2.1"] = Family(qwen21, qwen21_call, 2, shares_plan=True, odd=False)
