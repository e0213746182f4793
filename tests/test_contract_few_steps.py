"""Distilled models: one to four steps, with the guidance scale as an input of the denoiser."""

import diffusers
import pytest
import tiny
import torch

import retom
from retom import Rule


def lcm():
    """A pipeline whose UNet takes the guidance scale, so that a step is one call of batch 1."""
    pipe = tiny.sd_pipeline(model=tiny.sd15_unet(time_cond_proj_dim=8))
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    return pipe


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_every_step_merges_and_the_guidance_scale_counts(scope, steps, plans_made):
    pipe = lcm()
    unmerged = tiny.latents(pipe, num_inference_steps=steps)
    handle = retom.apply(pipe, scope=scope, share="level")
    layer = tiny.TOLD_BY[scope]
    with tiny.tokens_seen(pipe.unet, layer) as seen:
        merged = tiny.latents(pipe, num_inference_steps=steps)
    assert seen[f"{tiny.FIRST}.{layer}"] == [128] * steps
    assert [plan.batch for plan in plans_made] == [1] * steps
    assert not torch.equal(merged, unmerged)
    assert not torch.equal(tiny.latents(pipe, num_inference_steps=steps, guidance_scale=3), merged)
    handle.remove()
    assert torch.equal(tiny.latents(pipe, num_inference_steps=steps), unmerged)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_reused_plans_end_with_the_picture(steps, plans_made):
    """One-step pictures all have the same timestep; each is a picture of its own."""
    pipe = lcm()
    retom.apply(pipe, refresh=9, share="level")
    first = tiny.latents(pipe, num_inference_steps=steps)
    other = tiny.latents(pipe, "a blue pear", seed=1, num_inference_steps=steps)
    assert torch.equal(tiny.latents(pipe, num_inference_steps=steps), first)
    assert not torch.equal(other, first)
    assert len(plans_made) == 3


def test_rules_by_noise_split_four_steps():
    """LCM's four timesteps are 999, 759, 499, 259."""
    pipe = lcm()
    retom.apply(pipe, rules=(Rule(method=None, noise=(0.0, 0.5)),))
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, num_inference_steps=4)
    assert seen[f"{tiny.FIRST}.attn1"] == [128, 128, 256, 256]


def test_one_step_of_a_turbo_model():
    """SDXL Turbo: Euler with trailing timesteps, no guidance."""
    pipe = tiny.sdxl_pipeline()
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", steps_offset=0
    )
    options = {"num_inference_steps": 1, "guidance_scale": 0.0}
    unmerged = tiny.latents(pipe, **options)
    retom.apply(pipe, refresh=1)
    assert not torch.equal(tiny.latents(pipe, **options), unmerged)
