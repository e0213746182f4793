"""ToMe for Stable Diffusion: by hand, and against the authors' package without its draw."""

import pytest
import tomesd
import torch

from retom import BudgetError, Config, ConfigError, Grid, Plan, ShapeError
from retom.hints import Hints
from retom.linear_plan import LinearPlan
from retom.methods import ToMe


def theirs(x, grid, removed, window=(2, 2)):
    """Merged and un-merged tokens as tomesd 0.1.3 gives them, corners as destinations."""
    merge, unmerge = tomesd.merge.bipartite_soft_matching_random2d(
        x, grid.width, grid.height, window[1], window[0], removed, no_rand=True
    )
    merged = merge(x)
    return merged, unmerge(merged)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
@pytest.mark.parametrize(
    ("size", "window"), [((8, 8), (2, 2)), ((6, 10), (2, 2)), ((8, 8), (4, 2)), ((7, 9), (2, 2))]
)
def test_tokens_meet_as_in_tomesd(size, window, ratio):
    grid = Grid(*size)
    x = torch.randn(3, grid.num_tokens, 16, generator=torch.Generator().manual_seed(0))
    method = ToMe(ratio=ratio, window=window)
    plan = method.plan(x, grid)
    merged, back = theirs(x, grid, method.num_removed(grid), window)
    assert plan.merge(x).shape == merged.shape
    torch.testing.assert_close(plan.unmerge(plan.merge(x)), back)


def test_any_token_may_join_a_destination_far_away():
    grid = Grid(2, 6)
    x = torch.eye(12)[None].clone()
    x[0, 7] = x[0, 4]  # beside the first window; its twin is the corner of the last
    plan = ToMe(ratio=1 / 12).plan(x, grid)
    kept = plan.kept[0].tolist()
    assert 7 not in kept
    assert kept[plan.slot[0, 7]] == 4


def test_the_budget_is_what_is_left_beside_the_destinations():
    assert ToMe(ratio=0.75).num_removed(Grid(4, 4)) == 12
    with pytest.raises(BudgetError, match="can give up 12 at most"):
        ToMe(ratio=0.85).num_removed(Grid(4, 4))
    with pytest.raises(BudgetError):
        ToMe(ratio=0.5).num_removed(Grid(1, 8))


def test_slopes_are_those_of_local_windows():
    x = torch.randn(2, 48, 6, generator=torch.Generator().manual_seed(0))
    grid = Grid(6, 8)
    hard = ToMe().plan(x, grid)
    for hints in (Hints(), Hints(apart=True)):
        plan = ToMe(unmerge="linear").plan(x, grid, hints)
        y = hard.merge(x).sin()
        slopes = LinearPlan.build(hard, grid, needs_tokens=True)
        assert torch.equal(plan.unmerge(y, x), slopes.unmerge(y, x))
    apart = ToMe(unmerge="linear", kv_lean=0.6).plan(x, grid, Hints(apart=True))
    assert isinstance(apart.queries, LinearPlan)
    assert isinstance(apart.keys, Plan)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="unmerge is one of copy, linear; 'similarity' was given"):
        ToMe(unmerge="similarity")
    with pytest.raises(ConfigError, match="ratio is the fraction"):
        ToMe(ratio=1.0)
    with pytest.raises(ConfigError, match="window is"):
        ToMe(window=2)
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        ToMe().plan(torch.randn(1, 9, 4), Grid(2, 4))
    with pytest.raises(ConfigError, match="cannot protect tokens"):
        ToMe().check_protected(torch.zeros(16, dtype=torch.bool), Grid(4, 4))


def test_it_survives_json():
    config = Config(method=ToMe(ratio=0.3, window=(4, 2)))
    assert Config.from_dict(config.to_dict()) == config
