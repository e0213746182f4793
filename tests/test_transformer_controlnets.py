"""ControlNets of transformers: beside a denoiser that merges, and merging themselves on request."""

import inspect

import diffusers
import pytest
import tiny
import tiny_controlnets as controls
import tiny_transformers as transformers
import torch
from test_transformer_pipelines import (
    EMBEDS,
    dynamic,
    flow,
    guided,
    pipeline,
)
from test_transformer_pipelines import latents as draw_latents

import retom
from retom.models.rows.unsupported import UNSUPPORTED_DENOISERS
from retom.testing.runs import randomise_zeros

CONDITION = torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(9))


def counting(controlnet):
    """One that counts: its last layers are zero before training."""
    with torch.no_grad():
        randomise_zeros(controlnet, 3)
    return controlnet


def vae(channels):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=2,
        shift_factor=0.0,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    ).eval()


def sd3():
    parts = {"vae": vae(4), "controlnet": counting(controls.sd3())}
    pipe = pipeline("StableDiffusion3ControlNetPipeline", transformers.sd3(), flow(), **parts)
    return pipe, {**guided(**EMBEDS, pooled_prompt_embeds=(1, 8)), "control_image": CONDITION}


def sd35():
    pipe, arguments = sd3()
    controlnet = counting(controls.sd35())
    parts = {"vae": pipe.vae, "controlnet": controlnet}
    pipe = pipeline("StableDiffusion3ControlNetPipeline", transformers.sd3(), flow(), **parts)
    return pipe, arguments


def flux():
    parts = {"vae": vae(1), "controlnet": counting(controls.flux())}
    pipe = pipeline("FluxControlNetPipeline", transformers.flux(), dynamic(), **parts)
    arguments = guided(**EMBEDS, pooled_prompt_embeds=(1, 8))
    return pipe, {**arguments, "true_cfg_scale": 4.0, "control_image": CONDITION}


def qwen():
    torch.manual_seed(0)
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    parts = {"vae": autoencoder, "controlnet": counting(controls.qwen())}
    pipe = pipeline("QwenImageControlNetPipeline", transformers.qwen(), dynamic(), **parts)
    arguments = guided("prompt_embeds_mask", **EMBEDS)
    return pipe, {**arguments, "true_cfg_scale": 4.0, "control_image": CONDITION}


def hunyuan_dit():
    states = (1, transformers.TEXT, 8)
    arguments = guided(
        "prompt_attention_mask",
        "prompt_attention_mask_2",
        prompt_embeds=states,
        prompt_embeds_2=states,
    )
    pipe = pipeline(
        "HunyuanDiTControlNetPipeline",
        transformers.hunyuan_dit(),
        diffusers.DDPMScheduler(),
        vae=vae(4),
        controlnet=counting(controls.hunyuan_dit()),
        requires_safety_checker=False,
    )
    return pipe, {**arguments, "use_resolution_binning": False, "control_image": CONDITION}


def z_image():
    """Its ControlNet holds the denoiser's own refiners, and runs them outside of the denoiser."""
    parts = {"vae": vae(4), "controlnet": counting(controls.z_image())}
    pipe = pipeline("ZImageControlNetPipeline", transformers.z_image(), dynamic(), **parts)
    draw = transformers.draw
    states = {"prompt_embeds": [draw(5, 16)], "negative_prompt_embeds": [draw(9, 16)]}
    return pipe, {**states, "guidance_scale": 4.0, "control_image": CONDITION}


PIPELINES = {
    "sd3": sd3,
    "sd3.5 8b": sd35,
    "flux": flux,
    "qwen": qwen,
    "hunyuan-dit": hunyuan_dit,
    "z-image": z_image,
}


def latents(pipe, arguments):
    """Some of these pipelines draw the condition's latents from torch's own generator."""
    torch.manual_seed(0)
    return draw_latents(pipe, arguments)


def first_block(pipe):
    """One of the denoiser's that is not its ControlNet's as well."""
    names = ("transformer_blocks", "blocks", "layers")
    return next(getattr(pipe.transformer, n) for n in names if hasattr(pipe.transformer, n))[0]


def rows_of(module, act):
    """How many tokens a module was given in each of its calls while ``act`` ran."""
    seen = []

    def note(_, args, kwargs):
        tokens = args[0] if args else kwargs["hidden_states"]
        seen.append(tokens.shape[1])

    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        act()
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("options", [{}, {"refresh": 9}], ids=["each call", "refresh"])
def test_merging_beside_a_controlnet_leaves_it_whole(name, options):
    """The denoiser's blocks see half of the tokens, and the ControlNet gives what it gave."""
    pipe, arguments = PIPELINES[name]()
    given = []
    pipe.controlnet.register_forward_hook(lambda _, args, output: given.append(output))
    plain = latents(pipe, arguments)
    first = given[0]
    tokens = rows_of(first_block(pipe), lambda: latents(pipe, arguments))
    given.clear()
    handle = retom.apply(pipe, ratio=0, **options)
    assert torch.equal(latents(pipe, arguments), plain)
    handle.update(ratio=0.5)
    given.clear()
    merged = []
    fewer = rows_of(first_block(pipe), lambda: merged.append(latents(pipe, arguments)))
    assert [before - after for before, after in zip(tokens, fewer, strict=True)] == [24] * len(
        tokens
    )
    assert merged[0].isfinite().all()
    assert not torch.equal(merged[0], plain)
    torch.testing.assert_close(given[0], first, rtol=0, atol=0)
    handle.remove()
    assert torch.equal(latents(pipe, arguments), plain)


@pytest.mark.parametrize("name", ["sd3", "sd3.5 8b", "flux", "qwen", "hunyuan-dit"])
def test_a_controlnet_merges_on_request(name):
    """By a handle of its own, beside a denoiser that merges otherwise or not at all."""
    pipe, arguments = PIPELINES[name]()
    plain = latents(pipe, arguments)
    handle = retom.apply(pipe.controlnet, ratio=0.5)
    alone = latents(pipe, arguments)
    assert handle.summary().levels[0].kept == 24
    assert retom.handle_of(pipe) is None
    with retom.applied(pipe, ratio=0.25) as other:
        both = latents(pipe, arguments)
        assert other.summary().levels[0].kept == 36
    assert len({tuple(x.flatten().tolist()) for x in (plain, alone, both)}) == 3
    handle.remove()
    assert torch.equal(latents(pipe, arguments), plain)


def test_sana_and_its_controlnet_merge_around_linear_attention():
    model, controlnet = transformers.sana(), counting(controls.sana())
    arguments = transformers.sana_call(8, 6, 2)
    condition = {"controlnet_cond": transformers.draw(2, 4, 8, 6, seed=7)}

    @torch.no_grad()
    def run():
        given = controlnet(**arguments, **condition, return_dict=False)[0]
        return model(**arguments, controlnet_block_samples=tuple(given)).sample

    plain = run()
    handles = [retom.apply(model), retom.apply(controlnet, ratio=0.25)]
    merged = run()
    assert merged.isfinite().all()
    assert [handle.config.scope for handle in handles] == ["attention"] * 2
    assert [handle.summary().levels[0].kept for handle in handles] == [24, 36]
    handles[1].remove()
    assert not torch.equal(run(), merged)
    handles[0].remove()
    assert torch.equal(run(), plain)


REFUSED = {
    "several": (
        lambda: diffusers.SD3MultiControlNetModel([controls.sd3(), controls.sd3()]),
        "holds several ControlNets: apply retom to each of its nets",
    ),
    "several of flux": (
        lambda: diffusers.FluxMultiControlNetModel([controls.flux()]),
        "holds several ControlNets",
    ),
    "z-image": (controls.z_image, "stacks what its blocks give"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_a_controlnet_that_cannot_merge_says_why(build, message):
    with pytest.raises(retom.UnsupportedModelError, match=message):
        retom.apply(build())


def test_the_nets_of_several_merge_one_by_one():
    pipe, arguments = sd3()
    nets = [pipe.controlnet, counting(controls.sd3())]
    several = diffusers.SD3MultiControlNetModel(nets)
    pipe = pipeline(
        "StableDiffusion3ControlNetPipeline",
        pipe.transformer,
        flow(),
        vae=pipe.vae,
        controlnet=several,
    )
    scales = {"control_image": [CONDITION] * 2, "controlnet_conditioning_scale": [1.0, 0.5]}
    arguments = {**arguments, **scales}
    plain = latents(pipe, arguments)
    handles = [retom.apply(net, ratio=0.5) for net in several.nets]
    assert not torch.equal(latents(pipe, arguments), plain)
    assert [handle.summary().levels[0].kept for handle in handles] == [24, 24]


def test_a_union_controlnet_of_a_unet_merges():
    cls = diffusers.ControlNetUnionModel
    taken = inspect.signature(cls).parameters
    options = {k: v for k, v in tiny.sdxl_unet().config.items() if k in taken}
    torch.manual_seed(0)
    union = cls(**options, num_trans_channel=8, num_trans_head=2, num_proj_channel=8)
    controlnet = counting(union.eval())
    arguments = {
        **tiny.inputs("sdxl"),
        "controlnet_cond": [torch.rand(2, 3, 128, 128)],
        "control_type": torch.tensor([[1.0, 0, 0, 0, 0, 0]] * 2),
        "control_type_idx": [0],
        "return_dict": False,
    }

    @torch.no_grad()
    def run():
        down, mid = controlnet(**arguments)
        return torch.cat([item.flatten() for item in (*down, mid)])

    plain = run()
    handle = retom.apply(controlnet, ratio=0.5)
    assert not torch.equal(run(), plain)
    assert handle.summary().levels[0].kept == 32
    handle.remove()
    assert torch.equal(run(), plain)


@pytest.mark.skipif(transformers.IS_OLD, reason="the lists are those of the newest diffusers")
def test_every_controlnet_of_diffusers_has_a_row_or_a_reason():
    from test_rows_coverage import classes

    from retom.models.registry import DENOISERS
    from retom.models.unet import DENOISERS as UNETS

    found = {name for name in classes(r"\w+") if "ControlNet" in name and name.endswith("Model")}
    assert {"SD3ControlNetModel", "ControlNetModel", "UNetControlNetXSModel"} <= found
    assert found - set(DENOISERS) - UNETS - set(UNSUPPORTED_DENOISERS) == set()
