"""How large local windows are: as asked, or what ``auto`` means at a ratio."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import retom
from retom.methods import METHODS
from retom.methods.window import FEWEST_KEPT, window_for, window_of

RATIOS = st.floats(0, 0.99)


@pytest.mark.parametrize(
    ("ratio", "window"),
    [
        (0, (2, 2)),
        (0.5, (2, 2)),
        (0.625, (2, 2)),  # 1.5 of 4 tokens are left, exactly
        (0.626, (4, 2)),
        (0.8125, (4, 2)),
        (0.82, (4, 4)),
        (0.90625, (4, 4)),
        (0.91, (8, 4)),
        (0.96, (8, 8)),
    ],
)
def test_windows_by_hand(ratio, window):
    assert window_for(ratio) == window
    assert window_of(retom.ReToM(ratio=ratio)) == window


@given(RATIOS)
def test_windows_are_the_smallest_that_leave_a_choice(ratio):
    height, width = window_for(ratio)
    area = height * width
    assert area * (1 - ratio) >= FEWEST_KEPT - 1e-8
    assert area == 4 or area / 2 * (1 - ratio) < FEWEST_KEPT
    assert height in (width, 2 * width)


@given(RATIOS)
def test_every_ratio_is_within_reach_of_its_windows(ratio):
    grid = retom.Grid(64, 64)
    queries, keys = retom.ReToM(ratio=ratio).removed_apart(grid)
    assert (queries + keys) // 2 == int(round(ratio * grid.num_tokens, 9))


def test_auto_is_the_window_that_it_means():
    x = torch.randn(1, 96, 8, generator=torch.Generator().manual_seed(0))
    grid = retom.Grid(8, 12)
    for ratio, window in ((0.5, (2, 2)), (0.75, (4, 2))):
        auto, asked = retom.ReToM(ratio=ratio), retom.ReToM(ratio=ratio, window=window)
        plans = [method.plan(x, grid) for method in (auto, asked)]
        assert torch.equal(plans[0].kept, plans[1].kept)
        assert torch.equal(plans[0].unmerge(plans[0].merge(x)), plans[1].unmerge(plans[1].merge(x)))


def test_it_follows_every_change_of_the_ratio():
    config = retom.Config()
    sizes = [window_of(config.with_options(ratio=r).method) for r in (0.3, 0.7, 0.9, 0.5)]
    assert sizes == [(2, 2), (4, 2), (4, 4), (2, 2)]
    assert config.to_dict()["method"]["window"] == "auto"
    assert retom.Config.from_dict(config.with_options(ratio=0.7).to_dict()).method.window == "auto"


def test_methods_without_windows_have_none():
    assert window_of(METHODS["tome"]()) == (2, 2)
    assert window_of(METHODS["importance"]()) is None


@pytest.mark.parametrize("window", ["all", "2x2", (2,), (0, 2), (2.0, 2), 2, None, True])
def test_others_are_refused(window):
    with pytest.raises(retom.ConfigError, match=r"two whole numbers .* or window='auto'"):
        retom.ReToM(window=window)


def test_higher_ratios_choose_among_more():
    areas = [h * w for h, w in (window_for(r / 100) for r in range(100))]
    assert all(a <= b for a, b in itertools.pairwise(areas))
