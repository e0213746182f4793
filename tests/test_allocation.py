"""Allocations on similarities written down by hand: 2x4 tokens in two windows of 2x2."""

import pytest
import torch

from retom import BudgetError, Grid, ReToM
from retom.allocation import allocate, num_removed
from retom.grid import Windows

WINDOWS = Windows(Grid(2, 4), 2, 2)
STAYS = -torch.inf
# Tokens 0 1 | 2 3     window 0 holds 0, 1, 4, 5 with representative 0,
#        4 5 | 6 7     window 1 holds 2, 3, 6, 7 with representative 7.
SIMILARITY = torch.tensor([[[STAYS, 0.9, 0.1, 0.2], [0.5, 0.6, 0.7, STAYS]]])


def removed(allocation, count):
    return allocate(allocation, SIMILARITY, WINDOWS, count)[0].tolist()


def test_similarity_takes_the_most_similar_tokens_wherever_they_are():
    assert removed("similarity", 4) == [1, 6, 3, 2]


def test_coherence_collapses_the_most_coherent_window_first_and_the_next_in_part():
    # Means 0.4 and 0.6: window 1 goes whole, then the most similar token of window 0.
    assert removed("coherence", 3) == [6, 3, 2]
    assert removed("coherence", 4) == [6, 3, 2, 1]


def test_uniform_takes_an_equal_share_of_every_window():
    assert sorted(removed("uniform", 2)) == [1, 6]
    assert sorted(removed("uniform", 4)) == [1, 3, 5, 6]
    # The odd one falls to the second window: floor(3 * 3 / 6) = 1 for the first.
    assert sorted(removed("uniform", 3)) == [1, 3, 6]


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
def test_the_whole_budget_spares_the_representatives_alone(allocation):
    assert sorted(removed(allocation, 6)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
def test_ties_go_to_the_lowest_index(allocation):
    tied = torch.tensor([[[STAYS, 0.5, 0.5, 0.5], [STAYS, 0.5, 0.5, 0.5]]])
    gone = allocate(allocation, tied, WINDOWS, 2)[0].tolist()
    assert gone == {"similarity": [1, 3], "coherence": [1, 4], "uniform": [1, 3]}[allocation]


@pytest.mark.parametrize(
    ("ratio", "grid", "expected"),
    [(0.5, Grid(4, 4), 8), (0.3, Grid(3, 5), 4), (0.29, Grid(10, 10), 29), (0, Grid(3, 3), 0)],
)
def test_exactly_floor_of_ratio_times_tokens_go(ratio, grid, expected):
    assert num_removed(ratio, Windows(grid, 2, 2)) == expected


def test_a_ratio_beyond_the_windows_is_refused_with_the_limit():
    assert num_removed(0.75, Windows(Grid(4, 4), 2, 2)) == 12
    with pytest.raises(
        BudgetError,
        match=r"remove 12 of the 16 tokens of a 4x4 grid.*2x1 can give up 8 at most \(ratio 0\.5\)"
        r".*window=\(4, 2\)",
    ):
        num_removed(0.75, Windows(Grid(4, 4), 2, 1))


def test_a_ragged_grid_can_give_up_less():
    # 3x3 in windows of 2x2: four windows, so five tokens at most.
    assert num_removed(5 / 9, Windows(Grid(3, 3), 2, 2)) == 5
    with pytest.raises(BudgetError, match="can give up 5 at most"):
        num_removed(0.7, Windows(Grid(3, 3), 2, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
def test_a_picture_that_is_no_number_leaves_the_others_of_its_batch_alone(allocation, reach, bad):
    x = torch.randn(2, 36, 8, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0] = bad
    method = ReToM(ratio=0.5, allocation=allocation, reach=reach)
    plan, sound = method.plan(broken, Grid(6, 6)), method.plan(x, Grid(6, 6))
    assert plan.slot.min() >= 0
    assert plan.slot.max() < plan.num_kept
    assert torch.equal(plan.slot[1], sound.slot[1])
    assert torch.equal(plan.merge(broken)[1], sound.merge(x)[1])
