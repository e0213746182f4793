"""Whole pipelines of the transformer families: one call of retom.apply and nothing else.

Text states are given instead of prompts, so that no text encoder is needed.
"""

import diffusers
import pytest
import tiny_transformers as tiny
import torch

import retom
from retom.drawing.loading import as_model


def flow(**options):
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def dynamic():
    return flow(use_dynamic_shifting=True)


def guided(*names, **shapes):
    """The same kind of states for the prompt and against it."""
    return {
        f"{prefix}{name}": tiny.draw(*shape, seed=seed)
        for seed, prefix in ((2, ""), (3, "negative_"))
        for name, shape in shapes.items()
    } | {
        f"{prefix}{name}": torch.ones(1, tiny.TEXT).long()
        for prefix in ("", "negative_")
        for name in names
    }


STATES = (1, tiny.TEXT, tiny.WIDTH)
EMBEDS = {"prompt_embeds": STATES}
MASK = ("prompt_attention_mask",)


def pipeline(name, model, scheduler, **parts):
    cls = getattr(diffusers, name)
    given = dict.fromkeys(cls._get_signature_keys(cls)[0])
    pipe = cls(**{**given, "transformer": model, "scheduler": scheduler, **parts})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixart(name):
    model = tiny.pixart()
    arguments = guided(*MASK, **EMBEDS)
    pipe = pipeline(name, model, diffusers.DPMSolverMultistepScheduler())
    return pipe, {**arguments, "negative_prompt": None, "use_resolution_binning": False}


def sd3():
    pipe = pipeline("StableDiffusion3Pipeline", tiny.sd3(dual_attention_layers=(0,)), flow())
    return pipe, guided(**EMBEDS, pooled_prompt_embeds=(1, 8))


def flux():
    pipe = pipeline("FluxPipeline", tiny.flux(), dynamic())
    arguments = guided(**EMBEDS, pooled_prompt_embeds=(1, 8))
    return pipe, {**arguments, "true_cfg_scale": 4.0}


def flux2():
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=1,
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    ).eval()
    pipe = pipeline("Flux2KleinPipeline", tiny.flux2(), dynamic(), is_distilled=True, vae=vae)
    return pipe, {"prompt_embeds": tiny.draw(*STATES)}


def qwen():
    arguments = guided("prompt_embeds_mask", **EMBEDS)
    return pipeline("QwenImagePipeline", tiny.qwen(), dynamic()), {
        **arguments,
        "true_cfg_scale": 4.0,
    }


def z_image():
    states = {"prompt_embeds": [tiny.draw(5, 16)], "negative_prompt_embeds": [tiny.draw(9, 16)]}
    return pipeline("ZImagePipeline", tiny.z_image(), dynamic()), {**states, "guidance_scale": 4.0}


def chroma():
    pipe = pipeline("ChromaPipeline", tiny.chroma(), dynamic())
    arguments = guided(*MASK, **EMBEDS)
    return pipe, {k: v.bool() if k.endswith("mask") else v for k, v in arguments.items()}


def lumina2():
    pipe = pipeline("Lumina2Pipeline", tiny.lumina2(), dynamic())
    return pipe, guided(*MASK, **EMBEDS)


def cogview4():
    return pipeline("CogView4Pipeline", tiny.cogview4(), dynamic()), guided(**EMBEDS)


def auraflow():
    return pipeline("AuraFlowPipeline", tiny.auraflow(), flow()), guided(*MASK, **EMBEDS)


def hunyuan_dit():
    states = (1, tiny.TEXT, 8)
    arguments = guided(
        "prompt_attention_mask",
        "prompt_attention_mask_2",
        prompt_embeds=states,
        prompt_embeds_2=states,
    )
    pipe = pipeline(
        "HunyuanDiTPipeline",
        tiny.hunyuan_dit(),
        diffusers.DDPMScheduler(),
        requires_safety_checker=False,
    )
    return pipe, {**arguments, "use_resolution_binning": False}


PIPELINES = {
    "pixart-alpha": lambda: pixart("PixArtAlphaPipeline"),
    "pixart-sigma": lambda: pixart("PixArtSigmaPipeline"),
    "sd3.5": sd3,
    "flux": flux,
    "flux2": flux2,
    "qwen": qwen,
    "z-image": z_image,
    "chroma": chroma,
    "lumina2": lumina2,
    "cogview4": cogview4,
    "auraflow": auraflow,
    "hunyuan-dit": hunyuan_dit,
}


def latents(pipe, arguments):
    generator = torch.Generator().manual_seed(0)
    return pipe(
        height=128,
        width=96,
        num_inference_steps=2,
        generator=generator,
        output_type="latent",
        return_dict=False,
        **arguments,
    )[0]


def check_merging_and_removal(pipe, arguments):
    """It draws something else, by half of the tokens of the picture alone, and then as before."""
    plain = latents(pipe, arguments)
    handle = retom.apply(pipe, ratio=0.5)
    merged = latents(pipe, arguments)
    assert merged.shape == plain.shape
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    row = handle.summary().levels[0]
    assert (str(row.grid), row.tokens, row.kept) == ("8x6", 48, 24)
    assert torch.equal(latents(pipe, arguments), merged)
    handle.remove()
    assert torch.equal(latents(pipe, arguments), plain)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_merges_and_is_restored(name):
    check_merging_and_removal(*PIPELINES[name]())


def test_prompts_of_several_lengths_merge_as_each_does_alone():
    """Lumina 2 puts each picture right after its prompt, so each begins at another token."""
    pipe, _ = lumina2()
    lengths = (5, 3)
    model, arguments = pipe.transformer, tiny.FAMILIES["lumina2"].call(8, 6, 2)
    mask = torch.arange(tiny.TEXT) < torch.tensor(lengths)[:, None]

    def run(**given):
        with torch.no_grad():
            return model(**{**arguments, **given}).sample

    with retom.applied(pipe, ratio=0.5) as handle:
        both = run(encoder_attention_mask=mask)
        assert handle.summary().levels[0].kept == 24
        for item, length in enumerate(lengths):
            alone = {name: value[item : item + 1] for name, value in arguments.items()}
            alone["encoder_hidden_states"] = alone["encoder_hidden_states"][:, :length]
            alone["encoder_attention_mask"] = mask[item : item + 1, :length]
            torch.testing.assert_close(both[item : item + 1], run(**alone), rtol=1e-4, atol=1e-5)
    assert (run(encoder_attention_mask=mask) - both).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd3.5", "flux", "z-image"])
def test_rules_by_noise_read_each_family_s_own_timestep(name):
    """The first step of a picture is at noise 1, however the family says so."""
    pipe, arguments = PIPELINES[name]()
    plain = latents(pipe, arguments)
    rule = retom.Rule(method=None, noise=(0.0, 1.0))
    with retom.applied(pipe, rules=(rule,)):
        assert torch.equal(latents(pipe, arguments), plain)
    always = latents_of(pipe, arguments)
    late = latents_of(pipe, arguments, rules=(retom.Rule(method=None, noise=(0.0, 0.999)),))
    early = latents_of(pipe, arguments, rules=(retom.Rule(method=None, noise=(0.999, 1.0)),))
    assert not torch.equal(late, plain)
    assert not torch.equal(early, plain)
    assert len({tuple(x.flatten().tolist()) for x in (plain, always, late, early)}) == 4


def latents_of(pipe, arguments, **options):
    with retom.applied(pipe, **options):
        return latents(pipe, arguments)


@pytest.mark.parametrize("name", ["sd3.5", "flux"])
def test_plans_are_reused_with_refresh(name, plans_made):
    pipe, arguments = PIPELINES[name]()
    evaluations = 4 if name == "flux" else 2
    latents_of(pipe, arguments, share="level")
    assert len(plans_made) == evaluations
    plans_made.clear()
    latents_of(pipe, arguments, share="level", refresh=5)
    assert len(plans_made) < evaluations


def test_a_pipeline_that_can_also_edit_draws_from_a_prompt_alone():
    tiny.needs_new("autoencoder of Flux 2")
    pipe, _ = flux2()
    assert as_model(pipe).pipe is pipe


def test_a_pipeline_that_does_not_tell_its_steps_is_refused_by_commands_alone():
    pipe, arguments = pixart("PixArtAlphaPipeline")
    with pytest.raises(retom.ModelError, match=r"no callback_on_step_end.*retom.apply\(pipe\)"):
        as_model(pipe)
    assert not torch.equal(latents_of(pipe, arguments), latents(pipe, arguments))
