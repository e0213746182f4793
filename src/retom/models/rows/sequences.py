"""One sequence of image and text tokens through every block, rotary tables of each token."""

from __future__ import annotations

from retom.models.denoiser import DenoiserSpec
from retom.models.grids import FeatureMap, Ids, Shapes
from retom.models.layout import Timestep
from retom.models.spec import Along, BlockSpec, Refusal

BLOCKS = {
    "Lumina2TransformerBlock": BlockSpec(
        at="last",
        rotary=(Along("image_rotary_emb", axis=1, at="last"),),
        masks=(Along("attention_mask", axis=1, at="last"),),
        ends_with="attention_mask",
    ),
    "ZImageTransformerBlock": BlockSpec(
        tokens="x",
        rotary=(Along("freqs_cis", axis=1),),
        masks=(Along("attn_mask", axis=1),),
        refuse=(
            Refusal(
                "noise_mask",
                "in the mode with reference pictures the tokens stand in another order. Switch "
                "merging off for it: handle.enabled = False.",
            ),
        ),
    ),
    "BriaFibo2TransformerBlock": BlockSpec(
        tokens="x",
        at="last",
        rotary=(Along("freqs_cis", axis=1, at="last"),),
        per_token=(Along("noise_mask", axis=1, at="last"),),
        refuse=(
            Refusal(
                "attn_mask",
                "the prompts of a call are summed up in different numbers of tokens, which then "
                "stand after the picture's. Draw them one at a time.",
            ),
        ),
    ),
    "Ideogram4TransformerBlock": BlockSpec(
        at="last",
        rotary=(Along("image_rotary_emb", axis=1, at="last"),),
        masks=(
            Along("attention_mask", axis=-1, at="last"),
            Along("attention_mask", axis=-2, at="last"),
        ),
        per_token=(Along("adaln_input", axis=1, at="last"),),
    ),
    "QwenImage21TransformerBlock": BlockSpec(
        at="last",
        rotary=(Along("rotary_emb", axis=0, at="last", batch=None),),
        masks=(
            Along("attention_mask", axis=-1, at="last"),
            Along("key_valid", axis=1, at="last"),
        ),
        per_token=(Along("target_token_mask", axis=0, at="last", batch=None),),
        refuse=(
            Refusal(
                "attention_mask.mask_mod",
                "the mask of flex attention is in blocks of keys, of which some would go. Use "
                "QwenImage21AttnProcessor, the default.",
            ),
        ),
    ),
    "OmniGenBlock": BlockSpec(
        at="last",
        rotary=(Along("image_rotary_emb", axis=0, at="last", batch=None),),
        masks=(
            Along("attention_mask", axis=-1, at="last"),
            Along("attention_mask", axis=-2, at="last"),
        ),
    ),
    "ErnieImageSharedAdaLNBlock": BlockSpec(
        tokens="x",
        axis=0,
        rotary=(Along("rotary_pos_emb", axis=1),),
        masks=(Along("attention_mask", axis=3),),
        per_token=(Along("temb", axis=0, batch=1),),
    ),
    "Krea2TransformerBlock": BlockSpec(
        at="last",
        rotary=(Along("image_rotary_emb", axis=0, at="last", batch=None),),
        masks=(Along("attention_mask", axis=3, at="last"),),
    ),
}

DENOISERS = {
    "Lumina2Transformer2DModel": DenoiserSpec(
        timestep=Timestep(noisy=0.0, clean=1.0),
        without=("context_refiner",),
        family="Lumina-Image 2.0",
    ),
    "ZImageTransformer2DModel": DenoiserSpec(
        grid=FeatureMap("x", patch="all_patch_size"),
        timestep=Timestep("t", noisy=0.0, clean=1.0),
        without=("context_refiner", "siglip_refiner"),
        family="Z-Image",
    ),
    "BriaFibo2Transformer2DModel": DenoiserSpec(
        timestep=Timestep(noisy=1.0), context="context_latents", family="Bria Fibo 2"
    ),
    "Ideogram4Transformer2DModel": DenoiserSpec(
        grid=Ids("position_ids", last=True),
        timestep=Timestep(noisy=0.0, clean=1.0),
        packed="hidden_states",
        packed_last=True,
        family="Ideogram 4",
    ),
    "QwenImage21Transformer2DModel": DenoiserSpec(
        grid=Shapes(picture=-1),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        packed_last=True,
        family="Qwen-Image 2.1",
    ),
    "OmniGenTransformer2DModel": DenoiserSpec(
        timestep=Timestep(noisy=0.0, clean=1.0), family="OmniGen"
    ),
    "ErnieImageTransformer2DModel": DenoiserSpec(family="ERNIE-Image"),
    "Krea2Transformer2DModel": DenoiserSpec(
        grid=Ids("position_ids", row=1, text="encoder_hidden_states"),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        family="Krea 2",
    ),
}
