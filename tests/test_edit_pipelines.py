"""Pipelines that begin from a picture: it stays whole beside the one that is drawn."""

import diffusers
import numpy as np
import pytest
import tiny_transformers as tiny
import torch
from PIL import Image
from test_transformer_pipelines import EMBEDS, STATES, dynamic, flow, flux2, guided, pipeline

import retom

HEIGHT, WIDTH = 128, 96


def picture(height=HEIGHT, width=WIDTH):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask():
    values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    values[:, WIDTH // 2 :] = 255
    return Image.fromarray(values)


def autoencoder(channels):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=2,
        shift_factor=0.1,
        scaling_factor=0.5,
    ).eval()


def flux(name, **more):
    pipe = pipeline(name, tiny.flux(), dynamic(), vae=autoencoder(1))
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
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    pipe = pipeline("QwenImageEditPipeline", tiny.qwen(), dynamic(), vae=vae)
    arguments = guided("prompt_embeds_mask", prompt_embeds=STATES)
    return pipe, {**arguments, "image": picture(), "true_cfg_scale": 4.0}


def sd3():
    model = tiny.sd3(dual_attention_layers=(0,))
    channels = model.config.in_channels
    name = "StableDiffusion3Img2ImgPipeline"
    pipe = pipeline(name, model, flow(), vae=autoencoder(channels))
    return pipe, {**guided(**EMBEDS, pooled_prompt_embeds=(1, 8)), "image": picture()}


PIPELINES = {
    "flux img2img": lambda: flux("FluxImg2ImgPipeline", strength=0.7),
    "flux inpaint": lambda: flux("FluxInpaintPipeline", strength=0.7, mask_image=mask()),
    "flux kontext": kontext,
    "flux 2 edit": flux2_edit,
    "qwen-image edit": qwen_edit,
    "sd3 img2img": sd3,
}


def draw(pipe, arguments):
    generator = torch.Generator().manual_seed(0)
    return pipe(
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=3,
        generator=generator,
        output_type="latent",
        return_dict=False,
        **arguments,
    )[0]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_picture_to_begin_from_stays_whole(name):
    pipe, arguments = PIPELINES[name]()
    plain = draw(pipe, arguments)
    handle = retom.apply(pipe, ratio=0.5)
    merged = draw(pipe, arguments)
    assert merged.shape == plain.shape
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    row = handle.summary().levels[0]
    assert (str(row.grid), row.tokens, row.kept) == ("8x6", 48, 24)
    handle.remove()
    assert torch.equal(draw(pipe, arguments), plain)
