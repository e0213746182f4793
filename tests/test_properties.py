"""Properties that hold for every grid, window, ratio and batch, and equality with the oracle."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import assignment_of, merged, retom

from retom import Grid, ReToM
from retom.grid import Windows
from retom.methods import RandomRepresentative, WindowCorner

MODES = ["mean", "representative", "norm_mean"]


@st.composite
def cases(draw, max_side=9):
    """A grid, a window and a ratio that the windows can reach, with tokens (B, N, C)."""
    grid = Grid(draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    window = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    windows = Windows(grid, *window)
    removed = draw(st.integers(0, grid.num_tokens - windows.count))
    batch, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 8, 33]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(batch, grid.num_tokens, channels, generator=generator)
    if draw(st.booleans()):
        x = x + 3  # all tokens alike, as behind a layer norm with a bias
    options = {
        "ratio": removed / grid.num_tokens,
        "window": window,
        "allocation": draw(st.sampled_from(["similarity", "coherence", "uniform"])),
        "reach": draw(st.integers(0, 2)),
        "merge": draw(st.sampled_from(MODES)),
    }
    return grid, x, options, removed


def is_clear_cut(x, grid, options):
    """Whether rounding cannot change the choice: no two cosines of the plan's alternatives tie."""
    unit = torch.nn.functional.normalize(x.double(), dim=-1)
    cosines = (unit @ unit.transpose(-1, -2)).triu(1).flatten()
    cosines = cosines[cosines != 0].sort().values
    return x.shape[-1] > 1 and (len(cosines) < 2 or bool((cosines.diff() > 1e-6).all()))


@given(cases(max_side=6))
@settings(max_examples=200, deadline=None)
def test_plans_equal_the_oracle(case):
    grid, x, options, _ = case
    plan = ReToM(**options).plan(x, grid)
    choice = {name: value for name, value in options.items() if name != "merge"}
    for item, tokens in enumerate(x):
        if not is_clear_cut(tokens[None], grid, options):
            continue
        gone = retom(tokens, grid.height, grid.width, **choice)
        assert assignment_of(plan, item) == gone
        expected = merged(tokens, gone, options["merge"])
        torch.testing.assert_close(
            plan.merge(x)[item].double(),
            expected,
            rtol=1e-4,  # norm_mean of nearly opposite tokens divides by a small length
            atol=1e-5,
        )


def test_the_oracle_is_reached_by_most_cases():
    generator = torch.Generator().manual_seed(0)
    clear = [
        is_clear_cut(torch.randn(1, 25, 8, generator=generator), Grid(5, 5), {}) for _ in range(20)
    ]
    assert sum(clear) > 15


@given(cases())
@example((Grid(65, 49), torch.randn(1, 65 * 49, 4), {"ratio": 0.5}, 1592))
@example((Grid(1, 7), torch.randn(1, 7, 4), {"ratio": 2 / 7, "window": (4, 4)}, 2))
@settings(max_examples=150, deadline=None)
def test_every_token_is_kept_or_joins_a_kept_one_and_exactly_r_go(case):
    grid, x, options, removed = case
    plan = ReToM(**options).plan(x, grid)
    assert plan.num_kept == grid.num_tokens - removed
    for kept, slot in zip(plan.kept, plan.slot, strict=True):
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert torch.equal(slot[kept], torch.arange(plan.num_kept))
    # Every token is a member exactly once.
    assert torch.equal(plan.plan.member_rows.sort().values, torch.arange(x.shape[0] * x.shape[1]))


@given(cases())
@settings(max_examples=100, deadline=None)
def test_members_are_within_reach(case):
    grid, x, options, _ = case
    (tall, wide), reach = options["window"], options["reach"]
    for token, other in assignment_of(ReToM(**options).plan(x, grid)).items():
        row, column = divmod(token, grid.width)
        other_row, other_column = divmod(other, grid.width)
        assert abs(row // tall - other_row // tall) <= reach
        assert abs(column // wide - other_column // wide) <= reach


@given(cases(), st.sampled_from([ReToM, WindowCorner, RandomRepresentative]))
@settings(max_examples=100, deadline=None)
def test_a_plan_does_not_depend_on_the_rest_of_the_batch(case, method):
    grid, x, options, _ = case
    planner = method(**options)
    together = planner.plan(x, grid)
    for item in range(x.shape[0]):
        alone = planner.plan(x[item : item + 1], grid)
        assert torch.equal(alone.kept[0], together.kept[item])
        assert torch.equal(alone.slot[0], together.slot[item])


@pytest.mark.parametrize("channels", [33, 320, 640])
@pytest.mark.parametrize("options", [{}, {"reach": 1}, {"window": (4, 4)}], ids=str)
def test_plans_of_real_size_are_bit_equal_alone_and_in_a_batch_of_four(channels, options):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(4, 4096, channels, generator=generator)
    planner = ReToM(ratio=0.5, **options)
    together = planner.plan(x, Grid(64, 64))
    for item in range(4):
        alone = planner.plan(x[item : item + 1], Grid(64, 64))
        assert torch.equal(alone.kept[0], together.kept[item])
        assert torch.equal(alone.slot[0], together.slot[item])


@given(cases(), st.floats(-100, 100, width=32))
@example((Grid(1, 1), torch.ones(1, 1, 3), {"merge": "norm_mean", "ratio": 0.0}, 0), 3e-24)
@settings(max_examples=100, deadline=None)
def test_constants_are_preserved(case, value):
    grid, x, options, _ = case
    plan = ReToM(**options).plan(x, grid)
    constant = torch.full_like(x, value)
    round_trip = plan.unmerge(plan.merge(constant))
    # A mean of n equal float32 numbers may be one rounding off for each addition.
    torch.testing.assert_close(round_trip, constant, rtol=1e-5, atol=1e-30)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_tokens_that_stand_for_themselves_pass_bit_exact(case):
    grid, x, options, _ = case
    plan = ReToM(**options).plan(x, grid)
    back = plan.unmerge(plan.merge(x))
    for item, slot in enumerate(plan.slot):
        alone = (slot.bincount() == 1)[slot]
        assert torch.equal(back[item][alone], x[item][alone])


@given(cases())
@settings(max_examples=50, deadline=None)
def test_means_keep_the_sum_over_members(case):
    grid, x, options, _ = case
    plan = ReToM(**{**options, "merge": "mean"}).plan(x, grid)
    back = plan.unmerge(plan.merge(x.double()))
    torch.testing.assert_close(back.sum(dim=1), x.double().sum(dim=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_low_precision_tokens_are_planned_in_float32(dtype, mode):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 35, 16, generator=generator).to(dtype)
    planner = ReToM(ratio=0.5, merge=mode, reach=1)
    low, high = planner.plan(x, Grid(5, 7)), planner.plan(x.float(), Grid(5, 7))
    assert torch.equal(low.slot, high.slot)
    assert low.merge(x).dtype == dtype
    assert low.merge(x).isfinite().all()


@pytest.mark.parametrize("scale", [2.0**-50, 2.0**50])
def test_extreme_lengths_do_not_break_similarity(scale):
    x = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    planner = ReToM(ratio=0.5)
    assert torch.equal(planner.plan(x * scale, Grid(4, 4)).slot, planner.plan(x, Grid(4, 4)).slot)


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
def test_planning_needs_no_data_on_the_host(allocation):
    # On the meta device there is no data: any .item(), nonzero or boolean index would raise.
    x = torch.empty(2, 15, 8, device="meta")
    plan = ReToM(ratio=0.5, allocation=allocation, reach=1).plan(x, Grid(3, 5))
    assert plan.unmerge(plan.merge(x)).shape == x.shape


def test_planning_draws_no_random_numbers_and_repeats_exactly():
    x = torch.randn(2, 63, 8, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    plans = [ReToM(ratio=0.5, reach=1).plan(x, Grid(7, 9)) for _ in range(2)]
    assert torch.equal(plans[0].slot, plans[1].slot)
    assert torch.equal(torch.random.get_rng_state(), before)
