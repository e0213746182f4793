"""Merging reaches the self-attention of the chosen levels, and nothing else, in every family."""

import math

import pytest
import tiny
import tomesd
import torch

import retom


@pytest.mark.parametrize("levels", [(0,), (1,), "all"])
def test_attention_of_the_chosen_levels_gets_exactly_the_kept_tokens(family, levels):
    model = family.build()
    retom.apply(model, ratio=0.3, levels=levels)

    with tiny.tokens_seen(model) as seen:
        tiny.call(model, tiny.inputs(family.name))

    merging = range(len(family.depth_of_level)) if levels == "all" else levels
    merging_depths = {family.depth_of_level[level] for level in merging}
    assert len(seen) == sum(family.layers_of_level)
    for name, counts in seen.items():
        depth = tiny.depth_of(name)
        tokens = math.prod(tiny.halved((16, 16), depth))
        removed = math.floor(0.3 * tokens) if depth in merging_depths else 0
        assert counts == [tokens - removed], name


@pytest.mark.parametrize("layer", ["attn2.to_q", "norm3"])
def test_all_tokens_are_back_after_self_attention(family, layer):
    model = family.build()
    retom.apply(model, levels="all")

    with tiny.tokens_seen(model, layer) as seen:
        tiny.call(model, tiny.inputs(family.name))

    assert len(seen) == sum(family.layers_of_level)
    for name, counts in seen.items():
        assert counts == [math.prod(tiny.halved((16, 16), tiny.depth_of(name)))], name


@pytest.mark.parametrize("levels", [(0,), "all"])
def test_output_differs_when_on(family, levels):
    model = family.build()
    unmerged = tiny.call(model, tiny.inputs(family.name))

    retom.apply(model, levels=levels)
    merged = tiny.call(model, tiny.inputs(family.name))

    assert merged.shape == unmerged.shape
    assert merged.isfinite().all()
    # Far above rounding (1e-6 of outputs of about 0.4), far below another picture altogether.
    assert 1e-3 < (merged - unmerged).abs().mean() < 0.1


def test_layers_of_a_level_share_the_plan_of_the_first(family):
    """Each layer gives unmerge(attention(merge(x))) with the plan made from the first layer's x."""
    model = family.build()
    layers = {
        name: module
        for name, module in model.named_modules()
        if name.endswith(".attn1") and tiny.depth_of(name) == family.depth_of_level[0]
    }
    inputs, outputs = {}, {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda _module, args, name=name: inputs.update({name: args[0]})
        )
    handle = retom.apply(model, share="level", size_weighted=False, kv_lean=0)
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda _module, _args, out, name=name: outputs.update({name: out})
        )
    tiny.call(model, tiny.inputs(family.name))
    handle.remove()

    grid = retom.Grid(*tiny.halved((16, 16), family.depth_of_level[0]))
    plan = retom.ReToM().plan(next(iter(inputs.values())), grid)
    assert len(outputs) == family.layers_of_level[0]
    with torch.no_grad():
        for name, layer in layers.items():
            # attn1's own forward: the spies above must not see this call
            tokens = inputs[name]
            expected = plan.unmerge(layer.forward(plan.merge(tokens)), tokens)
            assert torch.equal(outputs[name], expected), name


def test_grounding_of_gligen_still_counts():
    model = tiny.gligen_unet()
    retom.apply(model)
    arguments = tiny.inputs("gligen")
    with tiny.tokens_seen(model, "fuser.norm1") as seen:
        grounded = tiny.call(model, arguments)
    assert {count for counts in seen.values() for count in counts} == {256 + 3, 64 + 3, 16 + 3}
    assert not torch.equal(grounded, tiny.call(model, arguments, cross_attention_kwargs=None))


def test_stages_of_cross_attention_alone_give_no_level():
    model = tiny.unet(only_cross_attention=(True, False, False))
    handle = retom.apply(model, kv_lean=0)

    with tiny.tokens_seen(model, "attn1.to_q") as seen:
        tiny.call(model, tiny.inputs())

    assert [row.grid for row in handle.summary().levels] == [retom.Grid(8, 8), retom.Grid(4, 4)]
    tokens = {0: 256, 1: 32, 2: 16}  # only the largest grid with self-attention, 8x8, is halved
    for name, counts in seen.items():
        assert counts == [tokens[tiny.depth_of(name)]], name


def test_sdxl_merges_at_the_defaults():
    pipe = tiny.sdxl_pipeline()
    unmerged = tiny.latents(pipe)
    retom.apply(pipe)
    assert not torch.equal(tiny.latents(pipe), unmerged)


@pytest.mark.parametrize(("max_downsample", "merges"), [(1, False), (2, True)])
def test_tomesd_merges_nothing_in_sdxl_at_its_defaults(monkeypatch, max_downsample, merges):
    """What the test above is there for. ``max_downsample=2`` reaches the first attention."""
    calls = []
    match = tomesd.merge.bipartite_soft_matching_random2d
    monkeypatch.setattr(
        tomesd.merge,
        "bipartite_soft_matching_random2d",
        lambda *args, **kwargs: calls.append(1) or match(*args, **kwargs),
    )
    pipe = tiny.sdxl_pipeline()
    unmerged = tiny.latents(pipe)
    tomesd.apply_patch(pipe, ratio=0.5, max_downsample=max_downsample)
    assert torch.equal(tiny.latents(pipe), unmerged) is not merges
    assert bool(calls) is merges
