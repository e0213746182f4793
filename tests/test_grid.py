"""Grids and windows, by hand."""

import pytest
import torch

from retom import ConfigError, Grid
from retom.grid import Windows, check_window

CPU = torch.device("cpu")


def test_a_grid_counts_its_tokens_and_prints_height_first():
    assert Grid(65, 49).num_tokens == 3185
    assert str(Grid(65, 49)) == "65x49"


def test_windows_of_a_ragged_grid_are_smaller_at_the_edges():
    # 3x5 tokens in windows of 2x2:  0  1 |  2  3 |  4
    #                                5  6 |  7  8 |  9
    #                               ---------------------
    #                               10 11 | 12 13 | 14
    windows = Windows(Grid(3, 5), 2, 2)
    assert (windows.rows, windows.columns, windows.count, windows.is_ragged) == (2, 3, 6, True)
    index, valid = windows.token_index(CPU), windows.valid(CPU)
    members = [i[v].tolist() for i, v in zip(index, valid, strict=True)]
    assert members == [[0, 1, 5, 6], [2, 3, 7, 8], [4, 9], [10, 11], [12, 13], [14]]


def test_slots_beyond_the_edge_repeat_a_token_that_exists():
    index = Windows(Grid(3, 5), 4, 4).token_index(CPU)
    assert index.min() >= 0
    assert index.max() < 15


def test_a_grid_that_divides_is_not_ragged():
    windows = Windows(Grid(4, 6), 2, 3)
    assert not windows.is_ragged
    assert windows.valid(CPU).all()
    assert windows.token_index(CPU)[3].tolist() == [15, 16, 17, 21, 22, 23]


def test_a_window_larger_than_the_grid_is_the_whole_grid():
    windows = Windows(Grid(2, 3), 4, 4)
    assert windows.count == 1
    assert windows.token_index(CPU)[0][windows.valid(CPU)[0]].tolist() == list(range(6))


@pytest.mark.parametrize("shape", [(4, 4, 2, 2), (3, 5, 2, 2), (1, 7, 2, 3), (5, 1, 4, 4)])
def test_window_order_and_token_order_are_inverse(shape):
    height, width, tall, wide = shape
    windows = Windows(Grid(height, width), tall, wide)
    tokens = torch.arange(height * width).reshape(1, -1, 1).float()
    gathered = windows.gather(tokens)
    assert gathered.shape == (1, windows.count, windows.area, 1)
    assert torch.equal(windows.token_order(gathered[..., 0]), tokens[..., 0])


def test_neighbours_start_at_home_and_replace_what_lies_outside():
    # 0 1 2
    # 3 4 5
    table = Windows(Grid(4, 6), 2, 2).neighbours(1, CPU)
    assert table.shape == (6, 9)
    assert table[:, 0].tolist() == list(range(6))
    assert sorted(set(table[4].tolist())) == [0, 1, 2, 3, 4, 5]
    assert sorted(set(table[0].tolist())) == [0, 1, 3, 4]
    assert Windows(Grid(4, 6), 2, 2).neighbours(0, CPU).tolist() == [[n] for n in range(6)]


@pytest.mark.parametrize("window", [2, (2,), (2, 2, 2), (0, 2), (2.0, 2), (True, 2), "22", None])
def test_a_window_that_is_not_two_whole_numbers_is_refused(window):
    with pytest.raises(ConfigError, match=r"\(height, width\) in tokens"):
        check_window(window)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("window", [(100, 100), (13, 3), (3, 17), (2, 2)])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 4)])
def test_windows_far_larger_than_the_grid_are_the_same_partition(size, window, shift):
    grid = Grid(*size)
    plain, bounded = Windows(grid, *window), Windows.over(grid, window)
    if shift:
        plain, bounded = plain.shifted(), bounded.shifted()
    assert (bounded.rows, bounded.columns) == (plain.rows, plain.columns)
    assert bounded.area <= 4 * grid.num_tokens
    members = [
        [slots[held].tolist() for slots, held in zip(*tables, strict=True)]
        for tables in (
            (windows.token_index(torch.device("cpu")), windows.valid(torch.device("cpu")))
            for windows in (plain, bounded)
        )
    ]
    assert members[0] == members[1]
