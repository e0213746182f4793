"""What a host with patch points of its own gets from the library."""

import pytest
import tiny
import torch

import retom
from retom import Along, BlockSpec, Config, Grid, ReToM
from retom.hosts import CHOICES, HostCall, size_bias
from retom.linear_plan import LinearPlan
from retom.plan import Plan
from retom.testing.permutation import Permutation

GRID = Grid(6, 5)


def tokens(batch=2, channels=8, seed=0, extra=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, GRID.num_tokens + extra, channels, generator=generator)


def test_a_layer_as_the_library_s_own_hooks_run_it():
    """The same plan, sizes and result as retom.apply on a diffusers attention."""
    model = tiny.unet()
    arguments = tiny.inputs()
    attention = next(module for name, module in model.named_modules() if name.endswith("attn1"))
    captured = {}
    hook = attention.register_forward_hook(
        lambda module, args, kwargs, output: captured.update(x=args[0], y=output),
        with_kwargs=True,
    )
    tiny.call(model, arguments)
    hook.remove()
    side = int(captured["x"].shape[1] ** 0.5)
    plan = HostCall(Config()).plan(captured["x"], Grid(side, side), apart=True)
    asking, asked = plan.merge(captured["x"]), plan.keys.merge(captured["x"])
    assert asked.shape[1] < asking.shape[1]
    bias = size_bias(plan, captured["x"].dtype)
    given = attention(asking, encoder_hidden_states=asked, attention_mask=bias)
    by_hand = plan.unmerge(given, captured["x"], asking)

    with retom.applied(model, ratio=0.5):
        seen = {}
        hook = attention.register_forward_hook(lambda module, args, output: seen.update(y=output))
        tiny.call(model, arguments)
        hook.remove()
    assert torch.equal(by_hand, seen["y"]) or torch.allclose(by_hand, seen["y"])


def test_sizes_are_a_bias_for_every_query():
    plan = HostCall(Config()).plan(tokens(), GRID)
    bias = size_bias(plan, torch.float16)
    assert bias.shape == (2, 1, 15)
    assert bias.dtype == torch.float16
    assert bias.exp().sum(dim=-1).round().tolist() == [[30.0], [30.0]]


def test_layers_plan_alone_or_for_their_level():
    alone, shared = HostCall(Config()), HostCall(Config(share="level"))
    x, y = tokens(), tokens(seed=1)
    assert alone.plan(x, GRID) is not alone.plan(x, GRID)
    assert shared.plan(y, GRID) is shared.plan(x, GRID)
    assert shared.plan(x[:1], GRID) is not shared.plan(x, GRID)


def test_keys_and_values_alone_need_nothing_of_un_merging():
    plans = {scope: HostCall(Config(scope=scope)).plan(tokens(), GRID) for scope in ("kv", "block")}
    assert type(plans["kv"]) is Plan
    assert type(plans["block"]) is LinearPlan
    model, seen = tiny.unet(), []
    with retom.applied(model, scope="kv") as handle:
        level = handle._state.levels[0]
        attention = next(m for name, m in model.named_modules() if name.endswith("attn1"))
        attention.register_forward_pre_hook(lambda *_: seen.extend(level.plans))
        tiny.call(model, tiny.inputs())
    assert seen
    assert {type(plan) for plan in seen} == {Plan}


def test_levels_and_ratio_zero_merge_nothing():
    assert HostCall(Config()).plan(tokens(), GRID, level=1) is None
    assert HostCall(Config(method=ReToM(ratio=0.0))).plan(tokens(), GRID) is None
    assert not HostCall(Config()).merges_on(1)
    assert HostCall(Config(levels="all")).merges_on(1)


SPEC = BlockSpec(tokens="x", at="last", rotary=(Along("table", axis=1, at="last"),))


def block(arguments):
    """Residual, and aware of position; it writes into what it is given, as some blocks do."""
    x = arguments["x"]
    x += torch.tanh(x.mean(dim=1, keepdim=True) + x * arguments["table"][..., None])
    return x


def arguments_of(text=3, references=4, batch=2):
    x = tokens(batch, extra=text + references)
    table = torch.linspace(0, 1, x.shape[1]).expand(batch, -1)
    return {"x": x, "table": table}


def test_a_permuted_block_is_the_block():
    given = arguments_of()
    plain = block({**given, "x": given["x"].clone()})
    before = given["x"].clone()
    call = HostCall(Config(method=Permutation()))
    shuffled = call.run_block(SPEC, given, block, GRID, references=4)
    assert torch.allclose(shuffled, plain, atol=1e-6)
    assert torch.equal(given["x"], before)


@pytest.mark.parametrize(("text", "references"), [(3, 4), (0, 0)])
def test_a_merged_block_runs_fewer_tokens_and_keeps_detail(text, references):
    given = arguments_of(text, references)
    counts = []

    def counted(arguments):
        counts.append(arguments["x"].shape[1])
        return block(arguments)

    before = given["x"].clone()
    config = Config(method=ReToM(unmerge="copy"))
    merged = HostCall(config).run_block(SPEC, given, counted, GRID, references=references)
    assert counts == [text + 15 + references]
    assert merged.shape == before.shape
    added = merged - before
    assert not torch.allclose(added, torch.zeros_like(added), atol=1e-3)
    # Every token of a group is given the same; their differences stay.
    image = added[0, text : text + 30]
    assert len(torch.unique((image * 1e4).round(), dim=0)) <= 15 + 1


@pytest.mark.parametrize(("text", "references"), [(3, 4), (0, 0)])
def test_slopes_give_a_block_s_tokens_their_own_part(text, references):
    given = arguments_of(text, references)
    plain = block({**given, "x": given["x"].clone()})
    image = slice(text, text + GRID.num_tokens)
    x = given["x"][:, image].clone()
    runs = {
        name: HostCall(Config(method=ReToM(unmerge=name))).run_block(
            SPEC, given, block, GRID, references=references
        )
        for name in ("copy", "linear")
    }
    plan = HostCall(Config(method=ReToM(unmerge="linear"))).plan(x, GRID)
    merged = plan.merge(x)
    table = plan.pick(given["table"][:, image], dim=1)
    whole = given["x"].clone()
    kept = torch.cat([whole[:, :text], merged, whole[:, image.stop :]], dim=1)
    steps = given["table"]
    steps = torch.cat([steps[:, :text], table, steps[:, image.stop :]], dim=1)
    changed = block({"x": kept.clone(), "table": steps})[:, text : text + plan.num_kept]
    by_hand = x + plan.unmerge(changed - merged, x, merged)
    torch.testing.assert_close(runs["linear"][:, image], by_hand)
    error = {name: (run - plain)[:, image].norm() for name, run in runs.items()}
    assert error["linear"] < error["copy"]


def test_a_host_that_tells_the_noise_level_can_merge_by_noise():
    config = Config(noise=(0.2, 1.0), rules=(retom.Rule(method=ReToM(ratio=0.2), levels=(3,)),))
    late, early = HostCall(config, noise=0.1), HostCall(config, noise=0.5)
    assert (late.merges_on(0), early.merges_on(0)) == (False, True)
    assert late.plan(tokens(), GRID) is None
    assert early.plan(tokens(), GRID).num_kept == 15
    assert late.merges  # on level 3
    assert late.merges_on(3)
    assert not HostCall(Config(noise=(0.2, 1.0)), noise=0.1).merges
    assert HostCall(Config(levels=(2,))).merges
    assert not HostCall(Config(method=ReToM(ratio=0.0))).merges
    with pytest.raises(retom.ConfigError, match="noise level of the call was not told"):
        HostCall(config)
    with pytest.raises(retom.ConfigError, match="noise level of 500, and merging by noise knows 0"):
        HostCall(config, noise=500)
    assert HostCall(config, noise=1 + 5e-7).merges_on(0)  # rounding


def test_what_a_single_call_does_not_tell_is_refused():
    with pytest.raises(retom.ConfigError, match="one call at a time"):
        HostCall(Config(refresh=4))
    with pytest.raises(retom.ConfigError, match="use score='input'"):
        HostCall(Config(score="keys"))
    with pytest.raises(retom.ShapeError, match="6x5 grid"):
        HostCall(Config()).plan(tokens(extra=1), GRID)
    given = arguments_of()
    short = {**given, "table": given["table"][:, :20]}
    with pytest.raises(retom.ShapeError, match="20 entries along dimension 1"):
        HostCall(Config()).run_block(SPEC, short, block, GRID)


def test_choices_are_what_the_options_take():
    for option, words in CHOICES.items():
        for word in words:
            reach = {"reach": 0} if word == "multiscale" else {}
            Config().with_options(**{option: word}, **reach)
        with pytest.raises(retom.ConfigError, match=", ".join(words)):
            Config().with_options(**{option: "other"})
