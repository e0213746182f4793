"""Image tokens alone go through the block; text enters by cross-attention or as keys and values."""

from __future__ import annotations

from retom.models.basic import BASIC_BLOCK
from retom.models.denoiser import DenoiserSpec
from retom.models.grids import FeatureMap, Shapes
from retom.models.layout import Timestep
from retom.models.spec import Along, BlockSpec, Refusal

BLOCKS = {
    "BasicTransformerBlock": BASIC_BLOCK,
    "HunyuanDiTBlock": BlockSpec(
        rotary=(Along("image_rotary_emb", axis=0, batch=None),),
        unmerged_if=(
            "skip_linear",
            "a long skip connection replaces their input, so they are not residual in it.",
        ),
    ),
    "LuminaNextDiTBlock": BlockSpec(
        rotary=(Along("image_rotary_emb", axis=1),),
        masks=(Along("attention_mask", axis=1),),
    ),
    "PRXBlock": BlockSpec(rotary=(Along("image_rotary_emb", axis=2),)),
    "NucleusMoEImageTransformerBlock": BlockSpec(
        rotary=(Along("image_rotary_emb.0", axis=0, batch=None),),
        masks=(Along("attention_kwargs.attention_mask", axis=1),),
    ),
    "Kandinsky5TransformerDecoderBlock": BlockSpec(
        tokens="visual_embed",
        rotary=(Along("rope", axis=1),),
        refuse=(
            Refusal(
                "sparse_params",
                "sparse attention (NABLA) works on blocks of tokens in an order of its own. Use "
                "full attention.",
            ),
        ),
    ),
}

DENOISERS = {
    "DiTTransformer2DModel": DenoiserSpec(family="DiT"),
    "PixArtTransformer2DModel": DenoiserSpec(family="PixArt-α, PixArt-Σ"),
    "HunyuanDiT2DModel": DenoiserSpec(family="Hunyuan-DiT"),
    "LuminaNextDiT2DModel": DenoiserSpec(
        timestep=Timestep(noisy=0.0, clean=1.0), family="Lumina-Next"
    ),
    "PRXTransformer2DModel": DenoiserSpec(timestep=Timestep(noisy=1.0), family="PRX"),
    "NucleusMoEImageTransformer2DModel": DenoiserSpec(
        grid=Shapes(),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        family="Nucleus-Image",
    ),
    "Kandinsky5Transformer3DModel": DenoiserSpec(
        grid=FeatureMap(channels_last=True), family="Kandinsky 5 Image"
    ),
    # Sana-Sprint hands over the sine's share of sine and cosine, 0 to 1.
    "SanaTransformer2DModel": DenoiserSpec(distilled_timestep=Timestep(noisy=1.0), family="Sana"),
}
