"""Two pipelines with one UNet, and changes while a picture is drawn."""

import inspect
import itertools

import diffusers
import pytest
import tiny
import torch

import retom
from retom import ReToM, Rule
from retom.clock import Clock

PICTURE = torch.rand((1, 3, 128, 128), generator=torch.Generator().manual_seed(0))


def img2img(pipe):
    """Image-to-image with the parts of a text-to-image pipeline."""
    cls = diffusers.StableDiffusionImg2ImgPipeline
    built = cls(**pipe.components, requires_safety_checker=False)
    built.set_progress_bar_config(disable=True)
    return built


def redraw(pipe, **options):
    return tiny.latents(pipe, image=PICTURE, strength=0.6, num_inference_steps=4, **options)


def merging(scope):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, scope=scope, refresh=9)
    return pipe


@pytest.mark.parametrize("scope", tiny.TOLD_BY)
def test_pictures_of_two_pipelines_do_not_touch_each_other(scope):
    """Image-to-image begins below where text-to-image began; plans are kept for long."""
    drawn, redrawn = tiny.latents(merging(scope)), redraw(img2img(merging(scope)))
    pipe = merging(scope)
    other = img2img(pipe)
    for _ in range(2):
        assert torch.equal(tiny.latents(pipe), drawn)
        assert torch.equal(redraw(other), redrawn)
    assert retom.handle_of(other) is retom.handle_of(pipe)


def test_pipelines_made_from_a_merging_one_merge():
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe)
    other = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    assert retom.handle_of(other) is handle
    handle.remove()
    assert retom.handle_of(other) is None


def update_midway(handle, **options):
    def callback(_pipe, step, _timestep, values):
        if step == 0:
            handle.update(**options)
        return values

    return callback


@pytest.mark.parametrize(
    ("before", "after"), [*zip(tiny.TOLD_BY, reversed(tiny.TOLD_BY), strict=True)]
)
def test_update_midway_counts_from_the_next_step(before, after):
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe, scope=before, refresh=9)
    callback = update_midway(handle, scope=after, ratio=0.25)
    with (
        tiny.tokens_seen(pipe.unet, tiny.TOLD_BY[before]) as early,
        tiny.tokens_seen(pipe.unet, tiny.TOLD_BY[after]) as late,
    ):
        tiny.latents(pipe, num_inference_steps=3, callback_on_step_end=callback)
    assert early[f"{tiny.FIRST}.{tiny.TOLD_BY[before]}"][0] == 128
    assert late[f"{tiny.FIRST}.{tiny.TOLD_BY[after]}"][1:] == [192, 192]


@pytest.mark.parametrize("options", [{"ratio": 0.25}, {"window": (4, 4)}, {"merge": "norm_mean"}])
def test_update_midway_drops_plans_that_are_in_use(options):
    """With plans kept for the whole picture, what comes after is as from a fresh handle."""
    model, fresh_model = tiny.sd15_unet(), tiny.sd15_unet()
    handle = retom.apply(model, refresh=9)
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(900))
    handle.update(**options)
    retom.apply(fresh_model, refresh=9, **options)
    late = {**tiny.inputs(seed=5), "timestep": torch.tensor(800)}
    assert torch.equal(tiny.call(model, late), tiny.call(fresh_model, late))


def test_update_between_pictures_is_a_fresh_application():
    pipe, plain = tiny.sd_pipeline(), tiny.sd_pipeline()
    handle = retom.apply(pipe, refresh=2, alternate=True)
    tiny.latents(pipe)
    rules = (Rule(method=ReToM(ratio=0.2), noise=(0.0, 0.6)),)
    handle.update(refresh=None, alternate=False, rules=rules)
    retom.apply(plain, rules=rules)
    assert torch.equal(tiny.latents(pipe), tiny.latents(plain))


# Timesteps of a picture must not rise but by rounding: a rising one begins another picture.
SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]


# KDPM2 hands torch tensors to numpy.
numpy_warns = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


def timesteps_of(name, steps, **options):
    """The timesteps of a scheduler; None where it does not know the options."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    if not options.keys() <= known.keys():
        return None
    if name == "PNDMScheduler":  # as its models ask
        options["skip_prk_steps"] = True
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


SIGMAS = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"]


@numpy_warns
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("sigmas", [None, *SIGMAS])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_generation_begins_once_whatever_the_scheduler(name, sigmas, spacing):
    options = {"timestep_spacing": spacing} | ({sigmas: True} if sigmas else {})
    for steps in (1, 2, 5, 20, 50):
        timesteps = timesteps_of(name, steps, **options)
        if timesteps is None:
            return
        clock = Clock()
        begun = 0
        for _ in range(2):  # pictures
            for timestep in timesteps:
                for _ in range(2):  # the halves of guidance, one by one
                    clock.advance(timestep / 1000, timesteps, 7)
                    begun += clock.begins
        # Two pictures of one step are told apart by their tensors alone, which this has not.
        assert begun == (2 if len(set(timesteps)) > 1 else 1)


@numpy_warns
def test_a_timestep_that_rises_by_rounding_goes_on_with_its_picture(plans_made):
    pipe = tiny.sd_pipeline()
    scheduler = diffusers.KDPM2AncestralDiscreteScheduler
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    retom.apply(pipe, refresh=99, share="level")
    timesteps = []
    pipe.unet.register_forward_pre_hook(lambda _module, args: timesteps.append(float(args[1])))
    tiny.latents(pipe, num_inference_steps=5)
    assert any(one < other for one, other in itertools.pairwise(timesteps))
    assert len(plans_made) == 1
    tiny.latents(pipe, num_inference_steps=5)
    assert len(plans_made) == 2


@numpy_warns
@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_image_to_image_with_two_evaluations_a_step(name):
    """Rules by noise and shared plans hold for both evaluations."""
    pipe = img2img(tiny.sd_pipeline())
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    retom.apply(pipe, refresh=2, rules=(Rule(method=None, noise=(0.0, 0.3)),))
    timesteps = []
    pipe.unet.register_forward_pre_hook(lambda _module, args: timesteps.append(float(args[1])))
    with tiny.tokens_seen(pipe.unet) as seen:
        redraw(pipe)
    assert len(timesteps) > 2
    expected = [256 if timestep <= 300 else 128 for timestep in timesteps]
    assert seen[f"{tiny.FIRST}.attn1"] == expected
    assert {128, 256} == set(expected)
