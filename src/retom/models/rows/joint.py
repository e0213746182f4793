"""Image and text tokens side by side, each an argument of its own, joined inside attention."""

from __future__ import annotations

from retom.models.denoiser import DenoiserSpec
from retom.models.grids import Shapes
from retom.models.layout import Timestep
from retom.models.spec import Along, BlockSpec, Refusal

_IMAGE_ROTARY = (Along("image_rotary_emb", axis=0, batch=None),)
_HUNYUAN_IMAGE = BlockSpec(
    output=0, rotary=_IMAGE_ROTARY, masks=(Along("attention_mask", axis=3, at="first"),)
)

BLOCKS = {
    "JointTransformerBlock": BlockSpec(output=1),
    "AuraFlowJointTransformerBlock": BlockSpec(output=1),
    "AuraFlowSingleTransformerBlock": BlockSpec(at="last"),
    "CogView3PlusTransformerBlock": BlockSpec(output=0),
    "CogView4TransformerBlock": BlockSpec(output=0, rotary=_IMAGE_ROTARY),
    "GlmImageTransformerBlock": BlockSpec(
        output=0,
        rotary=_IMAGE_ROTARY,
        refuse=(
            Refusal(
                "kv_cache.mode",
                "it fills a cache with the tokens of a reference picture, which must not merge. "
                "Switch merging off for editing: handle.enabled = False.",
                value="write",
            ),
        ),
    ),
    "QwenImageTransformerBlock": BlockSpec(
        output=1,
        rotary=(Along("image_rotary_emb.0", axis=0, batch=None),),
        per_token=(Along("modulate_index", axis=1),),
    ),
    "HunyuanImageTransformerBlock": _HUNYUAN_IMAGE,
    "HunyuanImageSingleTransformerBlock": _HUNYUAN_IMAGE,
    "JoyImageTransformerBlock": BlockSpec(
        output=0, rotary=(Along("image_rotary_emb.0", axis=0, batch=None),)
    ),
    "JoyImageEditPlusTransformerBlock": BlockSpec(
        output=0,
        rotary=(Along("image_rotary_emb", axis=1),),
        masks=(Along("attention_mask", axis=3),),
    ),
    "HiDreamBlock": BlockSpec(
        output=0,
        rotary=(Along("image_rotary_emb", axis=1),),
        masks=(Along("hidden_states_masks", axis=1),),
    ),
}

DENOISERS = {
    "SD3Transformer2DModel": DenoiserSpec(family="Stable Diffusion 3, 3.5"),
    "AuraFlowTransformer2DModel": DenoiserSpec(timestep=Timestep(noisy=1.0), family="AuraFlow"),
    "CogView3PlusTransformer2DModel": DenoiserSpec(family="CogView3+"),
    "CogView4Transformer2DModel": DenoiserSpec(family="CogView4"),
    "GlmImageTransformer2DModel": DenoiserSpec(family="GLM-Image"),
    "QwenImageTransformer2DModel": DenoiserSpec(
        grid=Shapes(),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        unless=(
            "use_layer3d_rope",
            "with use_layer3d_rope (Qwen-Image-Layered) it draws several layers at once, each on a "
            "grid of its own, and retom would merge the first alone.",
        ),
        family="Qwen-Image",
    ),
    "HunyuanImageTransformer2DModel": DenoiserSpec(family="HunyuanImage 2.1"),
    "JoyImageEditTransformer3DModel": DenoiserSpec(family="JoyImage Edit"),
    "JoyImageEditPlusTransformer3DModel": DenoiserSpec(
        grid=Shapes("shape_list"), packed="hidden_states", family="JoyImage Edit Plus"
    ),
    "HiDreamImageTransformer2DModel": DenoiserSpec(
        timestep=Timestep("timesteps"), family="HiDream-I1"
    ),
}
