"""ControlNet: merging in the UNet alone, and in the ControlNet where it is asked for."""

import diffusers
import pytest
import tiny
import torch
from diffusers import ControlNetModel

import retom

CONDITION = torch.ones(1, 3, 128, 128)


def controlnet(unet):
    """One that counts: its last convolutions are zero before training."""
    torch.manual_seed(0)
    model = ControlNetModel.from_unet(unet).eval()
    for layer in model.controlnet_down_blocks:
        torch.nn.init.constant_(layer.weight, 0.1)
    return model


def pipeline():
    pipe = tiny.sd_pipeline()
    cls = diffusers.StableDiffusionControlNetPipeline
    built = cls(**pipe.components, controlnet=controlnet(pipe.unet), requires_safety_checker=False)
    built.set_progress_bar_config(disable=True)
    return built


def draw(pipe, **options):
    return tiny.latents(pipe, image=CONDITION, **options)


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_merging_in_the_unet_leaves_the_controlnet_whole(scope):
    pipe = pipeline()
    layer = tiny.TOLD_BY[scope]
    unmerged = draw(pipe)
    handle = retom.apply(pipe, scope=scope, refresh=2)
    with (
        tiny.tokens_seen(pipe.unet, layer) as unet,
        tiny.tokens_seen(pipe.controlnet, layer) as control,
    ):
        merged = draw(pipe)
    assert unet[f"{tiny.FIRST}.{layer}"] == [128, 128]
    assert control[f"{tiny.FIRST}.{layer}"] == [256, 256]
    assert not torch.equal(merged, unmerged)
    handle.remove()
    assert torch.equal(draw(pipe), unmerged)


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_the_controlnet_merges_on_request(scope):
    pipe = pipeline()
    layer = tiny.TOLD_BY[scope]
    unmerged = draw(pipe)
    handle = retom.apply(pipe.controlnet, scope=scope, refresh=2)
    with (
        tiny.tokens_seen(pipe.unet, layer) as unet,
        tiny.tokens_seen(pipe.controlnet, layer) as control,
    ):
        merged = draw(pipe)
    assert unet[f"{tiny.FIRST}.{layer}"] == [256, 256]
    assert control[f"{tiny.FIRST}.{layer}"] == [128, 128]
    assert not torch.equal(merged, unmerged)
    assert retom.handle_of(pipe) is None
    handle.remove()
    assert torch.equal(draw(pipe), unmerged)


def test_both_merge_each_by_its_own_handle():
    pipe = pipeline()
    handles = retom.apply(pipe), retom.apply(pipe.controlnet, ratio=0.25)
    with tiny.tokens_seen(pipe.unet) as unet, tiny.tokens_seen(pipe.controlnet) as control:
        draw(pipe)
    assert unet[f"{tiny.FIRST}.attn1"] == [128, 128]
    assert control[f"{tiny.FIRST}.attn1"] == [192, 192]
    assert [handle.config.method.ratio for handle in handles] == [0.5, 0.25]


def test_guessing_calls_the_controlnet_with_half_of_the_batch():
    pipe = pipeline()
    unmerged = draw(pipe, guess_mode=True)
    retom.apply(pipe, refresh=9)
    retom.apply(pipe.controlnet, refresh=9)
    batches = []

    def count(_module, args, kwargs):
        batches.append(len((args or (kwargs["sample"],))[0]))

    pipe.controlnet.register_forward_pre_hook(count, with_kwargs=True)
    with tiny.tokens_seen(pipe.unet) as unet, tiny.tokens_seen(pipe.controlnet) as control:
        merged = draw(pipe, guess_mode=True)
    assert unet[f"{tiny.FIRST}.attn1"] == control[f"{tiny.FIRST}.attn1"] == [128, 128]
    assert batches == [1, 1]
    assert merged.isfinite().all()
    assert not torch.equal(merged, unmerged)


def test_several_controlnets_are_asked_one_by_one():
    pipe = pipeline()
    several = diffusers.MultiControlNetModel([pipe.controlnet, controlnet(pipe.unet)])
    with pytest.raises(retom.UnsupportedModelError, match="MultiControlNetModel is not supported"):
        retom.apply(several)
    for net in several.nets:
        retom.apply(net)
        assert retom.handle_of(net).config.method.ratio == 0.5
