"""What each denoiser class is called with, as data: a row a class, which names every argument."""

from __future__ import annotations

from retom.explanation.arguments import (
    Argument,
    Classes,
    GridSizes,
    Ids,
    Inputs,
    Mask,
    Pair,
    PerBlock,
    PerPicture,
    Range,
    Ranges,
    Rotations,
)

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
    "BriaTransformer2DModel": Inputs(
        {**_PACKED_WITH_IDS, "guidance": ("batch",)},
        patch=1,
        only_if={"guidance": "guidance_embeds"},
        text_tokens=128,
        text_tokens_from=_PADDED,
        pixels_per_latent=16,
        packs=True,
    ),
    "BriaFiboTransformer2DModel": Inputs(
        {
            **_PACKED_WITH_IDS,
            "text_encoder_layers": PerBlock(
                ("batch", "text", "text_encoder_dim"), ("num_layers", "num_single_layers")
            ),
            "guidance": ("batch",),
            "joint_attention_kwargs": {"attention_mask": ("batch", 1, "sequence", "sequence")},
        },
        patch=1,
        only_if={"guidance": "guidance_embeds"},
        text_tokens=1024,
        text_tokens_from="our choice: prompts are long, and the pipeline does not pad one alone",
        pixels_per_latent=16,
    ),
    "NucleusMoEImageTransformer2DModel": Inputs(
        {**_PACKED, "img_shapes": GridSizes(listed=False)},
        text_tokens=128,
        text_tokens_from=_CHOSEN,
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
    "HunyuanImageTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "timestep_r": ("batch",),
            "encoder_hidden_states": ("batch", "text", "text_embed_dim"),
            "encoder_attention_mask": Mask(("batch", "text")),
            "guidance": ("batch",),
        },
        patch=1,
        only_if={"guidance": "guidance_embeds", "timestep_r": "use_meanflow"},
        text_tokens=128,
        text_tokens_from="our choice: the model drops the padding; glyphs' own text is left out",
        pixels_per_latent=32,
    ),
    "HiDreamImageTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timesteps": ("batch",),
            "encoder_hidden_states_t5": ("batch", "text", "caption_channels.0"),
            "encoder_hidden_states_llama3": (
                "llama_layers.len",
                "batch",
                "text",
                "caption_channels.1",
            ),
            "pooled_embeds": ("batch", "text_emb_dim"),
        },
        text_tokens=128,
        text_tokens_from=f"{_PADDED} each of two texts",
    ),
    "Kandinsky5Transformer3DModel": Inputs(
        {
            "hidden_states": ("batch", 1, "height", "width", "in_visual_dim"),
            "encoder_hidden_states": ("batch", "text", "in_text_dim"),
            "timestep": ("batch",),
            "pooled_projections": ("batch", "in_text_dim2"),
            "visual_rope_pos": Ranges((1, "rows", "columns")),
            "text_rope_pos": Range("text"),
        },
        text_tokens=128,
        text_tokens_from=_CHOSEN,
    ),
    "PRXTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "context_in_dim"),
            "attention_mask": Mask(("batch", "text")),
        },
        text_tokens=256,
        text_tokens_from="the tokenizer's length in the published pipelines, to which they pad",
    ),
    "GlmImageTransformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "encoder_hidden_states": ("batch", "text", "text_embed_dim"),
            "prior_token_id": Classes(("batch", "tokens")),
            "prior_token_drop": Mask(("batch", "tokens")),
            "timestep": ("batch",),
            "target_size": ("batch", 2),
            "crop_coords": ("batch", 2),
        },
        text_tokens=128,
        text_tokens_from=_CHOSEN,
    ),
    "LuminaNextDiT2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "cross_attention_dim"),
            "encoder_mask": Mask(("batch", "text")),
            "image_rotary_emb": Rotations(384, ("hidden_size", "num_attention_heads")),
            "cross_attention_kwargs": {},
        },
        text_tokens=128,
        text_tokens_from=_CHOSEN,
    ),
    "Lumina2Transformer2DModel": Inputs(
        {
            "hidden_states": _FEATURE_MAP,
            "timestep": ("batch",),
            "encoder_hidden_states": ("batch", "text", "cap_feat_dim"),
            "encoder_attention_mask": Mask(("batch", "text")),
        },
        text_tokens=256,
        text_tokens_from=f"{_PADDED}; a shorter prompt costs less: the model drops the padding",
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
"""Rows by class name; :func:`~retom.explanation.one_call.family_of` finds those of subclasses."""
