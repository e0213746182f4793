"""Tiny ControlNets of transformers, and tiny transformers called with what a ControlNet gives."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny_transformers import FAMILIES, TEXT, WIDTH, Family, _model, draw

CONTROLNETS: dict[str, Family] = {}
"""Families as in ``tiny_transformers``, for the proofs of their rows."""


# ---- denoisers with residuals of a ControlNet


def residuals(count: int, *shape: int, seed: int = 20) -> list[torch.Tensor]:
    """One tensor of the tokens' shape for each block of a ControlNet."""
    return [draw(*shape, seed=seed + number) for number in range(count)]


def _both(h, w, b):
    tokens = (b, h * w, 16)
    return {
        "controlnet_block_samples": residuals(2, *tokens),
        "controlnet_single_block_samples": residuals(1, *tokens, seed=30),
    }


def _z_image(h, w, b):
    rows = [-(-length // 32) * 32 for length in (h * w, TEXT + 30 * (b - 1))]
    return {"controlnet_block_samples": {0: draw(b, sum(rows), 32, seed=20)}}


CONTROLLED = {
    "sd3": lambda h, w, b: {"block_controlnet_hidden_states": residuals(2, b, h * w, 16)},
    "flux": _both,
    "chroma": _both,
    # Bria's single blocks add theirs where text would stand, and no shape of them fits.
    "bria": lambda h, w, b: {"controlnet_block_samples": residuals(2, b, h * w, 16)},
    "qwen": lambda h, w, b: {"controlnet_block_samples": residuals(2, b, h * w, 32)},
    "hunyuan-dit": lambda h, w, b: {"controlnet_block_samples": residuals(2, b, h * w, 16)},
    "z-image": _z_image,
}
"""What a ControlNet adds to a call of each family, for (height, width, batch) in tokens."""


def _takes_a_list_of_its_own(model, args, kwargs):
    """Hunyuan-DiT empties the list that it is given, and a proof calls it several times."""
    samples = kwargs["controlnet_block_samples"]
    return args, {**kwargs, "controlnet_block_samples": [*samples]}


def controlled(name: str) -> Family:
    """A family called with residuals."""
    family = FAMILIES[name]

    def build():
        model = family.build()
        if name == "hunyuan-dit":
            model.register_forward_pre_hook(_takes_a_list_of_its_own, with_kwargs=True)
        return model

    def call(h, w, b):
        return {**family.call(h, w, b), **CONTROLLED[name](h, w, b)}

    return replace(family, build=build, call=call)


for _name in CONTROLLED:
    CONTROLNETS[f"{_name} with a controlnet"] = controlled(_name)


# ---- ControlNets themselves


def sd3(**options):
    return _model(
        "SD3ControlNetModel",
        **{
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 8,
            "out_channels": 4,
            "pos_embed_max_size": 24,
            **options,
        },
    )


def _condition(h, w, b):
    return {"controlnet_cond": draw(b, 4, 2 * h, 2 * w, seed=7)}


def _sd3(h, w, b):
    return {**FAMILIES["sd3"].call(h, w, b), **_condition(h, w, b)}


def _sd35(h, w, b):
    arguments = {**_sd3(h, w, b), "hidden_states": draw(b, h * w, 16)}
    del arguments["encoder_hidden_states"]
    return arguments


def sd35():
    """That of SD 3.5 8b: no text, and tokens that its caller has embedded."""
    return sd3(joint_attention_dim=None, use_pos_embed=False)


CONTROLNETS["sd3 controlnet"] = Family(sd3, _sd3, 2)
CONTROLNETS["sd3.5 8b controlnet"] = Family(sd35, _sd35, 2)


def flux(**options):
    return _model(
        "FluxControlNetModel",
        **{
            "patch_size": 1,
            "in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": 8,
            "axes_dims_rope": [2, 2, 4],
            **options,
        },
    )


def _flux(h, w, b):
    return {
        **FAMILIES["flux"].call(h, w, b),
        "controlnet_cond": draw(b, h * w, 4, seed=7),
        "controlnet_mode": torch.ones(b, 1, dtype=torch.long),
    }


CONTROLNETS["flux controlnet"] = Family(lambda: flux(num_mode=3), _flux, 3, shares_plan=True)


def qwen():
    return _model(
        "QwenImageControlNetModel",
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )


def _qwen(h, w, b):
    arguments = {**FAMILIES["qwen"].call(h, w, b), "controlnet_cond": draw(b, h * w, 16, seed=7)}
    return {**arguments, "img_shapes": [(1, h, w)] * b}


CONTROLNETS["qwen controlnet"] = Family(qwen, _qwen, 2, shares_plan=True)


def hunyuan_dit():
    return _model(
        "HunyuanDiT2DControlNetModel",
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        hidden_size=16,
        transformer_num_layers=6,
        mlp_ratio=2.0,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=4,
        text_len=TEXT,
        text_len_t5=TEXT,
    )


def _hunyuan_dit(h, w, b):
    return {**FAMILIES["hunyuan-dit"].call(h, w, b), **_condition(h, w, b)}


CONTROLNETS["hunyuan-dit controlnet"] = Family(hunyuan_dit, _hunyuan_dit, 2, shares_plan=True)


def sana():
    return _model(
        "SanaControlNetModel",
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


def z_image():
    return _model(
        "ZImageControlNetModel",
        control_layers_places=[0, 1],
        control_refiner_layers_places=[0],
        control_in_dim=4,
        add_control_noise_refiner="control_layers",
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
