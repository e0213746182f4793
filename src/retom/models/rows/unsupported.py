"""Classes without a row, and why: a sentence that the refusal repeats.

`tests/test_rows_coverage.py` fails when the installed diffusers has a block that is in no list.
"""

from __future__ import annotations

_VIDEO = "It draws videos, and retom merges on the grid of a picture."
_SOUND = "It makes sound, and retom merges on the grid of a picture."
_TEXT = "It works on text tokens, which never merge."
_ADDED = (
    "It is a part of a ControlNet that stacks what its blocks give instead of passing it on, and "
    "runs un-merged beside the denoiser."
)
_ENCODER = "It works on one token for each condition of a ControlNet, not on the image."
_SEVERAL = "It holds several ControlNets: apply retom to each of its nets."
_PLAIN = "It has no attention on tokens."

_REASONS: dict[str, str] = {
    _VIDEO: (
        "AllegroTransformerBlock AnyFlowTransformerBlock CogVideoXBlock ConsisIDBlock "
        "CosmosTransformerBlock EasyAnimateTransformerBlock FreeNoiseTransformerBlock "
        "HeliosTransformerBlock HunyuanVideo15TransformerBlock HunyuanVideoSingleTransformerBlock "
        "HunyuanVideoTokenReplaceSingleTransformerBlock HunyuanVideoTokenReplaceTransformerBlock "
        "HunyuanVideoTransformerBlock LTX2VideoTransformerBlock LTXVideoTransformerBlock "
        "Kandinsky6FusedTransformerDecoderBlock Kandinsky6TransformerDecoderBlock "
        "Kandinsky6SRTransformerBlock MiniMaxH3TransformerBlock MochiTransformerBlock "
        "MotifVideoSingleTransformerBlock MotifVideoTransformerBlock MotionEncoderResBlock "
        "SanaVideoMSCamCtrlBlock SanaVideoTransformerBlock SanaWMLTX2RefinerTransformerBlock "
        "SkyReelsV2TransformerBlock TemporalBasicTransformerBlock WanAnimate2TransformerBlock "
        "WanTransformerBlock WanVACETransformerBlock"
    ),
    _SOUND: (
        "AceStepTransformerBlock AudioDiTBlock AudioDiTConvNeXtV2Block "
        "MiniMaxMusic3DepthDecoderBlock MiniMaxMusic3TransformerBlock StableAudio3DiTBlock "
        "StableAudioDiTBlock SkipFFTransformerBlock OutConv1DBlock OutValueFunctionBlock "
        "ResConvBlock"
    ),
    _TEXT: (
        "HunyuanImageIndividualTokenRefinerBlock HunyuanVideo15IndividualTokenRefinerBlock "
        "HunyuanVideoIndividualTokenRefinerBlock Kandinsky5TransformerEncoderBlock "
        "Kandinsky6TransformerEncoderBlock Krea2TextFusionBlock MiniMaxH3TokenRefinerBlock"
    ),
    _ADDED: "ZImageControlTransformerBlock",
    _ENCODER: "ResidualAttentionBlock",
    _PLAIN: (
        "AuraFlowPreFinalBlock AutoencoderTinyBlock ConvNextBlock Kandinsky3DownSampleBlock "
        "Kandinsky3ResNetBlock Kandinsky3UpSampleBlock SDCascadeResBlock SDCascadeTimestepBlock"
    ),
    "It is inside HiDreamBlock, whose row covers it.": (
        "HiDreamImageSingleTransformerBlock HiDreamImageTransformerBlock"
    ),
    "Its MLP mixes neighbouring tokens by convolution, so that whole blocks cannot merge; scope "
    "attention merges around its linear self-attention.": "SanaTransformerBlock",
    "Its attention works on feature maps (B, C, height, width), with text among the keys; retom "
    "merges tokens (B, N, C).": (
        "KAttentionBlock Kandinsky3AttentionBlock Kandinsky3Block SDCascadeAttnBlock"
    ),
    "It predicts tokens of a codebook, not noise.": "UVitBlock",
}

UNSUPPORTED_BLOCKS: dict[str, str] = {
    name: reason for reason, names in _REASONS.items() for name in names.split()
}
"""Block classes that no row speaks of, with the reason."""

UNSUPPORTED_DENOISERS: dict[str, str] = {
    "DreamLiteTransformer2DModel": "It is a stage of DreamLiteUNetModel, which merges.",
    "UVit2DModel": "It predicts tokens of a codebook, not noise.",
    "Kandinsky3UNet": "Its attention works on feature maps, with text among the keys.",
    "StableCascadeUNet": "Its attention works on feature maps, with text among the keys.",
    "PriorTransformer": "It denoises an embedding; there are no image tokens.",
    "ZImageControlNetModel": _ADDED,
    **dict.fromkeys(
        (
            "MultiControlNetModel",
            "MultiControlNetUnionModel",
            "SD3MultiControlNetModel",
            "FluxMultiControlNetModel",
            "QwenImageMultiControlNetModel",
            "HunyuanDiT2DMultiControlNetModel",
        ),
        _SEVERAL,
    ),
    "UNetControlNetXSModel": "A UNet and its ControlNet run in each other's stages, level by "
    "level, and no place in them has been proved. Use a ControlNet beside the UNet.",
    "ControlNetXSAdapter": "It runs as a part of UNetControlNetXSModel alone.",
    **dict.fromkeys(
        (
            "CosmosControlNetModel",
            "I2VGenXLUNet",
            "LatteTransformer3DModel",
            "SparseControlNetModel",
            "TransformerTemporalModel",
            "UNet3DConditionModel",
            "UNetMotionModel",
            "UNetSpatioTemporalConditionModel",
        ),
        _VIDEO,
    ),
    "UNet1DModel": _SOUND,
    "UNet2DModel": "Its attention works on feature maps (B, C, height, width); retom merges tokens "
    "(B, N, C).",
    "Transformer2DModel": "It is a stage of UNets, which merge.",
}
"""Denoisers that cannot merge although a block inside them might seem to."""
