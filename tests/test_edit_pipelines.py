"""Pipelines that begin from a picture: it stays whole beside the one that is drawn."""

import diffusers
import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from PIL import Image
from test_transformer_controlnets import vae
from test_transformer_pipelines import (
    EMBEDS,
    STATES,
    check_merging_and_removal,
    dynamic,
    flow,
    flux2,
    guided,
    pipeline,
)

HEIGHT, WIDTH = 128, 96


def picture(height=HEIGHT, width=WIDTH):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask():
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    values[:, WIDTH // 2 :] = 255
    return Image.fromarray(values)


def flux(name, **more):
    pipe = pipeline(name, tiny.flux(), dynamic(), vae=vae(1))
    return pipe, {**guided(**EMBEDS, pooled_prompt_embeds=(1, 8)), "image": picture(), **more}


def kontext():
    """The reference is another size than what is drawn."""
    reference = picture(64, 96)
    return flux("FluxKontextPipeline", image=reference, _auto_resize=False, max_area=HEIGHT * WIDTH)


def flux2_edit():
    pipe, arguments = flux2()
    return pipe, {**arguments, "image": picture(64, 96)}


def qwen_edit():
    torch.manual_seed(0)
    own = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    pipe = pipeline("QwenImageEditPipeline", tiny.qwen(), dynamic(), vae=own)
    arguments = guided("prompt_embeds_mask", prompt_embeds=STATES)
    return pipe, {**arguments, "image": picture(), "true_cfg_scale": 4.0}


def sd3():
    model = tiny.sd3(dual_attention_layers=(0,))
    channels = model.config.in_channels
    name = "StableDiffusion3Img2ImgPipeline"
    pipe = pipeline(name, model, flow(), vae=vae(channels))
    return pipe, {**guided(**EMBEDS, pooled_prompt_embeds=(1, 8)), "image": picture()}


PIPELINES = {
    "flux img2img": lambda: flux("FluxImg2ImgPipeline", strength=0.7),
    "flux inpaint": lambda: flux("FluxInpaintPipeline", strength=0.7, mask_image=mask()),
    "flux kontext": kontext,
    "flux 2 edit": flux2_edit,
    "qwen-image edit": qwen_edit,
    "sd3 img2img": sd3,
}


# Qwen-Image's pipeline brings every picture to a megapixel first.
LARGE = {"qwen-image edit"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in PIPELINES],
)
def test_a_picture_to_begin_from_stays_whole(name):
    check_merging_and_removal(*PIPELINES[name]())
