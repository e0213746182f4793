"""Switched off means off: nothing is looked at, checked or remembered until it is on again."""

import pytest
import tiny
import torch

import retom
from retom import BudgetError, Rule

FIRST = f"{tiny.FIRST}.attn1"


def kept(model, timestep=500, **options):
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs(**options), timestep=torch.as_tensor(timestep))
    return seen[FIRST]


IMPOSSIBLE = {
    "too much protected": {},
    "an allocation that cannot protect": {"allocation": "multiscale", "reach": 0},
}


@pytest.mark.parametrize("options", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_mask_that_cannot_be_honoured_is_no_matter_while_merging_is_off(options):
    model = tiny.sd15_unet()
    handle = retom.apply(model, **options)
    handle.protect(torch.ones(16, 16))
    with pytest.raises(retom.ConfigError, match="protect"):
        kept(model)
    handle.enabled = False
    assert kept(model) == [256]
    handle.enabled = True
    with pytest.raises(retom.ConfigError, match="protect"):
        kept(model)


@pytest.mark.parametrize("ratio", [0, 0.0])
def test_nor_is_it_at_ratio_0(ratio):
    model = tiny.sd15_unet()
    handle = retom.apply(model, ratio=ratio)
    handle.protect(torch.ones(16, 16))
    assert kept(model) == [256]
    handle.update(ratio=0.5)
    with pytest.raises(BudgetError, match="protect less"):
        kept(model)


def test_nor_are_several_timesteps_in_a_call():
    model = tiny.sd15_unet()
    handle = retom.apply(model, refresh=2)
    handle.enabled = False
    assert kept(model, timestep=[500, 400]) == [256]


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "block", "kv"])
def test_plans_do_not_outlive_a_pause(scope):
    """The clock does not run while merging is off, so what it knew would be another picture's."""
    model, fresh = tiny.sd15_unet(), tiny.sd15_unet()
    handle = retom.apply(model, refresh=9, scope=scope)
    retom.apply(fresh, refresh=9, scope=scope)
    late = {**tiny.inputs(seed=5), "timestep": torch.tensor(300)}
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(900))
    reused = tiny.call(model, late)

    handle.enabled = False
    handle.enabled = True

    assert torch.equal(tiny.call(model, late), tiny.call(fresh, late))
    assert not torch.equal(reused, tiny.call(fresh, late))


def test_setting_the_switch_to_what_it_is_forgets_nothing():
    model = tiny.sd15_unet()
    handle = retom.apply(model, refresh=9)
    late = {**tiny.inputs(seed=5), "timestep": torch.tensor(300)}
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(900))
    reused = tiny.call(model, late)
    handle.reset()
    tiny.call(model, tiny.inputs(), timestep=torch.tensor(900))
    handle.enabled = True
    assert torch.equal(tiny.call(model, late), reused)


def test_rules_hold_again_after_a_pause():
    model = tiny.sd15_unet()
    handle = retom.apply(model, rules=(Rule(method=None, noise=(0.0, 0.4)),))
    assert kept(model, 500) == [128]
    handle.enabled = False
    assert kept(model, 300) == [256]
    handle.enabled = True
    assert kept(model, 300) == [256]
    assert kept(model, 500) == [128]


@pytest.mark.parametrize("place", ["attn1.to_q", "ff"])
def test_switching_off_in_the_middle_of_a_call_spares_the_layer_that_runs(place):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model)
    merged = tiny.call(model, arguments)

    def off(*_):
        handle.enabled = False

    hook = model.get_submodule(f"{tiny.FIRST}.{place}").register_forward_pre_hook(off)
    between = tiny.call(model, arguments)
    hook.remove()
    assert between.shape == merged.shape
    assert not torch.equal(between, unmerged)  # the first layer had merged
    assert torch.equal(tiny.call(model, arguments), unmerged)
    assert tiny.is_idle(handle)
