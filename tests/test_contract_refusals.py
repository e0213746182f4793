"""What cannot merge is refused with a sentence that says what was seen."""

import pytest
import tiny
import torch
from diffusers import CogVideoXTransformer3DModel, UNet2DModel

import retom


def video():
    return CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=8,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
    )


def unconditional_unet():
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def unet_without_attention():
    return tiny.unet(attention=(False, False), mid_block_type=None)


def unet_of_cross_attention():
    return tiny.unet(only_cross_attention=True, mid_block_type=None)


UNSUPPORTED = {
    "number": (lambda: 3, r"int is neither: it has no module named unet or transformer"),
    "nothing": (lambda: None, r"NoneType is neither"),
    "video": (
        video,
        r"CogVideoXTransformer3DModel is not supported. It draws videos.*retom.register_block.*"
        r"Block classes seen: CogVideoXBlock",
    ),
    "vae": (tiny.vae, r"AutoencoderKL is not supported.*DownEncoderBlock2D"),
    "linear layer": (lambda: torch.nn.Linear(2, 2), r"Linear is not supported.*seen: none"),
    "unconditional unet": (unconditional_unet, r"UNet2DModel is not supported.*AttnDownBlock2D"),
    "unet without attention": (
        unet_without_attention,
        r"no self-attention.*nothing would merge.*DownBlock2D, DownBlock2D, UpBlock2D, UpBlock2D",
    ),
    "unet of cross-attention": (unet_of_cross_attention, r"no self-attention.*nothing would merge"),
}


@pytest.mark.parametrize(("build", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_cannot_merge_is_refused(build, message):
    target = build()
    with pytest.raises(retom.UnsupportedModelError, match=message):
        retom.apply(target)
    if isinstance(target, torch.nn.Module):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in target.modules())


IMPOSSIBLE = {
    "unknown option": (
        {"rato": 0.5},
        retom.ConfigError,
        r"Unknown option rato\. ReToM takes .*ratio",
    ),
    "no such level": ({"levels": (3,)}, retom.ConfigError, r"levels 0, 1, 2.*level 3 was given"),
    "levels of another type": (
        {"levels": 1},
        retom.ConfigError,
        r"levels is \"all\" or.*1 was given",
    ),
    "ratio out of range": ({"ratio": 1.5}, retom.ConfigError, r"less than 1; 1\.5 was given"),
    "ratio out of reach": (
        {"ratio": 0.8, "window": (2, 2)},
        retom.BudgetError,
        r"204 of the 256 tokens of a 16x16 grid.*192 at most \(ratio 0\.75\).*window=\(4, 4\)",
    ),
    "scope": ({"scope": "everything"}, retom.ConfigError, r"scope is one of auto, attention"),
}


@pytest.mark.parametrize(("options", "error", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_option_is_refused_and_nothing_is_applied(options, error, message):
    model = tiny.sd15_unet()
    with pytest.raises(error, match=message):
        retom.apply(model, **options)
    assert retom.handle_of(model) is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_larger_window_reaches_the_ratio():
    """What the message of the refusal above advises."""
    model = tiny.sd15_unet()
    retom.apply(model, ratio=0.8, window=(4, 4))
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs())
    assert seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == [52]


def test_ratio_that_only_a_deeper_level_of_the_default_size_cannot_reach():
    """In windows of 2x2, 9x9 tokens can give up 56 and 5x5 tokens 16; 0.7 asks for 56 and 17."""
    options = {"ratio": 0.7, "window": (2, 2)}
    retom.apply(tiny.sd15_unet(sample_size=9), **options)
    with pytest.raises(retom.BudgetError, match="remove 17 of the 25 tokens of a 5x5 grid"):
        retom.apply(tiny.sd15_unet(sample_size=9), levels=(0, 1), **options)
