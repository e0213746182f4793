"""Training through merging: gradients are finite, reach everything, and survive checkpointing."""

import copy
import gc
from functools import partial

import pytest
import tiny
import torch
import torch.utils.checkpoint

import retom


def gradients(model, arguments):
    """Gradients of all parameters and of the sample, by name."""
    model.zero_grad(set_to_none=True)
    sample = arguments["sample"].clone().requires_grad_()
    output = model(**{**arguments, "sample": sample}).sample
    output.square().mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**found, "sample": sample.grad}


@pytest.mark.parametrize("merge", retom.plan.MERGE_MODES)
def test_gradients_are_finite_and_reach_everything(family, merge):
    model = family.build().train()
    retom.apply(model, merge=merge, levels="all")
    for name, gradient in gradients(model, tiny.inputs(family.name)).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_gradient_is_that_of_finite_differences():
    """Along one direction, in float64; the step is too small to change a plan."""
    model = tiny.sd15_unet().double()
    retom.apply(model)
    arguments = tiny.inputs(dtype=torch.float64)
    sample = arguments.pop("sample")
    direction = torch.randn_like(sample)

    def loss(x):
        return model(sample=x, **arguments).sample.square().mean()

    point = sample.clone().requires_grad_()
    loss(point).backward()
    step = 1e-6
    with torch.no_grad():
        slope = (loss(sample + step * direction) - loss(sample - step * direction)) / (2 * step)
    # Central differences of a smooth function: the error is about step² and rounding over step.
    torch.testing.assert_close((point.grad * direction).sum(), slope, rtol=1e-6, atol=1e-9)


def test_checkpointing_gives_the_same_gradients(family):
    arguments = tiny.inputs(family.name)
    model = family.build().train()
    retom.apply(model, levels="all")
    expected = gradients(model, arguments)

    model.enable_gradient_checkpointing()
    with tiny.tokens_seen(model) as seen:
        found = gradients(model, arguments)

    # Every layer ran twice, on as many tokens: once in the call, once again on the way back.
    assert all(len(counts) == 2 and counts[0] == counts[1] for counts in seen.values())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)


def gradients_of_both(model, first, second):
    """Gradients of one loss on two calls."""
    model.zero_grad(set_to_none=True)
    loss = model(**first).sample.square().mean() + 3 * model(**second).sample.square().mean()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_checkpointing_of_two_calls_before_one_backward():
    """The layers of each call are computed again with that call's plans."""
    first, second = tiny.inputs(seed=1), tiny.inputs(seed=2)
    model = tiny.sd15_unet().train()
    retom.apply(model, levels="all")

    expected = gradients_of_both(model, first, second)
    model.enable_gradient_checkpointing()
    found = gradients_of_both(model, first, second)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)


def test_state_is_clean_after_checkpointing():
    model = tiny.sd15_unet().train()
    handle = retom.apply(model, levels="all")
    model.enable_gradient_checkpointing()
    gradients(model, tiny.inputs())
    assert tiny.is_idle(handle)


@pytest.mark.parametrize("scope", ["attention+mlp", "block", "kv"])
def test_checkpointing_gives_the_same_gradients_in_every_scope(scope):
    """With plans that the second call takes from the first."""
    model = tiny.sd15_unet().train()
    handle = retom.apply(model, scope=scope, refresh=9)
    first = {**tiny.inputs(seed=1), "timestep": torch.tensor(900)}
    second = {**tiny.inputs(seed=2), "timestep": torch.tensor(800)}

    expected = gradients_of_both(model, first, second)
    model.enable_gradient_checkpointing()
    handle.reset()
    found = gradients_of_both(model, first, second)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)


def memories(block):
    return {h.memory for h in block._forward_pre_hooks.values() if hasattr(h, "memory")}


def test_nothing_is_kept_after_backward_nor_without_gradients_nor_in_a_copy():
    model = tiny.sd15_unet().train()
    retom.apply(model)
    block = model.down_blocks[0].attentions[0].transformer_blocks[0]
    (memory,) = memories(block)
    tiny.call(model, tiny.inputs())
    assert len(memory.kept) == 0
    model.enable_gradient_checkpointing()
    loss = model(**tiny.inputs()).sample.square().mean()
    assert len(memory.kept) == 7
    twin = copy.deepcopy(model.down_blocks[0].attentions[0].transformer_blocks[0])
    (of_twin,) = memories(twin)
    assert len(of_twin.kept) == 0
    loss.backward()
    del loss
    gc.collect()
    assert len(memory.kept) == 0


def test_switching_off_between_a_call_and_its_backward_keeps_the_gradients():
    model = tiny.sd15_unet().train()
    handle = retom.apply(model)
    arguments = tiny.inputs()
    expected = gradients(model, arguments)["conv_in.weight"]
    model.enable_gradient_checkpointing()
    model.zero_grad(set_to_none=True)
    loss = model(**arguments).sample.square().mean()
    handle.enabled = False
    loss.backward()
    assert torch.equal(model.conv_in.weight.grad, expected)
    assert not handle.enabled


def test_changing_merging_between_a_call_and_its_backward_is_refused():
    model = tiny.sd15_unet().train()
    handle = retom.apply(model)
    model.enable_gradient_checkpointing()
    loss = model(**tiny.inputs()).sample.square().mean()
    handle.update(ratio=0.3)
    with pytest.raises(retom.ConfigError, match=r"handle\.update\(\) after backward\(\)"):
        loss.backward()


def reentrant(module, *arguments):
    return torch.utils.checkpoint.checkpoint(module, *arguments, use_reentrant=True)


def test_reentrant_checkpointing_is_refused_because_it_forgets_the_call():
    """torch would not notice the other number of tokens, and the gradients would be wrong."""
    model = tiny.sd15_unet().train()
    handle = retom.apply(model)
    model.enable_gradient_checkpointing(reentrant)
    with pytest.raises(retom.ConfigError, match="use_reentrant=False"):
        gradients(model, tiny.inputs())
    handle.enabled = False
    assert gradients(model, tiny.inputs())["sample"].any()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_whole_denoiser_may_run_again(use_reentrant):
    model = tiny.sd15_unet().train()
    handle = retom.apply(model)
    arguments = tiny.inputs()
    expected = gradients(model, arguments)["sample"]
    sample = arguments.pop("sample").requires_grad_()

    def whole(x):
        return model(x, **arguments).sample

    again = partial(torch.utils.checkpoint.checkpoint, whole, use_reentrant=use_reentrant)
    again(sample).square().mean().backward()
    assert torch.equal(sample.grad, expected)

    handle.update(refresh=2)
    with pytest.raises(retom.ConfigError, match="Checkpoint its blocks instead"):
        again(sample).square().mean().backward()
