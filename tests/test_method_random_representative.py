"""A random token as the window's representative: its draw, and plans against the slow loop."""

import pytest
import tiny
import torch
from reference import assignment_of, windows_of
from reference import retom as slow

import retom
from retom import BudgetError, Config, ConfigError, Grid
from retom.hints import Hints
from retom.methods import RandomRepresentative


def drawn(size, window, seed):
    """The token drawn in each window, read off a plan in which all others go."""
    grid = Grid(*size)
    windows = windows_of(*size, window)
    x = torch.ones(1, grid.num_tokens, 2)  # all alike, so that nothing but the draw decides
    ratio = (grid.num_tokens - len(windows)) / grid.num_tokens
    method = RandomRepresentative(ratio=ratio, window=window, reach=0, seed=seed)
    kept = method.plan(x, grid).kept[0].tolist()
    found = [[token for token in members if token in kept] for members in windows]
    assert all(len(one) == 1 for one in found)
    return [one[0] for one in found]


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize(
    ("size", "window", "ratio"),
    [((6, 8), (2, 2), 0.5), ((5, 7), (2, 2), 0.4), ((7, 5), (3, 2), 0.6), ((1, 9), (2, 2), 0.3)],
)
def test_plans_are_those_of_the_slow_loop_with_what_was_drawn(
    size, window, ratio, reach, allocation
):
    grid = Grid(*size)
    x = torch.randn(2, grid.num_tokens, 6, generator=torch.Generator().manual_seed(3))
    options = {"ratio": ratio, "window": window, "reach": reach, "allocation": allocation}
    chosen = set(drawn(size, window, seed=5))
    plan = RandomRepresentative(**options, seed=5).plan(x, grid)
    for item in range(2):
        expected = slow(
            x[item],
            *size,
            **options,
            elect=lambda _tokens, members: next(token for token in members if token in chosen),
        )
        assert assignment_of(plan, item) == expected


def test_the_draw_is_fixed_by_its_seed_alone_and_leaves_the_global_one_alone():
    x = torch.randn(2, 15, 5, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    plans = [RandomRepresentative(ratio=0.5, seed=s).plan(x, Grid(3, 5)).kept for s in (0, 0, 1)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn((8, 8), (2, 2), 0) != drawn((8, 8), (2, 2), 1)


def test_each_place_of_a_window_is_drawn_as_often():
    # 256 windows of four places: 64 each, with a standard deviation of 7.
    places = [
        2 * (token // 32 % 2) + token % 2  # of token number row * 32 + column
        for token in drawn((32, 32), (2, 2), seed=0)
    ]
    assert all(36 < places.count(place) < 92 for place in range(4))


def test_protected_tokens_are_never_drawn():
    protected = torch.zeros(64, dtype=torch.bool)
    protected[:24] = True
    x = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(0))
    for seed in range(8):
        method = RandomRepresentative(ratio=0.45, seed=seed)
        gone = assignment_of(method.plan(x, Grid(8, 8), Hints(protected=protected)))
        assert not set(range(24)) & {*gone.keys(), *gone.values()}
    with pytest.raises(BudgetError, match="24 of them protected"):
        RandomRepresentative(ratio=0.7).check_protected(protected, Grid(8, 8))


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ConfigError, match="seed is a whole number"):
        RandomRepresentative(seed=seed)


def test_seeds_draw_other_pictures():
    model = tiny.sd15_unet()
    outputs = []
    for seed in (0, 0, 1):
        with retom.applied(model, Config(method=RandomRepresentative(seed=seed))):
            outputs.append(tiny.call(model, tiny.inputs()))
    assert torch.equal(outputs[0], outputs[1])
    assert 1e-5 < (outputs[0] - outputs[2]).abs().mean() < 0.1
