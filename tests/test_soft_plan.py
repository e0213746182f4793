"""Un-merging to mixtures: against a slow loop, what passes through unchanged, and real layers."""

import pytest
import tiny
import torch
from grouped import cases, check_tokens_on_their_own_copy_and_constants_stay
from hypothesis import given, settings
from reference import cosine

import retom
from retom import Config, ConfigError, Grid, Plan, ReToM, ShapeError
from retom.soft_plan import SHARPNESS, SoftPlan


def slow(tokens, outputs, grid, slot, merged):
    """What each token gets, one neighbour at a time, float64 (N, C)."""
    tokens, merged = tokens.double().tolist(), merged.double().tolist()
    rows = []
    for token in range(grid.num_tokens):
        if slot.count(slot[token]) == 1:
            rows.append(outputs[slot[token]])
            continue
        row, column = divmod(token, grid.width)
        asked = []
        for down, right in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            inside = 0 <= row + down < grid.height and 0 <= column + right < grid.width
            asked.append(slot[token + down * grid.width + right] if inside else slot[token])
        weights = [max(1 - cosine(tokens[token], merged[s]), 1e-6) ** -SHARPNESS for s in asked]
        mixed = sum(w * outputs[s] for w, s in zip(weights, asked, strict=True))
        rows.append(mixed / sum(weights))
    return torch.stack(rows)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_mixtures_equal_the_slow_loop(case):
    grid, options, x = case
    hard = ReToM(**options, unmerge="copy").plan(x, grid)
    soft = ReToM(**options, unmerge="similarity").plan(x, grid)
    assert torch.equal(soft.merge(x), hard.merge(x))
    assert torch.equal(soft.kept, hard.kept)
    assert torch.equal(soft.log_sizes, hard.log_sizes)
    y = torch.randn(2, hard.num_kept, 3, generator=torch.Generator().manual_seed(0))
    for item in range(2):
        slot, merged = hard.slot[item].tolist(), hard.merge(x)[item]
        expected = slow(x[item], y[item].double(), grid, slot, merged)
        torch.testing.assert_close(
            soft.unmerge(y)[item].double(),
            expected,
            rtol=1e-3,  # a weight of a token almost equal to the merged one: rounding of 1 - cos
            atol=1e-4,
        )


@given(cases())
@settings(max_examples=40, deadline=None)
def test_tokens_that_stand_for_themselves_copy_and_constants_stay(case):
    grid, options, x = case
    plan = ReToM(**options, unmerge="similarity").plan(x, grid)
    check_tokens_on_their_own_copy_and_constants_stay(plan, x)


def test_a_token_on_an_edge_takes_from_the_side_it_is_like():
    # One row: tokens 0 and 1 are alike, 2 and 3 are alike; 1 and 2 were merged across the edge.
    a, b = [1.0, 0.0], [0.0, 1.0]
    x = torch.tensor([[a, [0.99, 0.1], [0.1, 0.99], b]])
    plan = Plan.build(torch.tensor([[2]]), torch.tensor([[0, 1, 1, 3]]), "mean")
    y = torch.tensor([[[0.0], [5.0], [10.0]]])
    copied = plan.unmerge(y)[0, :, 0].tolist()
    mixed = SoftPlan.build(plan, x, Grid(1, 4)).unmerge(y)[0, :, 0].tolist()
    assert copied == [0, 5, 5, 10]
    assert mixed[0] == 0
    assert mixed[3] == 10
    assert 0 < mixed[1] < 1
    assert 9 < mixed[2] < 10


def test_an_item_does_not_depend_on_the_rest_of_the_batch():
    x = torch.randn(3, 35, 8, generator=torch.Generator().manual_seed(0))
    method = ReToM(unmerge="similarity", rematch=True, reach=1)
    together = method.plan(x, Grid(5, 7))
    for item in range(3):
        alone = method.plan(x[item : item + 1], Grid(5, 7))
        assert torch.equal(alone.weights, together.weights.reshape(3, 35, 5)[item])
        assert torch.equal(alone.slot[0], together.slot[item])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_within_the_rounding_of_weights(dtype):
    x = torch.randn(2, 35, 8, generator=torch.Generator().manual_seed(0))
    plan = ReToM(unmerge="similarity").plan(x, Grid(5, 7))
    y = torch.randn(2, plan.num_kept, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    back = plan.unmerge(y)
    assert back.dtype == dtype
    exact = plan.unmerge(y.double())
    # Each weight and the sum are rounded once; weights add up to one and outputs are below 4.
    assert (back.double() - exact).abs().max() < 4 * 2 * torch.finfo(dtype).eps


def test_gradients_flow_and_no_data_is_needed_on_the_host():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    plan = ReToM(unmerge="similarity").plan(x, Grid(3, 4))
    y = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: plan.unmerge(plan.merge(v)), (y,))
    empty = torch.empty(2, 12, 4, device="meta")
    plan = ReToM(unmerge="similarity", rematch=True).plan(empty, Grid(3, 4))
    assert plan.unmerge(plan.merge(empty)).shape == empty.shape


@pytest.mark.parametrize("scope", ["attention", "attention+mlp", "block"])
def test_it_draws_and_tokens_on_their_own_agree_with_a_copy(scope):
    model = tiny.sd15_unet()
    unmerged = tiny.call(model, tiny.inputs())
    handle = retom.apply(model, scope=scope, ratio=0.25, unmerge="copy")
    copied = tiny.call(model, tiny.inputs())
    handle.update(unmerge="similarity")
    mixed = tiny.call(model, tiny.inputs())
    assert not torch.equal(mixed, copied)
    assert 1e-4 < (mixed - unmerged).abs().mean() < 0.1
    handle.update(unmerge="copy")
    assert torch.equal(tiny.call(model, tiny.inputs()), copied)


def test_wrong_use_is_refused():
    with pytest.raises(
        ConfigError, match="unmerge is one of auto, linear, similarity, copy; 'mean' was given"
    ):
        ReToM(unmerge="mean")
    with pytest.raises(ConfigError, match=r"nothing is un-merged\. Use unmerge='auto'"):
        Config(method=ReToM(unmerge="similarity"), scope="kv")
    plan = ReToM(unmerge="similarity").plan(torch.randn(1, 12, 4), Grid(3, 4))
    with pytest.raises(ShapeError, match=r"unmerge expects .* 6 tokens"):
        plan.unmerge(torch.zeros(1, 12, 4))


def test_options_survive_json():
    config = Config(method=ReToM(unmerge="similarity", rematch=True), score="keys")
    assert Config.from_dict(config.to_dict()) == config
