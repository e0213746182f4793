"""Methods: small grids by hand, options, and what must not matter."""

import dataclasses

import pytest
import torch
from reference import assignment_of

from retom import BudgetError, ConfigError, Grid, ReToM, ShapeError
from retom.methods import METHODS, Method


def angles(*degrees):
    """Unit tokens (1, N, 2) at the given angles."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=-1).float()[None]


def test_the_representative_is_the_token_most_similar_to_the_others_on_average():
    # One window of 2x2. Sums of cosines: 3.35, 3.75, 3.69 and 3.49.
    plan = ReToM(ratio=0.75).plan(angles(0, 20, 40, 50), Grid(2, 2))
    assert plan.kept.tolist() == [[1]]
    # 2.98, 3.42, 3.49 and 2.32.
    plan = ReToM(ratio=0.75).plan(angles(0, 20, 30, 80), Grid(2, 2))
    assert plan.kept.tolist() == [[2]]


def test_length_does_not_matter_for_the_choice():
    x = angles(0, 20, 30, 80) * torch.tensor([1.0, 100.0, 0.01, 5.0])[None, :, None]
    assert ReToM(ratio=0.75).plan(x, Grid(2, 2)).kept.tolist() == [[2]]


def test_the_tokens_nearest_to_their_representative_go_first():
    # Windows {0, 1} and {2, 3}, of 1x2; the pair at 0 and 5 degrees is closer than 90 and 120.
    plan = ReToM(ratio=0.25, window=(1, 2)).plan(angles(0, 5, 90, 120), Grid(1, 4))
    assert assignment_of(plan) == {1: 0}


def test_reach_lets_a_token_join_the_window_next_door():
    # Windows {0, 1, 2} and {3, 4, 5}, elected 2 (5 degrees) and 3 (90 degrees). Token 5, at 6
    # degrees, sits with 90 and 92, but is nearest of all to the representative on its left.
    x = angles(0, 11, 5, 90, 92, 6)
    own = ReToM(ratio=0.5, window=(1, 3), reach=0).plan(x, Grid(1, 6))
    assert assignment_of(own) == {0: 2, 1: 2, 4: 3}
    wide = ReToM(ratio=0.5, window=(1, 3), reach=1).plan(x, Grid(1, 6))
    assert assignment_of(wide) == {0: 2, 4: 3, 5: 2}


def test_two_tokens_are_a_tie_whatever_their_lengths():
    x = torch.randn(1, 60, 7, generator=torch.Generator().manual_seed(0))
    plan = ReToM(ratio=0.5, window=(1, 2)).plan(x, Grid(6, 10))
    assert plan.kept.tolist() == [list(range(0, 60, 2))]


def test_ties_elect_the_first_token():
    plan = ReToM(ratio=0.75, window=(2, 2)).plan(torch.ones(1, 16, 3), Grid(4, 4))
    assert plan.kept.tolist() == [[0, 2, 8, 10]]


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_methods_are_frozen_dataclasses_of_one_protocol(method):
    assert isinstance(method(), Method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method().ratio = 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "at least 0 and less than 1; 1.0 was given"),
        ({"ratio": -0.1}, "at least 0 and less than 1; -0.1 was given"),
        ({"ratio": float("nan")}, "less than 1; nan was given"),
        ({"ratio": "half"}, r"a number in \[0, 1\); 'half' was given"),
        ({"ratio": True}, "True was given"),
        ({"window": 2}, r"\(height, width\)"),
        ({"allocation": "best"}, "coherence, uniform, multiscale; 'best' was given"),
        ({"merge": "sum"}, "mean, representative, norm_mean; 'sum' was given"),
        ({"reach": -1}, "at least 0; -1 was given"),
        ({"reach": 1.5}, "at least 0; 1.5 was given"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        ReToM(**options)


def test_tokens_that_are_not_the_grid_are_refused():
    with pytest.raises(ShapeError, match=r"4x4 grid needs tokens of shape \(batch, 16, channels\)"):
        ReToM().plan(torch.zeros(1, 15, 3), Grid(4, 4))


def test_a_plan_beyond_the_budget_is_refused():
    with pytest.raises(BudgetError, match="Lower the ratio"):
        ReToM(ratio=0.85, window=(2, 2)).plan(torch.zeros(1, 16, 3), Grid(4, 4))


def test_zero_and_broken_tokens_still_give_a_valid_plan():
    x = torch.zeros(1, 16, 3)
    x[0, 3], x[0, 7] = float("nan"), float("inf")
    plan = ReToM(ratio=0.5, reach=1).plan(x, Grid(4, 4))
    assert plan.num_kept == 8
    assert plan.kept[0].tolist() == sorted(set(plan.kept[0].tolist()))
    assert plan.slot.min() >= 0
    assert plan.slot.max() < 8
