"""What holds for every peer of ReToM: exact budgets, items on their own, repeatable, on a model."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import retom
from retom import BudgetError, Config, Grid
from retom.methods import SDTM, ImportanceToMe, SiTo, ToMA, ToMe

PEERS = [
    ToMe(),
    SiTo(),
    SiTo(window=(3, 2), score_noise=2.0),
    SDTM(),
    SDTM(window=(4, 1), seed=5),
    ToMA(),
    ToMA(window=(3, 2), inverse="pseudo_inverse"),
    ImportanceToMe(),
]


def at(method, ratio):
    return retom.Config(method=method).with_options(ratio=ratio).method


@st.composite
def cases(draw):
    """A peer and tokens of a grid, at a ratio that it can reach."""
    grid = Grid(draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    peer = draw(st.sampled_from(PEERS))
    ratio = draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75]))
    method = at(peer, ratio)
    try:
        method.num_removed(grid)
    except BudgetError:
        method = at(peer, 0.0)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return (
        method,
        grid,
        torch.randn(draw(st.integers(1, 3)), grid.num_tokens, 5, generator=generator),
    )


@given(cases())
@settings(max_examples=80, deadline=None)
def test_exactly_r_tokens_go_and_constants_stay(case):
    method, grid, x = case
    plan = method.plan(x, grid)
    budget = int(method.ratio * grid.num_tokens + 1e-9)
    assert method.num_removed(grid) == budget
    assert (plan.batch_size, plan.num_tokens) == x.shape[:2]
    assert plan.num_kept == grid.num_tokens - budget
    assert (plan.kept.diff(dim=1) > 0).all()
    assert plan.kept.min() >= 0
    assert plan.kept.max() < grid.num_tokens
    ones = torch.ones_like(x)
    torch.testing.assert_close(plan.merge(ones), ones[:, : plan.num_kept], rtol=1e-5, atol=1e-5)
    # A pseudo-inverse of nearly equal rows amplifies rounding.
    torch.testing.assert_close(plan.unmerge(plan.merge(ones)), ones, rtol=1e-3, atol=1e-3)
    total = plan.log_sizes.exp().sum(dim=1)
    torch.testing.assert_close(total, torch.full_like(total, grid.num_tokens))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_an_item_does_not_depend_on_the_rest_of_the_batch(case):
    method, grid, x = case
    together = method.plan(x, grid)
    back = together.unmerge(together.merge(x))
    for item in range(len(x)):
        alone = method.plan(x[item : item + 1], grid)
        assert torch.equal(alone.kept[0], together.kept[item])
        own = alone.unmerge(alone.merge(x[item : item + 1]))[0]
        torch.testing.assert_close(own, back[item], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", PEERS, ids=str)
def test_planning_repeats_and_leaves_the_global_generator(method):
    x = torch.randn(2, 63, 8, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    ratio = 0.5 if not isinstance(method, ToMe) else 0.4
    plans = [at(method, ratio).plan(x, Grid(7, 9)) for _ in range(2)]
    assert torch.equal(plans[0].unmerge(plans[0].merge(x)), plans[1].unmerge(plans[1].merge(x)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("method", PEERS, ids=str)
def test_planning_needs_no_data_on_the_host(method):
    if "pseudo_inverse" in str(method):
        pytest.skip("torch decomposes a matrix on the host or waits for the device")
    x = torch.empty(2, 24, 8, device="meta")
    plan = method.plan(x, Grid(4, 6))
    assert plan.unmerge(plan.merge(x)).shape == x.shape
    side = torch.empty(1, 24, dtype=torch.bool, device="meta")
    assert plan.pick(side, dim=1).shape == (2, 12)


@pytest.mark.parametrize("scope", ["attention", "block", "kv"])
@pytest.mark.parametrize("method", PEERS, ids=str)
def test_it_draws_and_ratio_0_is_off(method, scope):
    pipe = tiny.sd_pipeline()
    unmerged = tiny.latents(pipe, num_inference_steps=1)
    handle = retom.apply(pipe, Config(method=method, scope=scope, size_weighted=scope != "block"))
    merged = tiny.latents(pipe, num_inference_steps=1)
    assert merged.isfinite().all()
    assert not torch.equal(merged, unmerged)
    assert handle.summary().levels[0].kept == 128
    handle.update(ratio=0.0)
    assert torch.equal(tiny.latents(pipe, num_inference_steps=1), unmerged)
