"""Average pooling and ToDo: places alone decide, checked against torch's own pooling."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d, interpolate

import retom
from retom import Config, ConfigError, Grid, ShapeError
from retom.methods import AveragePool, ToDo


def as_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, (grid.height, grid.width))


def as_tokens(pixels):
    return pixels.flatten(2).transpose(1, 2)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_it_is_average_pooling_also_at_ragged_edges(height, width, tall, wide):
    grid = Grid(height, width)
    x = torch.randn(2, grid.num_tokens, 5, generator=torch.Generator().manual_seed(0))
    plan = AveragePool(window=(tall, wide)).plan(x, grid)
    pooled = avg_pool2d(as_map(x, grid), (tall, wide), ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(plan.merge(x), as_tokens(pooled))
    assert plan.num_kept == grid.num_tokens - AveragePool(window=(tall, wide)).num_removed(grid)


def test_un_merging_is_nearest_neighbour_upsampling():
    grid = Grid(6, 4)
    x = torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(0))
    plan = AveragePool().plan(x, grid)
    pooled = avg_pool2d(as_map(x, grid), 2)
    up = as_tokens(interpolate(pooled, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(plan.unmerge(plan.merge(x)), up)


def test_todo_is_nearest_neighbour_downsampling_of_keys_and_values():
    grid = Grid(6, 8)
    x = torch.randn(2, 48, 5, generator=torch.Generator().manual_seed(0))
    down = interpolate(as_map(x, grid), scale_factor=0.5, mode="nearest")
    assert torch.equal(ToDo().plan(x, grid).merge(x), as_tokens(down))


@pytest.mark.parametrize("method", [AveragePool(window=(1, 2)), ToDo()])
def test_it_draws(method):
    model = tiny.sd15_unet()
    unmerged = tiny.call(model, tiny.inputs())
    handle = retom.apply(model, Config(method=method, scope="kv"))
    merged = tiny.call(model, tiny.inputs())
    assert 1e-4 < (merged - unmerged).abs().mean() < 0.1
    assert handle.summary().levels[0].kept == round(256 * (1 - method.ratio))


def test_the_window_fixes_the_ratio():
    assert AveragePool(window=(1, 2)).ratio == 0.5
    assert AveragePool().ratio == 0.75
    assert AveragePool(window=(1, 1)).ratio == 0
    with pytest.raises(ConfigError, match="AveragePool takes window"):
        retom.apply(tiny.sd15_unet(), Config(method=AveragePool()), ratio=0.5)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="window is"):
        ToDo(window=0)
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        ToDo().plan(torch.randn(1, 9, 4), Grid(2, 4))
    with pytest.raises(ConfigError, match="ToDo cannot protect tokens"):
        ToDo().check_protected(torch.zeros(16, dtype=torch.bool), Grid(4, 4))


@pytest.mark.parametrize("method", [AveragePool(window=(1, 2)), ToDo(window=(3, 3))])
def test_it_survives_json(method):
    config = Config(method=method)
    assert Config.from_dict(config.to_dict()) == config
