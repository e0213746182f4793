"""A second look at who stays: against a slow loop, protection, and what it may not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assignment_of, cosine

from retom import ConfigError, Grid, ReToM
from retom.hints import Hints


def slow(tokens, grid, gone, barred=()):
    """``{removed token: the most similar of its target and the kept tokens beside it}``."""
    tokens = tokens.double().tolist()
    joins = {}
    for token, target in gone.items():
        row, column = divmod(token, grid.width)
        beside = [
            r * grid.width + c
            for r in range(max(0, row - 1), min(grid.height, row + 2))
            for c in range(max(0, column - 1), min(grid.width, column + 2))
        ]
        open_ = [i for i in beside if i not in gone and i not in barred]
        joins[token] = max([target, *open_], key=lambda i: cosine(tokens[token], tokens[i]))
    return joins


@st.composite
def cases(draw):
    grid = Grid(draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    window = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    count = -(-grid.height // window[0]) * -(-grid.width // window[1])
    options = {
        "ratio": draw(st.integers(0, grid.num_tokens - count)) / grid.num_tokens,
        "window": window,
        "allocation": draw(st.sampled_from(["similarity", "coherence", "uniform"])),
        "reach": draw(st.integers(0, 1)),
    }
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return grid, options, torch.randn(2, grid.num_tokens, 6, generator=generator)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_plans_equal_the_slow_loop(case):
    grid, options, x = case
    before = ReToM(**options).plan(x, grid)
    after = ReToM(**options, rematch=True).plan(x, grid)
    assert torch.equal(after.kept, before.kept)
    for item in range(2):
        expected = slow(x[item], grid, assignment_of(before, item))
        assert assignment_of(after, item) == expected


def test_a_token_joins_a_kept_neighbour_that_is_no_representative():
    # Windows {0, 1} and {2, 3}, ratio a quarter: only 1 goes, and 2 is its twin.
    x = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.8, 0.6], [0.0, 1.0]]])
    options = {"ratio": 0.25, "window": (1, 2), "reach": 0}
    x[0, 3] = torch.tensor([-1.0, 0.0])
    assert assignment_of(ReToM(**options).plan(x, Grid(1, 4))) == {1: 0}
    assert assignment_of(ReToM(**options, rematch=True).plan(x, Grid(1, 4))) == {1: 2}


def test_protected_tokens_are_not_joined():
    grid = Grid(6, 6)
    protected = torch.zeros(36, dtype=torch.bool)
    protected[12:24] = True
    options = {"ratio": 0.25, "window": (2, 3)}
    changed = 0
    for seed in range(8):
        x = torch.randn(1, 36, 6, generator=torch.Generator().manual_seed(seed))
        before = ReToM(**options).plan(x, grid, Hints(protected=protected))
        after = ReToM(**options, rematch=True).plan(x, grid, Hints(protected=protected))
        gone = assignment_of(before)
        assert assignment_of(after) == slow(x[0], grid, gone, barred=range(12, 24))
        changed += assignment_of(after) != gone
    assert changed


def test_broken_tokens_still_give_a_valid_plan():
    x = torch.zeros(1, 16, 3)
    x[0, 3], x[0, 7] = float("nan"), float("inf")
    plan = ReToM(ratio=0.5, rematch=True, allocation="multiscale", reach=0).plan(x, Grid(4, 4))
    assert plan.num_kept == 8
    assert torch.equal(plan.slot[0, plan.kept[0]], torch.arange(8))


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="rematch is True or False; 1 was given"):
        ReToM(rematch=1)
