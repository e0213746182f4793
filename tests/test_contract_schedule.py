"""Rules by level and noise, refresh, alternation and protection, through real pipelines."""

import diffusers
import pytest
import tiny
import torch

import retom
from retom import BudgetError, Config, ConfigError, ReToM, Rule

FIRST = f"{tiny.FIRST}.attn1"
SECOND = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def test_rules_by_noise_change_what_merges_while_a_picture_is_drawn():
    """DDIM with four steps: timesteps 751, 501, 251, 1."""
    pipe = tiny.sd_pipeline()
    rules = (Rule(method=None, noise=(0.0, 0.1)), Rule(method=ReToM(ratio=0.25), noise=(0.6, 1.0)))
    retom.apply(pipe, rules=rules)
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, num_inference_steps=4)
    assert seen[FIRST] == [192, 128, 128, 256]


def test_noise_leaves_the_steps_outside_of_it_whole():
    """DDIM with four steps: timesteps 751, 501, 251, 1."""
    pipe = tiny.sd_pipeline()
    unmerged = tiny.latents(pipe, num_inference_steps=4)
    handle = retom.apply(pipe, noise=(0.2, 0.6))
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, num_inference_steps=4)
    assert seen[FIRST] == [256, 128, 128, 256]
    whole = [level.kept for level in handle.summary().levels if level.level == 0]
    assert whole == [256, 128, 256]  # from pure noise down
    handle.update(noise=(0.9, 1.0))  # no step is so noisy
    assert torch.equal(tiny.latents(pipe, num_inference_steps=4), unmerged)


def test_noise_bounds_the_method_and_rules_are_exceptions_to_it():
    config = Config(noise=(0.2, 0.8), rules=(Rule(method=ReToM(ratio=0.1), noise=(0.9, 1.0)),))
    at = {noise: config.method_at(0, noise) for noise in (0.1, 0.2, 0.8, 0.85, 0.95)}
    assert at == {0.1: None, 0.2: ReToM(), 0.8: ReToM(), 0.85: None, 0.95: ReToM(ratio=0.1)}
    assert config.method_at(0, None) is None
    assert config.method_at(1, 0.5) is None
    assert config.plateaus() == ((0.9, 1.0), (0.8, 0.9), (0.2, 0.8), (0.0, 0.2))
    assert config.needs_timestep
    assert not config.steady
    assert Config(noise=[0, 1]) == Config()
    assert Config().steady


def test_noise_is_the_same_as_a_rule_that_leaves_the_rest_whole():
    by_noise, by_rule = tiny.sd_pipeline(), tiny.sd_pipeline()
    retom.apply(by_noise, noise=(0.3, 1.0))
    retom.apply(by_rule, rules=(Rule(method=None, noise=(0.0, 0.2999)),))
    assert torch.equal(tiny.latents(by_noise), tiny.latents(by_rule))


def test_a_scheduler_without_timesteps_of_training_is_refused():
    """EDM tells the denoiser a quarter of the logarithm of sigma, which is negative in the end."""
    pipe = tiny.sd_pipeline()
    pipe.scheduler = diffusers.EDMEulerScheduler()
    retom.apply(pipe, noise=(0.2, 1.0))
    with pytest.raises(ConfigError, match=r"noise level of -0\.00.* EDM's, cannot be"):
        tiny.latents(pipe, num_inference_steps=4)


def test_rules_by_level_replace_the_method_there():
    model = tiny.sd15_unet()
    retom.apply(model, levels=(0,), rules=(Rule(method=ReToM(ratio=0.25), levels=(1,)),))
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs())
    assert seen[FIRST] == [128]
    assert seen[SECOND] == [48]


def test_the_last_rule_that_holds_decides():
    config = Config(rules=(Rule(method=None), Rule(method=ReToM(ratio=0.1), noise=(0.5, 1.0))))
    assert config.method_at(0, 0.2) is None
    assert config.method_at(0, 0.7) == ReToM(ratio=0.1)
    assert config.method_at(3, 0.7) == ReToM(ratio=0.1)


def test_image_to_image_starts_where_its_noise_says():
    pipe = tiny.sd_pipeline(diffusers.StableDiffusionImg2ImgPipeline)
    retom.apply(pipe, rules=(Rule(method=None, noise=(0.0, 0.3)),))
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, image=torch.zeros(1, 3, 128, 128), strength=0.75, num_inference_steps=4)
    assert seen[FIRST] == [128, 256, 256]  # timesteps 501, 251, 1


@pytest.mark.parametrize(
    ("refresh", "expected"), [(None, 4), (1, 4), (2, 2), (4, 1), ((0.6,), 2), ((0.3, 0.1), 3)]
)
def test_plans_are_made_as_often_as_asked(plans_made, refresh, expected):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, refresh=refresh, share="level")
    tiny.latents(pipe, num_inference_steps=4)
    assert len(plans_made) == expected
    tiny.latents(pipe, num_inference_steps=4)
    assert len(plans_made) == 2 * expected


def test_refresh_1_is_a_plan_in_every_call_where_a_step_is_one_call():
    every, shared = tiny.sd_pipeline(), tiny.sd_pipeline()
    retom.apply(every)
    retom.apply(shared, refresh=1)
    assert torch.equal(tiny.latents(every), tiny.latents(shared))


@pytest.mark.parametrize(("refresh", "expected"), [(None, 5), (1, 3), (3, 1)])
def test_two_evaluations_of_heun_share_a_plan(plans_made, refresh, expected):
    pipe = tiny.sd_pipeline()
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    retom.apply(pipe, refresh=refresh, share="level")
    tiny.latents(pipe, num_inference_steps=3)
    assert len(plans_made) == expected


def test_a_picture_with_reused_plans_does_not_depend_on_the_last_one():
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, refresh=9)
    first = tiny.latents(pipe)
    tiny.latents(pipe, "a blue pear", seed=5)
    assert torch.equal(tiny.latents(pipe), first)


@pytest.mark.parametrize("where", ["denoiser", "callback"])
def test_an_error_leaves_no_plan_to_reuse(where):
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe, refresh=9)
    fresh = tiny.latents(pipe)

    def broken(*_arguments):
        raise KeyError

    if where == "denoiser":
        hook = pipe.unet.conv_out.register_forward_pre_hook(broken)
        with pytest.raises(KeyError):
            tiny.latents(pipe, "a blue pear", seed=5)
        hook.remove()
        assert tiny.is_idle(handle)
    else:
        with pytest.raises(KeyError):
            tiny.latents(pipe, "a blue pear", seed=5, callback_on_step_end=broken)
    assert torch.equal(tiny.latents(pipe), fresh)


def test_windows_alternate_between_timesteps(plans_made):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, alternate=True, share="level")
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, num_inference_steps=4)
    assert [plan.turn for plan in plans_made] == [0, 1, 0, 1]
    assert seen[FIRST] == [128] * 4


def test_refresh_at_another_size_or_batch_plans_again(plans_made):
    model = tiny.sd15_unet()
    retom.apply(model, refresh=9, share="level")
    for step, options in enumerate(({}, {}, {"size": (8, 16)}, {"size": (16, 8)}, {"batch": 1})):
        arguments = tiny.inputs(**options)
        tiny.call(model, arguments, timestep=torch.tensor(900 - step))
    assert len(plans_made) == 4


def test_several_timesteps_in_a_call_are_refused():
    model = tiny.sd15_unet()
    handle = retom.apply(model, refresh=2)
    with pytest.raises(ConfigError, match="one timestep for all pictures"):
        tiny.call(model, tiny.inputs(), timestep=torch.tensor([500, 400]))
    assert tiny.is_idle(handle)


def test_protected_tokens_stay_and_pass_through_unchanged():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    mask = torch.zeros(128, 128)
    mask[:64, :56] = 1.0
    handle.protect(mask)
    kept = []
    hook = model.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    hook.register_forward_pre_hook(lambda *_: kept.append(handle._state.in_flight.plan))
    tiny.call(model, tiny.inputs())
    protected = {row * 16 + column for row in range(8) for column in range(7)}
    for item in range(2):
        assert protected <= set(kept[0].kept[item].tolist())
        alone = kept[0].slot[item].bincount()
        slots = {kept[0].kept[item].tolist().index(token) for token in protected}
        assert all(alone[slot] == 1 for slot in slots)
    handle.protect(None)
    tiny.call(model, tiny.inputs())
    assert not protected <= set(kept[1].kept[0].tolist())


@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
def test_a_mask_does_not_change_how_many_go(allocation, reach):
    model = tiny.sd15_unet()
    handle = retom.apply(model, allocation=allocation, reach=reach)
    handle.protect(torch.ones(16, 16, dtype=torch.bool).tril(-4))
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs())
    assert seen[FIRST] == [128]


def test_a_mask_that_leaves_too_little_is_refused_before_the_first_layer():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    handle.protect(torch.ones(16, 16))
    with tiny.tokens_seen(model) as seen, pytest.raises(BudgetError, match="protect less"):
        tiny.call(model, tiny.inputs())
    assert not seen
    assert tiny.is_idle(handle)


@pytest.mark.parametrize("mask", ["nowhere", torch.zeros(2, 3, 4, 4), torch.zeros(0, 3), object()])
def test_what_is_no_mask_is_refused(mask):
    handle = retom.apply(tiny.sd15_unet())
    with pytest.raises(ConfigError, match="protect takes"):
        handle.protect(mask)


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0.0, 2.0]]),
        torch.tensor([[-0.1, 1.0]]),
        torch.tensor([[float("nan"), 1.0]]),
        torch.tensor([[0, 256]]),
        torch.tensor([[-1, 1]]),
        torch.tensor([[0j, 1j]]),
    ],
)
def test_a_mask_of_another_range_is_refused(mask):
    handle = retom.apply(tiny.sd15_unet())
    with pytest.raises(ConfigError, match="floats from 0 to 1 or whole numbers from 0 to 255"):
        handle.protect(mask)


@pytest.mark.parametrize(
    ("mask", "protected"),
    [
        (torch.tensor([[0, 1]], dtype=torch.uint8), [[False, True]]),  # labels
        (torch.tensor([[0, 0]]), [[False, False]]),
        (torch.tensor([[1, 2]]), [[False, False]]),  # grey values: both all but black
        (torch.tensor([[127, 128]], dtype=torch.uint8), [[False, True]]),
        (torch.tensor([[0.49, 0.5]], dtype=torch.float16), [[False, True]]),
    ],
)
def test_what_a_mask_means(mask, protected):
    handle = retom.apply(tiny.sd15_unet())
    handle.protect(mask)
    assert handle._state.mask.tolist() == protected


def test_the_mask_of_an_inpainting_pipeline_serves():
    from PIL import Image

    handle = retom.apply(tiny.sd15_unet())
    picture = Image.new("L", (32, 16))
    picture.paste(255, (0, 0, 16, 16))
    handle.protect(picture)
    assert handle._state.mask.shape == (16, 32)
    assert handle._state.mask[:, :16].all()
    assert not handle._state.mask[:, 16:].any()


def test_what_is_painted_anew_stays_whole(plans_made):
    """An inpainting pipeline whose mask, all of the left half, protects what it paints."""
    from PIL import Image

    pipe = tiny.sd_pipeline(diffusers.StableDiffusionInpaintPipeline)
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    options = {
        "image": torch.zeros(1, 3, 128, 128),
        "mask_image": mask,
        "height": 128,
        "width": 128,
        "strength": 0.9,
        "num_inference_steps": 3,
    }
    handle = retom.apply(pipe, ratio=0.25)
    handle.protect(mask)
    with tiny.tokens_seen(pipe.unet) as seen:
        tiny.latents(pipe, **options)
    assert seen[FIRST] == [192, 192]
    left = (torch.arange(256) % 16 < 8).nonzero().flatten()
    for plan in (made.plan for made in plans_made):
        for item in range(plan.batch_size):
            assert torch.isin(left, plan.kept[item]).all()
            slots = plan.slot[item]
            assert (slots.bincount()[slots[left]] == 1).all()
    assert len(plans_made) > 0


def test_multiscale_cannot_protect():
    model = tiny.sd15_unet()
    handle = retom.apply(model, allocation="multiscale", reach=0)
    handle.protect(torch.eye(16))
    with pytest.raises(ConfigError, match="cannot protect tokens"):
        tiny.call(model, tiny.inputs())


def test_the_summary_tells_stretches_of_noise_apart():
    handle = retom.apply(tiny.sd15_unet(), rules=(Rule(method=None, noise=(0.0, 0.25)),))
    rows = [row for row in handle.summary().levels if row.level == 0]
    assert [(row.noise, row.kept) for row in rows] == [((0.25, 1.0), 128), ((0.0, 0.25), 256)]
    assert "all noise levels counting alike" in str(handle.summary())


def test_rules_survive_json():
    config = Config(
        method=ReToM(alternate=True),
        scope="kv",
        rules=(Rule(method=None, noise=(0.0, 0.2)), Rule(method=ReToM(ratio=0.3), levels=(0, 2))),
        refresh=(0.9, 0.5),
        share="layer",
        size_weighted=True,
    )
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(Config(refresh=3).to_dict()).refresh == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": (0.5, 0.2)}, "0 <= low <= high <= 1"),
        ({"noise": 0.5}, "noise is"),
        ({"noise": (0, 2)}, "1 is pure noise"),
        ({"levels": -1}, "levels is"),
        ({"method": "retom"}, "method is an object"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Rule(**{"method": None, **options})


@pytest.mark.parametrize("refresh", [0, -1, 1.5, True, (), (2.0,), "often"])
def test_impossible_refreshes_are_refused(refresh):
    with pytest.raises(ConfigError, match="refresh is None"):
        Config(refresh=refresh)


@pytest.mark.parametrize("data", [{"levels": [0]}, {"method": None, "step": 3}, 4])
def test_unreadable_rules_are_refused(data):
    plain = Config().to_dict()
    with pytest.raises(ConfigError, match="A rule is an object"):
        Config.from_dict({**plain, "rules": [data]})


@pytest.mark.parametrize("order", ["apply first", "compile first"])
def test_rules_by_noise_work_outside_a_compiled_graph_alone(order):
    model = tiny.unet(attention=(True,), mid_block_type=None)  # quick to trace
    rules = (Rule(method=None, noise=(0.0, 0.4)),)
    torch.compiler.reset()
    if order == "apply first":
        retom.apply(model, rules=rules)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        with pytest.raises(Exception, match="compiled graph cannot"):
            tiny.call(compiled, tiny.inputs())
    else:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        retom.apply(compiled, rules=rules)
        for timestep, kept in ((500, 128), (300, 256), (450, 128)):
            with tiny.tokens_seen(model) as seen:
                tiny.call(compiled, tiny.inputs(), timestep=torch.tensor(timestep))
            assert seen[FIRST] == [kept]
    torch.compiler.reset()
