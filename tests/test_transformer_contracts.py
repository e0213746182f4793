"""What the UNets' contracts say, on transformers: other methods and plans, scores, gradients."""

import pytest
import tiny_transformers as tiny
import torch
from tiny_transformers import FAMILIES

import retom
from retom.hints import NO_HINTS
from retom.methods import SDTM, ImportanceToMe, ReToM, SiTo, ToMA


def run(model, arguments):
    with torch.no_grad():
        return model(**arguments, return_dict=False)[0]


def gradients(model, arguments):
    """Gradients of all parameters that the loss reaches, by name."""
    model.zero_grad(set_to_none=True)
    model(**arguments, return_dict=False)[0].square().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


PLANS = {
    "rows": ReToM(ratio=0.5),
    "soft": ReToM(ratio=0.5, unmerge="similarity"),
    "linear": ReToM(ratio=0.5, unmerge="linear"),
    "rematched": ReToM(ratio=0.5, rematch=True),
    "matrix": ToMA(ratio=0.5),
    "sito": SiTo(ratio=0.5),
    "sdtm": SDTM(ratio=0.5),
}


@pytest.mark.parametrize("method", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_every_kind_of_plan_merges_in_blocks(name, method):
    """The batch is one picture twice; flux has rotary tables and makes one plan for both.

    Tokens that a batch shares have length one, so the soft plan's weights are other ones.
    """
    family = FAMILIES[name]
    model, one = family.build(), family.call(8, 6, 1)
    plain = run(model, one)
    retom.apply(model, retom.Config(method=method))
    merged = run(model, one)
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)
    whole = ("img_ids", "txt_ids")
    twice = {k: v if k in whole else v.repeat(2, *[1] * (v.ndim - 1)) for k, v in one.items()}
    if (name, method) != ("flux", PLANS["soft"]):
        torch.testing.assert_close(run(model, twice), torch.cat([merged, merged]))
    else:
        assert run(model, twice).isfinite().all()


@pytest.mark.parametrize("method", PLANS.values(), ids=PLANS)
def test_a_repeated_plan_is_that_of_every_item(method):
    grid, x = retom.Grid(6, 8), tiny.draw(1, 48, 16)
    plan = method.plan(x, grid)
    several = plan.repeated(3)
    tokens = tiny.draw(3, 48, 4, seed=5)
    assert several.batch_size == 3
    apart = [plan.merge(item[None]) for item in tokens]
    torch.testing.assert_close(several.merge(tokens), torch.cat(apart))
    back = torch.cat(
        [plan.unmerge(merged, own[None]) for merged, own in zip(apart, tokens, strict=True)]
    )
    torch.testing.assert_close(several.unmerge(several.merge(tokens), tokens), back)
    assert torch.equal(several.log_sizes, plan.log_sizes.expand(3, -1))
    assert plan.repeated(1) is plan


def test_a_plan_of_any_kind_is_picked_along_any_axis():
    grid, x = retom.Grid(4, 4), tiny.draw(2, 16, 8)
    side = tiny.draw(3, 16, 2, seed=4)
    for method in PLANS.values():
        plan = method.plan(x, grid)
        picked = plan.pick(side, dim=1, batch=2)
        assert picked.shape == (3, plan.num_kept, 2)
        for item in range(2):
            assert torch.equal(picked[..., item], side[:, plan.kept[item], item])


@pytest.mark.parametrize("name", ["sd3", "pixart", "flux"])
def test_a_block_compares_its_input_whichever_of_both_scores(name):
    family = FAMILIES[name]
    outputs = []
    for score in ("input", "block"):
        model = family.build()
        retom.apply(model, score=score)
        outputs.append(run(model, family.call(8, 6, 2)))
    assert torch.equal(*outputs)


def test_keys_are_not_compared_where_whole_blocks_merge():
    for name in ("flux", "pixart"):
        with pytest.raises(retom.ConfigError, match="which scope='block' merges before"):
            retom.apply(FAMILIES[name].build(), score="keys")


def test_pixart_compares_keys_in_scope_attention():
    outputs = []
    for score in ("input", "block", "keys"):
        model = FAMILIES["pixart"].build()
        retom.apply(model, score=score, scope="attention")
        outputs.append(run(model, FAMILIES["pixart"].call(8, 6, 2)))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_sizes_weigh_where_the_scope_that_auto_means_has_it():
    handle = retom.apply(FAMILIES["flux"].build())
    assert (handle.config.scope, handle.config.weighs_by_size) == ("block", False)
    handle = retom.apply(FAMILIES["pixart"].build(), scope="attention")
    assert handle.config.weighs_by_size
    with pytest.raises(retom.ConfigError, match="size_weighted changes self-attention alone"):
        retom.apply(FAMILIES["flux"].build(), size_weighted=True)


CHECKPOINTED = [
    "sd3",
    "flux",
    "flux kontext",
    "qwen edit",
    "pixart",
    "hidream",
    "lumina2",
    "ernie",
    "lumina2 uneven",
    "ideogram4",
]


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpointing_gives_the_same_gradients(name):
    family = FAMILIES[name]
    model, arguments = family.build().train(), family.call(8, 6, 2)
    handle = retom.apply(model)
    expected = gradients(model, arguments)
    model.enable_gradient_checkpointing()
    blocks = []
    for site in handle._layout.sites:
        site.block.register_forward_pre_hook(lambda module, _: blocks.append(module))
    found = gradients(model, arguments)
    # Once in the call and once on the way back; diffusers leaves out the refiners of Lumina 2.
    refiners = sum("refiner" in site.name for site in handle._layout.sites)
    assert len(blocks) == 2 * len(handle._layout.sites) - refiners
    assert found.keys() == expected.keys()
    for parameter in expected:
        torch.testing.assert_close(found[parameter], expected[parameter], rtol=0, atol=0)


def test_a_merging_that_changed_before_backward_is_refused():
    model = FAMILIES["sd3"].build().train()
    handle = retom.apply(model)
    model.enable_gradient_checkpointing()
    loss = model(**FAMILIES["sd3"].call(8, 6, 2), return_dict=False)[0].square().mean()
    handle.update(ratio=0.25)
    with pytest.raises(retom.ConfigError, match=r"Call handle.update\(\) after backward"):
        loss.backward()


def guided(name):
    """Arguments with both halves of guidance: the same latents, another text."""
    arguments = FAMILIES[name].call(8, 6, 2)
    half = arguments["hidden_states"][:1]
    return {**arguments, "hidden_states": half.repeat(2, 1, 1, 1)}


@pytest.mark.parametrize(("name", "items"), [("sd3", 2), ("cogview4", 1)])
def test_importance_is_that_of_the_last_output(name, items, monkeypatch):
    """A batch that shares a plan shares the mean of its importance."""
    seen = []
    original = ImportanceToMe.match

    def noted(self, x, grid, budget, hints):
        seen.append(hints.importance)
        return original(self, x, grid, budget, hints)

    monkeypatch.setattr(ImportanceToMe, "match", noted)
    model = FAMILIES[name].build()
    retom.apply(model, retom.Config(method=ImportanceToMe(), share="level"))
    arguments = guided(name)
    first = run(model, {**arguments, "timestep": torch.full((2,), 800.0)})
    run(model, {**arguments, "timestep": torch.full((2,), 700.0)})
    assert seen[0] is None
    without, with_prompt = first.float().chunk(2)
    difference = (without - with_prompt).abs().mean(dim=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(difference, (8, 6)).reshape(1, -1)
    torch.testing.assert_close(seen[1], pooled.expand(items, -1))


def test_importance_is_refused_where_tokens_come_packed():
    model = FAMILIES["flux"].build()
    retom.apply(model, retom.Config(method=ImportanceToMe()))
    with pytest.raises(retom.ConfigError, match=r"input is a tensor .* given a tensor of shape"):
        run(model, FAMILIES["flux"].call(8, 6, 2))
    model = FAMILIES["z-image"].build()
    retom.apply(model, retom.Config(method=ImportanceToMe()))
    with pytest.raises(retom.ConfigError, match=r"this one was given list"):
        run(model, FAMILIES["z-image"].call(8, 6, 2))


def test_refresh_reuses_plans_of_a_transformer():
    model = FAMILIES["flux"].build()
    planned = []

    class Noted(ReToM):
        def plan(self, x, grid, hints=NO_HINTS):
            planned.append(x.shape)
            return super().plan(x, grid, hints)

    retom.apply(model, retom.Config(method=Noted(ratio=0.5), refresh=2, share="level"))
    arguments = FAMILIES["flux"].call(8, 6, 2)
    for timestep in (0.9, 0.8, 0.7):
        run(model, {**arguments, "timestep": torch.full((2,), timestep)})
    assert planned == [(1, 48, 2 * 16)] * 2
