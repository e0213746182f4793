"""Importance-based merging: by hand, against a slow loop, and with guidance through pipelines."""

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from reference import assignment_of, cosine
from torch.nn.functional import adaptive_avg_pool2d

import retom
from retom import BudgetError, Config, ConfigError, Grid, Rule, ShapeError
from retom.guidance import Guidance
from retom.hints import Hints
from retom.methods import ImportanceToMe


def slow(tokens, importance, method, budget):
    """``{token that goes: its destination}``, one pair at a time."""
    tokens, importance = tokens.double().tolist(), importance.tolist()
    count = len(tokens)
    size = min(count, math.ceil(method.pool * (count - budget)))
    pool = sorted(range(count), key=lambda i: (-importance[i], i))[:size]
    draw = torch.rand(count, generator=torch.Generator().manual_seed(method.seed)).tolist()
    destinations = sorted(sorted(pool, key=lambda i: (-draw[i], i))[: max(1, count // 4)])
    best = {
        i: max(destinations, key=lambda d: cosine(tokens[i], tokens[d]))
        for i in range(count)
        if i not in destinations
    }
    order = sorted(best, key=lambda i: (i in pool, -cosine(tokens[i], tokens[best[i]]), i))
    return {i: best[i] for i in order[:budget]}


@pytest.mark.parametrize("pool", [1, 1.4, 5.0])
@pytest.mark.parametrize(("size", "ratio"), [((6, 8), 0.5), ((5, 7), 0.7), ((1, 9), 0.3)])
def test_plans_equal_the_slow_loop(size, ratio, pool):
    grid = Grid(*size)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, grid.num_tokens, 6, generator=generator)
    importance = torch.rand(2, grid.num_tokens, generator=generator)
    method = ImportanceToMe(ratio=ratio, pool=pool, seed=3)
    plan = method.plan(x, grid, Hints(importance=importance))
    for item in range(2):
        expected = slow(x[item], importance[item], method, method.num_removed(grid))
        assert assignment_of(plan, item) == expected


def test_where_the_prompt_matters_no_token_goes():
    importance = torch.zeros(1, 64)
    importance[0, :32] = 1.0
    x = torch.randn(1, 64, 6, generator=torch.Generator().manual_seed(0))
    plan = ImportanceToMe(ratio=0.5, pool=1).plan(x, Grid(8, 8), Hints(importance=importance))
    assert plan.kept[0].tolist() == list(range(32))


def test_without_a_last_call_no_token_is_more_important():
    x = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(0))
    method = ImportanceToMe()
    even = method.plan(x, Grid(8, 8), Hints(importance=torch.ones(2, 64)))
    free = method.plan(x, Grid(8, 8))
    everything = ImportanceToMe(pool=100).plan(x, Grid(8, 8), Hints(importance=x[..., 0]))
    assert torch.equal(free.slot, everything.slot)
    assert not torch.equal(free.slot, even.slot)  # a tie is broken by place, nothing else


@pytest.fixture
def hints(monkeypatch):
    """The importance that each plan got."""
    seen = []
    original = ImportanceToMe.match

    def noted(self, x, grid, budget, hints):
        seen.append(hints.importance)
        return original(self, x, grid, budget, hints)

    monkeypatch.setattr(ImportanceToMe, "match", noted)
    return seen


@pytest.mark.parametrize("options", [{}, {"height": 104, "width": 72}], ids=["square", "odd"])
def test_a_plan_sees_where_the_last_outputs_differed(hints, options):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, Config(method=ImportanceToMe(), share="level"))
    outputs = []
    pipe.unet.register_forward_hook(lambda _module, _args, output: outputs.append(output[0]))
    tiny.latents(pipe, num_inference_steps=3, **options)
    assert hints[0] is None
    for importance, output in zip(hints[1:], outputs, strict=False):
        without, with_prompt = output.float().chunk(2)
        difference = (with_prompt - without).abs().mean(dim=1)
        assert difference.max() > 0
        assert importance.shape == (2, difference[0].numel())
        torch.testing.assert_close(importance, difference.reshape(1, -1).expand(2, -1))


def test_it_is_pooled_to_the_grid_of_a_level(hints):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, Config(method=ImportanceToMe(), levels=(1,), share="level"))
    outputs = []
    pipe.unet.register_forward_hook(lambda _module, _args, output: outputs.append(output[0]))
    tiny.latents(pipe)
    without, with_prompt = outputs[0].chunk(2)
    pooled = adaptive_avg_pool2d((with_prompt - without).abs().mean(dim=1), (8, 8))
    torch.testing.assert_close(hints[1], pooled.reshape(1, 64).expand(2, -1))


def test_every_picture_begins_without(hints):
    pipe = tiny.sd_pipeline()
    retom.apply(pipe, Config(method=ImportanceToMe(), share="level"))
    first = tiny.latents(pipe, num_inference_steps=3)
    tiny.latents(pipe, "a blue pear", seed=5, num_inference_steps=3)
    assert torch.equal(tiny.latents(pipe, num_inference_steps=3), first)
    assert [importance is None for importance in hints] == [True, False, False] * 3


def test_a_failed_call_and_a_reset_forget(hints):
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe, Config(method=ImportanceToMe()))
    tiny.latents(pipe)
    assert handle._state.guidance.difference is not None
    handle.reset()
    assert handle._state.guidance.difference is None
    tiny.latents(pipe)
    hook = pipe.unet.conv_out.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.latents(pipe)
    hook.remove()
    assert handle._state.guidance.difference is None
    assert tiny.is_idle(handle)


def test_a_pipeline_without_guidance_is_refused():
    pipe = tiny.sd_pipeline()
    handle = retom.apply(pipe, Config(method=ImportanceToMe()))
    with pytest.raises(ConfigError, match=r"batch of 1 does not: .* Use guidance_scale > 1"):
        tiny.latents(pipe, guidance_scale=1.0)
    assert tiny.is_idle(handle)
    handle.enabled = False
    tiny.latents(pipe, guidance_scale=1.0)


def test_two_pictures_without_guidance_are_no_pair():
    model = tiny.sd15_unet()
    handle = retom.apply(model, Config(method=ImportanceToMe()))
    with pytest.raises(ConfigError, match="batch of 2 does not"):
        tiny.call(model, tiny.inputs(batch=2))
    handle.update(method=retom.ReToM())
    tiny.call(model, tiny.inputs(batch=2))


def test_rules_may_ask_for_it_at_some_noise_alone(hints):
    pipe = tiny.sd_pipeline()
    rules = (Rule(method=ImportanceToMe(), levels=(0,), noise=(0.0, 0.6)),)
    retom.apply(pipe, rules=rules, share="level")
    tiny.latents(pipe, num_inference_steps=4)  # timesteps 751, 501, 251, 1
    assert [importance is None for importance in hints] == [False] * 3


def test_other_batches_and_other_outputs():
    guidance = Guidance()
    guidance.ends((torch.randn(4, 3, 6, 6),))
    assert guidance.importance(Grid(3, 3), 4).shape == (4, 9)
    assert guidance.importance(Grid(3, 3), 2) is None
    guidance.ends(SimpleNamespace(sample=torch.randn(2, 3, 6, 6)))
    assert guidance.importance(Grid(6, 6), 2).shape == (2, 36)
    guidance.comes(torch.zeros(4, 3, 6, 6))
    assert guidance.difference is None
    for output in (([torch.zeros(2, 3, 6, 6)], None), object()):
        with pytest.raises(ConfigError, match="needs a denoiser whose output is a tensor"):
            guidance.ends(output)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="ratio is the fraction"):
        ImportanceToMe(ratio=1.0)
    for pool in (0.9, float("inf"), "all", True):
        with pytest.raises(ConfigError, match="pool is a multiple"):
            ImportanceToMe(pool=pool)
    with pytest.raises(ConfigError, match="seed is a whole number"):
        ImportanceToMe(seed=-1)
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        ImportanceToMe().plan(torch.randn(1, 9, 4), Grid(2, 4))
    assert ImportanceToMe(ratio=0.75).num_removed(Grid(4, 4)) == 12
    with pytest.raises(BudgetError, match=r"only the 12 that are no .* ratio to 0.75 or less"):
        ImportanceToMe(ratio=0.85).num_removed(Grid(4, 4))
    with pytest.raises(ConfigError, match="ImportanceToMe cannot protect tokens"):
        ImportanceToMe().check_protected(torch.zeros(16, dtype=torch.bool), Grid(4, 4))


def test_it_survives_json():
    config = Config(method=ImportanceToMe(ratio=0.3, pool=2.0, seed=7))
    assert Config.from_dict(config.to_dict()) == config
