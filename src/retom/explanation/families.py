"""What each denoiser class is called with, as data: a row a class, which names every argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from retom.errors import UnsupportedModelError
from retom.explanation.arguments import Argument, Classes, GridSizes, Ids, Mask, Pair, PerPicture


@dataclass(frozen=True, slots=True)
class Inputs:
    """How one class of denoisers is called.

    Attributes:
        arguments: Every argument of a text-to-image call, by name.
        patch: Latents along a side of a token, outside of a UNet.
        only_if: Arguments that depend on an entry of the configuration being true.
        text_tokens: Length of the text where nothing says another.
        text_tokens_from: Why that length.
        text_parts: Entries of the configuration that add up to the only length that texts have;
            empty where texts have any length.
        pixels_per_latent: Pixels along a side of a latent where nothing says another: that of all
            published models of the class.
    """

    arguments: dict[str, Argument]
    patch: int = 2
    only_if: dict[str, str] = field(default_factory=dict[str, str])
    text_tokens: int = 77
    text_tokens_from: str = "CLIP's length, to which the pipeline pads"
    text_parts: tuple[str, ...] = ()
    pixels_per_latent: int = 8


_PADDED = "the default max_sequence_length of the pipeline, to which it pads"
_CHOSEN = "our choice: the pipeline does not pad the prompt"
_FEATURE_MAP = ("batch", "in_channels", "height", "width")
_PACKED: dict[str, Argument] = {
    "hidden_states": ("batch", "tokens", "in_channels"),
    "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
    "timestep": ("batch",),
}
_PACKED_WITH_IDS: dict[str, Argument] = {
    **_PACKED,
    "img_ids": Ids(3, "image"),
    "txt_ids": Ids(3, "text"),
}
_COGVIEW: dict[str, Argument] = {
    "hidden_states": _FEATURE_MAP,
    "encoder_hidden_states": ("batch", "text", "text_embed_dim"),
    "timestep": ("batch",),
    "original_size": ("batch", 2),
    "target_size": ("batch", 2),
    "crop_coords": ("batch", 2),
}

FAMILIES: dict[str, Inputs] = {
    "UNet2DConditionModel": Inputs(
        {
            "sample": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "text_width"),
            "added_cond_kwargs": {"text_embeds": ("batch", "pooled"), "time_ids": ("batch", 6)},
        },
        patch=1,
        only_if={"added_cond_kwargs": "pooled"},
    ),
    "PixArtTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "encoder_hidden_states": ("batch", "text", "caption_channels"),
            "encoder_attention_mask": ("batch", "text"),
            "timestep": ("batch",),
            "added_cond_kwargs": {"resolution": ("batch", 2), "aspect_ratio": ("batch", 1)},
        },
        text_tokens=120,
        text_tokens_from="the default max_sequence_length of PixArt-α's pipeline",
    ),
    "HunyuanDiT2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text_len", "cross_attention_dim"),
            "text_embedding_mask": Mask(("batch", "text_len")),
            "encoder_hidden_states_t5": ("batch", "text_len_t5", "cross_attention_dim_t5"),
            "text_embedding_mask_t5": Mask(("batch", "text_len_t5")),
            "image_meta_size": ("batch", 6),
            "style": Classes(("batch",)),
            "image_rotary_emb": Pair(("tokens", "attention_head_dim")),
        },
        text_tokens_from="the model's text_len and text_len_t5, to which the pipeline pads",
        text_parts=("text_len", "text_len_t5"),
    ),
    "SanaTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "encoder_hidden_states": ("batch", "text", "caption_channels"),
            "encoder_attention_mask": Mask(("batch", "text")),
            "timestep": ("batch",),
            "guidance": ("batch",),
        },
        patch=1,
        only_if={"guidance": "guidance_embeds"},
        text_tokens=300,
        text_tokens_from=_PADDED,
        pixels_per_latent=32,
    ),
    "SD3Transformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
            "pooled_projections": ("batch", "pooled_projection_dim"),
            "timestep": ("batch",),
        },
        text_tokens=333,
        text_tokens_from="CLIP's 77 and the pipeline's max_sequence_length of T5, 256",
    ),
    "AuraFlowTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "encoder_hidden_states": ("batch", "text", "joint_attention_dim"),
            "timestep": ("batch",),
        },
        text_tokens=256,
        text_tokens_from=_PADDED,
    ),
    "CogView3PlusTransformer2DModel": Inputs(_COGVIEW, text_tokens=224, text_tokens_from=_PADDED),
    "CogView4Transformer2DModel": Inputs(_COGVIEW, text_tokens=128, text_tokens_from=_CHOSEN),
    "FluxTransformer2DModel": Inputs(
        {
            **_PACKED_WITH_IDS,
            "guidance": ("batch",),
            "pooled_projections": ("batch", "pooled_projection_dim"),
        },
        only_if={"guidance": "guidance_embeds"},
        text_tokens=512,
        text_tokens_from=_PADDED,
    ),
    "Flux2Transformer2DModel": Inputs(
        {
            **_PACKED,
            "guidance": ("batch",),
            "img_ids": Ids(4, "image", batch=True),
            "txt_ids": Ids(4, "text", batch=True),
        },
        text_tokens=512,
        text_tokens_from=_PADDED,
    ),
    "ChromaTransformer2DModel": Inputs(
        {**_PACKED_WITH_IDS, "attention_mask": Mask(("batch", "sequence"))},
        text_tokens=512,
        text_tokens_from=_PADDED,
    ),
    "OvisImageTransformer2DModel": Inputs(
        _PACKED_WITH_IDS, text_tokens=256, text_tokens_from=_PADDED
    ),
    "LongCatImageTransformer2DModel": Inputs(
        _PACKED_WITH_IDS,
        text_tokens=512,
        text_tokens_from="the pipeline's tokenizer_max_length, to which it pads",
    ),
    "QwenImageTransformer2DModel": Inputs(
        {**_PACKED, "img_shapes": GridSizes()}, text_tokens=128, text_tokens_from=_CHOSEN
    ),
    "Krea2Transformer2DModel": Inputs(
        {
            "hidden_states": ("batch", "tokens", "in_channels"),
            "encoder_hidden_states": ("batch", "text", "num_text_layers", "text_hidden_dim"),
            "timestep": ("batch",),
            "position_ids": Ids(3, "sequence"),
            "encoder_attention_mask": Mask(("batch", "text")),
        },
        text_tokens=512,
        text_tokens_from=_PADDED,
    ),
    "Lumina2Transformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "cap_feat_dim"),
            "encoder_attention_mask": Mask(("batch", "text")),
        },
        text_tokens=256,
        text_tokens_from="the default max_sequence_length of the pipeline; a shorter prompt costs "
        "less, as the model drops the padding",
    ),
    "ZImageTransformer2DModel": Inputs(
        {
            "x": PerPicture(("in_channels", 1, "height", "width")),
            "t": ("batch",),
            "cap_feats": PerPicture(("text", "cap_feat_dim")),
        },
        text_tokens=128,
        text_tokens_from=_CHOSEN,
    ),
}
"""Rows by class name; :func:`family_of` finds the row of a subclass too."""


def family_of(denoiser: object) -> Inputs:
    """The row of a denoiser's class.

    Raises:
        UnsupportedModelError: There is none.
    """
    for cls in type(denoiser).__mro__:
        if cls.__name__ in FAMILIES:
            return FAMILIES[cls.__name__]
    raise UnsupportedModelError(
        f"retom.explain does not know how {type(denoiser).__name__} is called; it knows "
        f"{', '.join(FAMILIES)}. Pass the arguments of one call for one picture as inputs={{...}}."
    )
