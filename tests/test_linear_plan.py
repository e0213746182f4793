"""Un-merging by slopes: by hand, against a slow loop, what passes through, and real layers."""

import pytest
import tiny
import torch
from grouped import cases, check_tokens_on_their_own_copy_and_constants_stay
from hypothesis import given, settings
from hypothesis import strategies as st

import retom
from retom import Config, ConfigError, Grid, Plan, ReToM, ShapeError, linear_plan
from retom.linear_plan import LinearPlan


def slow(tokens, outputs, grid, slot, merged):
    """What each token gets, pair by pair, float64 (N, C)."""
    tokens, outputs, merged = tokens.double(), outputs.double(), merged.double()
    missing = [tokens[i] - merged[s] for i, s in enumerate(slot)]
    size = tokens.shape[1]
    gram, cross = torch.zeros(size, size).double(), torch.zeros(size, outputs.shape[1]).double()
    if grid.width > 1:
        rows = range(0, grid.height, max(1, grid.num_tokens // linear_plan.PAIRS))
        firsts = [r * grid.width + c for r in rows for c in range(grid.width - 1)]
    else:
        firsts = range(grid.height - 1)
    scale = sum(float(missing[i] @ missing[i]) for i in firsts) / max(1, len(firsts))
    for first in firsts:
        one, other = slot[first], slot[first + 1]
        apart, answer = merged[one] - merged[other], outputs[one] - outputs[other]
        weight = 1 / max(float(apart @ apart) + scale, 1e-30)
        gram += weight * torch.outer(apart, apart)
        cross += weight * torch.outer(apart, answer)
    ridge = max(float(gram.diagonal().mean()), 1e-30)
    slope = torch.linalg.inv(gram + ridge * torch.eye(size)) @ cross
    return torch.stack([outputs[s] + missing[i] @ slope for i, s in enumerate(slot)])


def test_a_slope_by_hand():
    # One row of one channel. Tokens 2 and 4 merge to 3, and outputs are twice the merged tokens.
    x = torch.tensor([[[0.0], [1.0], [2.0], [4.0]]])
    plan = Plan.build(torch.tensor([[3]]), torch.tensor([[0, 1, 2, 2]]), "mean")
    linear = LinearPlan.build(plan, Grid(1, 4), needs_tokens=True)
    merged = linear.merge(x)
    assert merged.flatten().tolist() == [0, 1, 3]
    # Pairs differ by 1, 2 and 0; the ridge halves the slope of a single channel, 2, to 1.
    back = linear.unmerge(2 * merged, x).flatten().tolist()
    assert back[:2] == [0, 2]
    assert back[2:] == pytest.approx([6 - 1, 6 + 1])


@given(cases())
@settings(max_examples=60, deadline=None)
def test_outputs_equal_the_slow_loop(case):
    grid, options, x = case
    hard = ReToM(**options, unmerge="copy").plan(x, grid)
    linear = ReToM(**options, unmerge="linear").plan(x, grid)
    assert torch.equal(linear.merge(x), hard.merge(x))
    assert torch.equal(linear.kept, hard.kept)
    assert torch.equal(linear.log_sizes, hard.log_sizes)
    y = torch.randn(2, hard.num_kept, 3, generator=torch.Generator().manual_seed(0))
    for item in range(2):
        slot, merged = hard.slot[item].tolist(), hard.merge(x)[item]
        expected = slow(x[item], y[item], grid, slot, merged)
        found = linear.unmerge(y, x)[item].double()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_tokens_that_stand_for_themselves_copy_and_constants_stay(case):
    grid, options, x = case
    plan = ReToM(**options, unmerge="linear").plan(x, grid)
    check_tokens_on_their_own_copy_and_constants_stay(plan, x)


@pytest.mark.parametrize("merge", ["mean", "representative", "norm_mean"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_of_many_channels_the_directions_that_differ_are_enough(merge, ratio):
    """48 channels in which six directions are used: the same as by all channels."""
    generator = torch.Generator().manual_seed(3)
    grid = Grid(8, 9)
    directions, _ = torch.linalg.qr(torch.randn(48, 6, generator=generator))
    x = torch.randn(2, 72, 6, generator=generator) @ directions.T
    if merge != "norm_mean":  # whose lengths a common shift would change
        x = x + torch.randn(48, generator=generator)
    plan = ReToM(ratio=ratio, merge=merge, unmerge="linear").plan(x, grid)
    y = torch.randn(2, plan.num_kept, 3, generator=generator)
    back = plan.unmerge(y, x)
    for item, slot in enumerate(plan.slot.tolist()):
        expected = slow(x[item], y[item], grid, slot, plan.merge(x)[item])
        torch.testing.assert_close(back[item].double(), expected, rtol=1e-3, atol=1e-3)


@given(cases())
@settings(max_examples=30, deadline=None)
def test_of_many_channels_too_tokens_on_their_own_copy_and_constants_stay(case):
    grid, options, _ = case
    x = torch.randn(2, grid.num_tokens, 48, generator=torch.Generator().manual_seed(1))
    plan = ReToM(**options, unmerge="linear").plan(x, grid)
    check_tokens_on_their_own_copy_and_constants_stay(plan, x)


SCALES = [2.0**-40, 2.0**-13, 2.0**10, 2.0**40]
"""Powers of two, so that numbers round alike."""


@given(cases(), st.sampled_from(SCALES), st.sampled_from(SCALES[1:3]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_scale_has_to_suit_a_layer(case, of_tokens, of_outputs, many_channels):
    grid, options, x = case
    if many_channels:
        x = torch.randn(2, grid.num_tokens, 48, generator=torch.Generator().manual_seed(1))
    plan = ReToM(**options, unmerge="linear").plan(x, grid)
    y = torch.randn(2, plan.num_kept, 3, generator=torch.Generator().manual_seed(0))
    expected = of_outputs * plan.unmerge(y, x)
    found = plan.unmerge(of_outputs * y, of_tokens * x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * of_outputs)


def test_what_a_smooth_layer_gives_comes_out_nearer_than_by_a_copy():
    generator = torch.Generator().manual_seed(0)
    grid = Grid(16, 16)
    x = torch.randn(1, 4, 16, 16, generator=generator)
    x = torch.nn.functional.avg_pool2d(x, 3, 1, 1).flatten(2).mT
    weight = torch.randn(4, 4, generator=generator)

    def layer(tokens):
        return torch.tanh(2 * tokens @ weight)

    copied = ReToM(unmerge="copy").plan(x, grid)
    linear = ReToM(unmerge="linear").plan(x, grid)
    far = (copied.unmerge(layer(copied.merge(x))) - layer(x)).norm()
    near = (linear.unmerge(layer(linear.merge(x)), x) - layer(x)).norm()
    assert near < 0.7 * far


def test_equal_tokens_and_nothing_to_merge_give_no_slope():
    x = torch.ones(2, 12, 4)
    for ratio in (0.0, 0.5):
        plan = ReToM(ratio=ratio, unmerge="linear").plan(x, Grid(3, 4))
        y = torch.randn(2, plan.num_kept, 4, generator=torch.Generator().manual_seed(0))
        assert torch.equal(plan.unmerge(y, x), plan.plan.unmerge(y))


def test_an_item_does_not_depend_on_the_rest_of_the_batch():
    x = torch.randn(3, 35, 8, generator=torch.Generator().manual_seed(0))
    method = ReToM(unmerge="linear")
    together = method.plan(x, Grid(5, 7))
    back = together.unmerge(together.merge(x), x)
    for item in range(3):
        own = x[item : item + 1]
        alone = method.plan(own, Grid(5, 7))
        torch.testing.assert_close(alone.unmerge(alone.merge(own), own)[0], back[item])
    repeated = method.plan(x[:1], Grid(5, 7)).repeated(3)
    again = x[:1].expand(3, -1, -1)
    torch.testing.assert_close(repeated.unmerge(repeated.merge(again), again)[2], back[0])


def test_few_directions_hold_nearly_as_much_as_the_best_ones():
    """Neighbours of a smooth field, of which some are one token; by the pairs that plans read."""
    generator = torch.Generator().manual_seed(0)
    for side in (32, 64):
        x = torch.randn(1, 64, side // 4, side // 4, generator=generator)
        x = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear").flatten(2).mT
        plan = ReToM(ratio=0.75, unmerge="linear").plan(x, Grid(side, side))
        apart = plan._apart(plan.merge(x))
        found = linear_plan._directions(apart)
        torch.testing.assert_close(
            found.mT @ found, torch.eye(linear_plan.RANK)[None], atol=0.1, rtol=0
        )
        best = torch.linalg.svdvals(apart[0])[: linear_plan.RANK].square().sum()
        assert (apart @ found).square().sum() > 0.8 * best


@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_and_autocast_keep_the_regression_precise(dtype, channels):
    x = torch.randn(2, 35, channels, generator=torch.Generator().manual_seed(0)).to(dtype)
    plan = ReToM(unmerge="linear").plan(x, Grid(5, 7))
    y = torch.randn(2, plan.num_kept, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    back = plan.unmerge(y, x)
    assert back.dtype == dtype
    # Tokens, slopes and outputs are of the order of 1 and below 4, and rounded a few times.
    assert (back.double() - plan.unmerge(y.double(), x.double())).abs().max() < (
        32 * torch.finfo(dtype).eps
    )
    wide = plan.unmerge(y.float(), x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plan.unmerge(y.float(), x.float()), wide)


@pytest.mark.parametrize("channels", [8, 64])
def test_steep_slopes_do_not_overflow_half_precision(channels):
    x = 1e-4 * torch.randn(1, 64, channels, generator=torch.Generator().manual_seed(0))
    plan = ReToM(unmerge="linear").plan(x, Grid(8, 8))
    y = 300 * torch.randn(1, plan.num_kept, 8, generator=torch.Generator().manual_seed(1))
    back = plan.unmerge(y.half(), x.half())
    assert back.isfinite().all()
    slot = plan.slot[0]
    alone = (slot.bincount(minlength=plan.num_kept) == 1)[slot]
    assert torch.equal(back[0][alone], y.half()[0][slot[alone]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("flat", [0.0, 1e-6])
def test_tokens_that_no_pair_shows_stay_finite(dtype, flat):
    """Pairs are read in the left of two columns, which is flat; what merges is in the right one."""
    x = torch.full((1, 12, 4), flat)
    x[:, 1::2] = 1e3 * torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    left = torch.arange(12) // 2 * 2
    groups = Plan.build(torch.arange(1, 12, 2)[None], left[None], "representative")
    plan = LinearPlan.build(groups, Grid(6, 2), needs_tokens=True)
    y = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    back = plan.unmerge(y, x.to(dtype))
    assert back.isfinite().all()
    assert torch.equal(back[:, ::2], y)


def test_gradients_flow_and_no_data_is_needed_on_the_host():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    plan = ReToM(unmerge="linear").plan(x, Grid(3, 4))
    tokens = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: plan.unmerge(plan.merge(v).sin(), v), (tokens,))
    wide = torch.randn(1, 64, 48, generator=torch.Generator().manual_seed(0)).double()
    plan = ReToM(unmerge="linear").plan(wide, Grid(8, 8))
    y = torch.randn(1, plan.num_kept, 3, generator=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(lambda v: plan.unmerge(v, wide), (y.requires_grad_(),))
    for channels in (4, 48):  # a blank picture
        blank = torch.ones(1, 64, channels, requires_grad=True)
        plan = ReToM(unmerge="linear").plan(blank, Grid(8, 8))
        plan.unmerge(plan.merge(blank).sin(), blank).sum().backward()
        assert blank.grad.isfinite().all()
    empty = torch.empty(2, 12, 4, device="meta")
    plan = ReToM(unmerge="linear", rematch=True).plan(empty, Grid(3, 4))
    assert plan.unmerge(plan.merge(empty), empty).shape == empty.shape


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "block"])
def test_it_draws_nearer_to_unmerged_than_a_copy(scope):
    model = tiny.sd15_unet()
    unmerged = tiny.call(model, tiny.inputs())
    handle = retom.apply(model, scope=scope, ratio=0.25, unmerge="copy")
    copied = tiny.call(model, tiny.inputs())
    handle.update(unmerge="linear")
    linear = tiny.call(model, tiny.inputs())
    handle.update(unmerge="auto")
    assert torch.equal(tiny.call(model, tiny.inputs()), linear)
    assert not torch.equal(linear, copied)
    assert (linear - unmerged).norm() < (copied - unmerged).norm()
    handle.update(unmerge="copy")
    assert torch.equal(tiny.call(model, tiny.inputs()), copied)


def test_plans_that_are_shared_and_kept_follow_the_tokens_of_each_layer():
    """A slope belongs to a layer and a call, however long the groups last."""
    x = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(0))
    plan = ReToM(unmerge="linear").plan(x, Grid(4, 4))
    other = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(1))
    expected = slow(
        other[0],
        plan.merge(other)[0].sin(),
        Grid(4, 4),
        plan.slot[0].tolist(),
        plan.merge(other)[0],
    )
    found = plan.unmerge(plan.merge(other).sin(), other)[0].double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match=r"nothing is un-merged\. Use unmerge='auto'"):
        Config(method=ReToM(unmerge="linear"), scope="kv")
    x = torch.randn(1, 12, 4)
    plan = ReToM(unmerge="linear").plan(x, Grid(3, 4))
    with pytest.raises(ShapeError, match=r"give them as well, as in plan\.unmerge\(y, x\)"):
        plan.unmerge(plan.merge(x))
    for none in (None, x):
        with pytest.raises(ShapeError, match=r"unmerge expects .* 6 tokens"):
            ReToM().plan(x, Grid(3, 4)).unmerge(x, none)
    y = plan.merge(x)
    with pytest.raises(ShapeError, match=r"merge expects .* 12 tokens"):
        plan.unmerge(y, x[:, :6], y)
    with pytest.raises(ShapeError, match=r"unmerge expects .* 6 tokens"):
        plan.unmerge(y, x, y[:, :5])
    with pytest.raises(ShapeError, match=r"merge expects .* 12 tokens"):
        plan.unmerge(plan.merge(x), x[:, :6])


def test_auto_gives_copies_where_nobody_brings_the_tokens():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
    plan = ReToM().plan(x, Grid(3, 4))
    y = plan.merge(x).sin()
    assert torch.equal(plan.unmerge(y), ReToM(unmerge="copy").plan(x, Grid(3, 4)).unmerge(y))
    sloped = ReToM(unmerge="linear").plan(x, Grid(3, 4)).unmerge(y, x)
    assert torch.equal(plan.unmerge(y, x), sloped)
    assert torch.equal(plan.unmerge(y, x, plan.merge(x)), sloped)
    other = plan.merge(x) + torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(plan.unmerge(y, x, other), sloped)  # what is handed over is used
    again = [side.expand(2, -1, -1) for side in (y, x)]
    assert torch.equal(plan.repeated(2).unmerge(again[0])[1], plan.unmerge(y)[0])
    torch.testing.assert_close(plan.repeated(2).unmerge(*again)[1], sloped[0])
    with pytest.raises(ShapeError, match="give them as well"):
        ReToM(unmerge="linear").plan(x, Grid(3, 4)).repeated(2).unmerge(again[0])


def test_options_survive_json():
    config = Config(method=ReToM(unmerge="linear"))
    assert Config.from_dict(config.to_dict()) == config
