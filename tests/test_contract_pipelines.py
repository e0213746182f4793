"""Pipelines, schedulers and ways of guidance: each draws a picture, merging in every step."""

import diffusers
import pytest
import tiny
import torch

import retom

TEXT = {"sd": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}
IMAGE = {
    "sd-img2img": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl-img2img": diffusers.StableDiffusionXLImg2ImgPipeline,
}
INPAINT = {
    "sd-inpaint": diffusers.StableDiffusionInpaintPipeline,
    "sdxl-inpaint": diffusers.StableDiffusionXLInpaintPipeline,
}
FIRST = {
    "sd": "down_blocks.0.attentions.0.transformer_blocks.0.attn1",
    "sdxl": "down_blocks.1.attentions.0.transformer_blocks.0.attn1",
}


def build(name, cls):
    return (tiny.sdxl_pipeline if name.startswith("sdxl") else tiny.sd_pipeline)(cls)


def picture_inputs(name):
    picture = torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    options = {"image": picture, "strength": 0.6, "num_inference_steps": 4}
    if name.endswith("inpaint"):
        mask = torch.zeros(1, 1, 128, 128)
        mask[..., :64] = 1
        options |= {"mask_image": mask, "height": 128, "width": 128}
    return options


@pytest.mark.parametrize(("name", "cls"), (TEXT | IMAGE | INPAINT).items())
def test_pipeline_merges_in_every_step_and_is_restored(name, cls):
    pipe = build(name, cls)
    options = {} if name in TEXT else picture_inputs(name)
    unmerged = tiny.latents(pipe, **options)

    handle = retom.apply(pipe, ratio=0.5)
    with tiny.tokens_seen(pipe.unet) as seen:
        merged = tiny.latents(pipe, **options)
    handle.remove()

    assert seen[FIRST[name.split("-")[0]]] == [32 if name.startswith("sdxl") else 128] * 2
    assert merged.isfinite().all()
    assert not torch.equal(merged, unmerged)
    assert torch.equal(tiny.latents(pipe, **options), unmerged)


GUIDANCE = {
    "guided": ({}, 2),
    "unguided": ({"guidance_scale": 1.0}, 1),
    "two images": ({"num_images_per_prompt": 2}, 4),
    "two images, unguided": ({"num_images_per_prompt": 2, "guidance_scale": 1.0}, 2),
    "negative prompt": ({"negative_prompt": "blue"}, 2),
    "rescaled": ({"guidance_rescale": 0.7}, 2),
}


@pytest.mark.parametrize(("options", "batch"), GUIDANCE.values(), ids=GUIDANCE)
@pytest.mark.parametrize("name", TEXT)
def test_ways_of_guidance(name, options, batch):
    pipe = build(name, TEXT[name])
    handle = retom.apply(pipe)
    batches = set()
    for module in pipe.unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            module.attn1.to_q.register_forward_pre_hook(
                lambda *_: batches.update(
                    [handle._state.in_flight.plan.batch_size] if handle._state.in_flight else []
                )
            )
    pictures = tiny.latents(pipe, **options)
    assert batches == {batch}
    assert pictures.shape[0] == options.get("num_images_per_prompt", 1)
    assert pictures.isfinite().all()


SCHEDULERS = {
    "DDIM": (diffusers.DDIMScheduler, {}, 3),
    "Euler": (diffusers.EulerDiscreteScheduler, {}, 3),
    "Euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}, 3),
    "Heun": (diffusers.HeunDiscreteScheduler, {}, 5),  # two calls a step, one in the last
    "LCM": (diffusers.LCMScheduler, {}, 3),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}, 3),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}, 3),
    "v-prediction, zero SNR": (
        diffusers.DDIMScheduler,
        {
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
        3,
    ),
}


@pytest.mark.parametrize(("cls", "options", "calls"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers(cls, options, calls):
    pipe = tiny.sd_pipeline()
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **options)
    retom.apply(pipe)
    with tiny.tokens_seen(pipe.unet) as seen:
        pictures = tiny.latents(pipe, num_inference_steps=3)
    assert seen[FIRST["sd"]] == [128] * calls
    assert pictures.isfinite().all()


def test_size_changes_between_pictures():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, levels="all")
    first = tiny.latents(pipe)
    wide = tiny.latents(pipe, height=72, width=136)
    assert wide.shape[-2:] == (9, 17)
    assert torch.equal(tiny.latents(pipe), first)


def test_callback_may_switch_merging_off_midway():
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe)

    def switch_off(_pipe, step, _timestep, values):
        handle.enabled = step < 1
        return values

    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, num_inference_steps=3, callback_on_step_end=switch_off)
    assert seen[FIRST["sd"]] == [128, 128, 256]
