"""Windows of two sizes: by hand, against a slow loop, and the exact budget on any grid."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assignment_of, cosine, representative_of, windows_of

from retom import BudgetError, ConfigError, Grid, ReToM
from retom.grid import Windows
from retom.multiscale import COARSE_SHARE, TwoScales


def slow(tokens, height, width, window, budget):
    """The definition, one window at a time: ``{removed token: the token that stands for it}``."""
    tokens = tokens.double().tolist()
    tall, wide = window
    area = 4 * tall * wide
    fine = windows_of(height, width, window)
    full = [w for w in windows_of(height, width, (2 * tall, 2 * wide)) if len(w) == area]
    spare = height * width - len(fine)
    collapsed = max(math.floor(COARSE_SHARE * budget / (area - 1)), math.ceil((budget - spare) / 3))
    coherence = []
    for members in full:
        rep = representative_of(tokens, members)
        coherence.append(sum(cosine(tokens[i], tokens[rep]) for i in members if i != rep))
    ranked = sorted(range(len(full)), key=lambda w: (-coherence[w], w))
    gone, inside = {}, set()
    for number in ranked[: max(0, min(collapsed, len(full)))]:
        members = full[number]
        rep = representative_of(tokens, members)
        gone |= {i: rep for i in members if i != rep}
        inside |= set(members)
    gone = dict(sorted(gone.items())[:budget])  # a small budget collapses the last one in part
    joins = {}
    for members in fine:
        rep = representative_of(tokens, members)
        joins |= {i: rep for i in members if i != rep and i not in inside}
    order = sorted(joins, key=lambda i: (-cosine(tokens[i], tokens[joins[i]]), i))
    return gone | {i: joins[i] for i in order[: budget - len(gone)]}


@st.composite
def cases(draw):
    grid = Grid(draw(st.integers(1, 10)), draw(st.integers(1, 10)))
    window = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    budget = draw(st.integers(0, TwoScales(Windows(grid, *window)).most))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return grid, window, budget, torch.randn(2, grid.num_tokens, 6, generator=generator)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_plans_equal_the_slow_loop(case):
    grid, window, budget, x = case
    method = ReToM(ratio=budget / grid.num_tokens, window=window, allocation="multiscale", reach=0)
    plan = method.plan(x, grid)
    assert plan.num_kept == grid.num_tokens - budget
    for item, tokens in enumerate(x):
        gone = slow(tokens, grid.height, grid.width, window, budget)
        assert assignment_of(plan, item) == gone


def test_a_flat_corner_collapses_as_one_large_window():
    grid = Grid(8, 8)
    x = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(0))
    field = x.reshape(8, 8, 16)
    field[:4, 4:] = field[0, 4]
    plan = ReToM(ratio=30 / 64, allocation="multiscale", reach=0).plan(x, grid)
    standing = [token for token, other in enumerate(range(64)) if other in plan.kept[0].tolist()]
    corner = [t for t in standing if t // 8 < 4 and t % 8 >= 4]
    assert len(corner) == 1


def test_it_reaches_further_than_its_small_windows():
    grid = Grid(8, 8)
    with pytest.raises(BudgetError):
        ReToM(ratio=0.8, window=(2, 2)).num_removed(grid)
    options = {"window": (2, 2), "allocation": "multiscale", "reach": 0}
    assert ReToM(ratio=0.9375, **options).num_removed(grid) == 60
    with pytest.raises(BudgetError):
        ReToM(ratio=0.96, **options).num_removed(grid)


def test_reach_is_refused():
    with pytest.raises(ConfigError, match="needs reach=0"):
        ReToM(allocation="multiscale", reach=1)
