"""Flux and its relatives: packed tokens with ids, double blocks first, single blocks after."""

from __future__ import annotations

from retom.models.denoiser import DenoiserSpec
from retom.models.grids import Ids
from retom.models.layout import Timestep
from retom.models.spec import Along, BlockSpec, Refusal

_ROTARY = (Along("image_rotary_emb", axis=0, at="last", batch=None),)
_FLUX = BlockSpec(
    output=1,
    rotary=_ROTARY,
    refuse=(
        Refusal(
            "joint_attention_kwargs.ip_adapter_masks",
            "it would move the tokens that the masks of an IP-Adapter speak of. Use no "
            "ip_adapter_masks.",
        ),
    ),
)
_MASK = (Along("attention_mask", axis=1, at="last"),)
_FIBO_MASK = (
    Along("joint_attention_kwargs.attention_mask", axis=-1, at="last"),
    Along("joint_attention_kwargs.attention_mask", axis=-2, at="last"),
)
_NO_CACHE = (
    Refusal(
        "joint_attention_kwargs.kv_cache_mode",
        "a cache of reference tokens has places of its own among the keys. Use the pipeline "
        "without a KV cache.",
    ),
)


def _flux(family: str, noisy: float = 1.0) -> DenoiserSpec:
    return DenoiserSpec(
        grid=Ids(), timestep=Timestep(noisy=noisy), packed="hidden_states", family=family
    )


BLOCKS = {
    "FluxTransformerBlock": _FLUX,
    "FluxSingleTransformerBlock": _FLUX,
    "Flux2TransformerBlock": BlockSpec(output=1, rotary=_ROTARY, refuse=_NO_CACHE),
    "Flux2SingleTransformerBlock": BlockSpec(at="last", rotary=_ROTARY, refuse=_NO_CACHE),
    "Flux3ModeTransformerBlock": BlockSpec(rotary=_ROTARY, per_token=(Along("temb_mod", axis=1),)),
    "Flux3SingleTransformerBlock": BlockSpec(
        output=1, rotary=_ROTARY, per_token=(Along("temb_mod", axis=1),)
    ),
    "ChromaTransformerBlock": BlockSpec(output=1, rotary=_ROTARY, masks=_MASK),
    "ChromaSingleTransformerBlock": BlockSpec(at="last", rotary=_ROTARY, masks=_MASK),
    "BriaTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
    "BriaSingleTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
    "BriaFiboTransformerBlock": BlockSpec(output=1, rotary=_ROTARY, masks=_FIBO_MASK),
    "BriaFiboSingleTransformerBlock": BlockSpec(at="last", rotary=_ROTARY, masks=_FIBO_MASK),
    "OvisImageTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
    "OvisImageSingleTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
    "LongCatImageTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
    "LongCatImageSingleTransformerBlock": BlockSpec(output=1, rotary=_ROTARY),
}

DENOISERS = {
    "FluxTransformer2DModel": _flux("Flux, Flux Kontext"),
    "Flux2Transformer2DModel": _flux("Flux 2"),
    "Flux3Transformer2DModel": DenoiserSpec(
        grid=Ids(),
        timestep=Timestep(noisy=1.0),
        packed="hidden_states",
        without=("txt_mode_blocks", "mode_blocks.image_cond"),
        family="Flux 3",
    ),
    "ChromaTransformer2DModel": _flux("Chroma"),
    "BriaTransformer2DModel": _flux("Bria", noisy=1000.0),
    "BriaFiboTransformer2DModel": _flux("Bria Fibo", noisy=1000.0),
    "OvisImageTransformer2DModel": _flux("Ovis-Image"),
    "LongCatImageTransformer2DModel": _flux("LongCat-Image"),
}
