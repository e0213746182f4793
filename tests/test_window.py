"""How large local windows are: as asked, or what ``auto`` means at a ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import retom
from retom.methods import METHODS
from retom.methods.window import FEWEST_KEPT, window_for, window_of

SQUARE = retom.Grid(64, 64)
RATIOS = st.floats(0, 0.99)
GRIDS = st.builds(retom.Grid, st.integers(1, 40), st.integers(1, 40))


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
    assert window_for(ratio, SQUARE) == window
    assert window_of(retom.ReToM(ratio=ratio), SQUARE) == window


@pytest.mark.parametrize(
    ("grid", "ratio", "window"),
    [
        ((1, 64), 0.5, (2, 4)),  # rows of 2 have 1 token at most
        ((64, 1), 0.5, (4, 2)),
        ((5, 5), 0.5, (4, 2)),  # 13 kept in 9 windows of 2x2
        ((5, 5), 0.8, (8, 4)),  # 5 kept; 6 windows of 4x2, 4 of 4x4, 2 of 8x4
        ((1, 1), 0.9, (2, 2)),
    ],
)
def test_edges_count_as_windows(grid, ratio, window):
    assert window_for(ratio, retom.Grid(*grid)) == window


@given(RATIOS, GRIDS, st.booleans())
def test_every_ratio_is_within_reach_of_its_windows(ratio, grid, alternate):
    method = retom.ReToM(ratio=ratio, alternate=alternate)
    removed = int(round(ratio * grid.num_tokens, 9))
    assert method.num_removed(grid) == removed
    assert sum(method.removed_apart(grid)) == 2 * removed


@given(RATIOS, GRIDS)
def test_windows_are_the_smallest_that_leave_a_choice(ratio, grid):
    height, width = window_for(ratio, grid)
    kept = grid.num_tokens - int(round(ratio * grid.num_tokens, 9))

    def leaves_a_choice(height, width):
        return kept / (-(-grid.height // height) * -(-grid.width // width)) >= FEWEST_KEPT

    whole = height >= grid.height and width >= grid.width
    assert leaves_a_choice(height, width) or whole
    if height * width > 4:  # the step before it did not
        assert not leaves_a_choice(*before(height, width, grid))


def before(height, width, grid):
    """The windows of which these are the double."""
    found, sizes = (2, 2), []
    while found != (height, width):
        sizes.append(found)
        h, w = found
        if h < 2 * grid.height and (h <= w or w >= 2 * grid.width):
            found = (2 * h, w)
        else:
            found = (h, 2 * w)
    return sizes[-1]


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
    methods = [config.with_options(ratio=ratio).method for ratio in (0.3, 0.7, 0.9, 0.5)]
    sizes = [window_of(method, SQUARE) for method in methods]
    assert sizes == [(2, 2), (4, 2), (4, 4), (2, 2)]
    assert config.to_dict()["method"]["window"] == "auto"
    assert retom.Config.from_dict(config.with_options(ratio=0.7).to_dict()).method.window == "auto"


def test_methods_without_windows_have_none():
    assert window_of(METHODS["tome"](), SQUARE) == (2, 2)
    assert window_of(METHODS["importance"](), SQUARE) is None


@pytest.mark.parametrize(
    "window", ["all", "2x2", (2,), (0, 2), (2.0, 2), 2, None, True, torch.tensor([2, 2])], ids=str
)
def test_others_are_refused(window):
    with pytest.raises(retom.ConfigError, match=r"two whole numbers .* or window='auto'"):
        retom.ReToM(window=window)
