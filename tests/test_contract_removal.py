"""Off is bit-exact, and removal leaves nothing behind."""

import pytest
import tiny
import torch

import retom


def trace_of(model):
    """What applying could leave on a module: its class, attributes, hooks, and flags of hooks."""
    return {
        name: (
            type(module),
            frozenset(vars(module)),
            {
                key: tuple(value.items())
                for key, value in vars(module).items()
                if "hooks" in key and isinstance(value, dict)
            },
        )
        for name, module in model.named_modules()
    }


def test_applying_is_visible_to_the_trace():
    """Else the tests below could not fail."""
    model = tiny.sd15_unet()
    before = trace_of(model)
    retom.apply(model)
    after = trace_of(model)
    assert {name for name in before if before[name] != after[name]} >= {
        "",
        "down_blocks.0.attentions.0",
    }
    assert any("_forward_hooks_always_called" in hooks for _, _, hooks in after.values())


def test_removal_restores_bit_exact_outputs_and_leaves_nothing(family):
    model = family.build()
    arguments = tiny.inputs(family.name)
    before = trace_of(model)
    unmerged = tiny.call(model, arguments)

    handle = retom.apply(model, levels="all")
    assert not torch.equal(tiny.call(model, arguments), unmerged)
    handle.update(ratio=0.3)
    tiny.call(model, arguments)
    handle.remove()

    assert trace_of(model) == before
    assert torch.equal(tiny.call(model, arguments), unmerged)
    assert retom.handle_of(model) is None


def test_hooks_of_others_survive_removal():
    model = tiny.sd15_unet()
    seen = []
    layer = model.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    layer.register_forward_hook(lambda *_: seen.append("before"))
    handle = retom.apply(model)
    layer.register_forward_hook(lambda *_: seen.append("after"))
    handle.remove()
    tiny.call(model, tiny.inputs())
    assert seen == ["before", "after"]


def test_ratio_0_is_bit_exact_and_makes_no_plan(family, monkeypatch):
    plans = []
    make = retom.ReToM.plan
    monkeypatch.setattr(retom.ReToM, "plan", lambda *args: plans.append(1) or make(*args))
    model = family.build()
    arguments = tiny.inputs(family.name)
    unmerged = tiny.call(model, arguments)

    handle = retom.apply(model, ratio=0, levels="all")
    assert torch.equal(tiny.call(model, arguments), unmerged)
    assert not plans
    handle.update(ratio=0.5)
    tiny.call(model, arguments)
    assert plans  # the spy works


def test_switched_off_is_bit_exact(family):
    model = family.build()
    arguments = tiny.inputs(family.name)
    unmerged = tiny.call(model, arguments)

    handle = retom.apply(model, levels="all")
    merged = tiny.call(model, arguments)
    handle.enabled = False
    assert torch.equal(tiny.call(model, arguments), unmerged)
    handle.enabled = True
    assert torch.equal(tiny.call(model, arguments), merged)


def test_removing_twice_does_nothing():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    handle.remove()
    handle.remove()
    assert not handle.applied


def test_removed_handle_does_not_remove_its_successor():
    model = tiny.sd15_unet()
    first = retom.apply(model)
    first.remove()
    second = retom.apply(model)
    first.remove()
    assert retom.handle_of(model) is second
    assert second.applied


def test_apply_after_removal_merges_as_at_first():
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    handle = retom.apply(model)
    merged = tiny.call(model, arguments)
    handle.remove()
    retom.apply(model)
    assert torch.equal(tiny.call(model, arguments), merged)


def test_second_apply_is_refused_and_changes_nothing():
    model = tiny.sd15_unet()
    handle = retom.apply(model)
    before = trace_of(model)
    with pytest.raises(retom.AlreadyAppliedError, match=r"already been applied.*handle\.update"):
        retom.apply(model, ratio=0.3)
    assert trace_of(model) == before
    assert retom.handle_of(model) is handle
    assert handle.config.method.ratio == 0.5


def test_replace_takes_the_first_handle_off():
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    first = retom.apply(model, ratio=0.5)
    second = retom.apply(model, ratio=0.25, replace=True)
    assert not first.applied
    assert retom.handle_of(model) is second
    with tiny.tokens_seen(model) as seen:
        tiny.call(model, arguments)
    assert seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1"] == [192]


def test_failed_replace_keeps_the_first_handle():
    model = tiny.sd15_unet()
    first = retom.apply(model)
    with pytest.raises(retom.BudgetError):
        retom.apply(model, ratio=0.9, window=(2, 2), replace=True)
    assert retom.handle_of(model) is first


def test_context_manager_removes_at_the_end():
    model = tiny.sd15_unet()
    before = trace_of(model)
    with retom.applied(model, ratio=0.3) as handle:
        assert retom.handle_of(model) is handle
        assert handle.config.method.ratio == 0.3
    assert trace_of(model) == before


def test_context_manager_removes_after_an_exception():
    model = tiny.sd15_unet()
    before = trace_of(model)
    with pytest.raises(KeyboardInterrupt), retom.applied(model):
        raise KeyboardInterrupt
    assert trace_of(model) == before
