"""Bands: every window and token once, and plans that do not depend on where the cuts are."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import retom
from retom import bands
from retom.grid import Grid, Windows
from retom.hints import Hints
from retom.methods import RandomRepresentative, WindowCorner

SIZES = st.integers(1, 19)


@settings(deadline=None)
@given(
    height=SIZES,
    width=SIZES,
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    data=st.data(),
)
def test_bands_are_the_partition_cut_between_rows_of_windows(height, width, window, data):
    windows = Windows(Grid(height, width), *window)
    if data.draw(st.booleans()):
        windows = windows.shifted()
    cuts = data.draw(st.sets(st.integers(1, max(1, windows.rows - 1))))
    edges = sorted({0, windows.rows} | {cut for cut in cuts if cut < windows.rows})
    parts = [bands.Band(windows, *pair) for pair in itertools.pairwise(edges)]

    token = torch.arange(height * width)
    table, valid = windows.token_index(token.device), windows.valid(token.device)
    for part in parts:
        own = token[part.tokens]
        assert part.windows.grid.num_tokens == len(own)
        assert part.windows.count == part.places.stop - part.places.start
        inside = part.windows.valid(own.device)
        assert torch.equal(inside, valid[part.places])
        members = own[part.windows.token_index(own.device)]
        assert torch.equal(members[inside], table[part.places][inside])
    assert sum(part.windows.count for part in parts) == windows.count
    assert sum(part.windows.grid.num_tokens for part in parts) == len(token)


@pytest.mark.parametrize("method", [retom.ReToM, RandomRepresentative, WindowCorner])
@settings(max_examples=25, deadline=None)
@given(
    height=SIZES,
    width=SIZES,
    reach=st.integers(0, 2),
    alternate=st.booleans(),
    protect=st.booleans(),
    band_bytes=st.sampled_from([1, 1500, 4000]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_a_plan_does_not_depend_on_the_bands(
    method, height, width, reach, alternate, protect, band_bytes, dtype, seed
):
    generator = torch.Generator().manual_seed(seed)
    # whole numbers, so that ties are common
    x = torch.randint(-1, 2, (2, height * width, 5), generator=generator).to(dtype)
    before = x.clone()
    plain = method(ratio=0.0, window=(2, 3), reach=reach, alternate=alternate)
    grid = Grid(height, width)
    protected = torch.rand(height * width, generator=generator) < 0.3 if protect else None
    windows = Windows(grid, 2, 3)
    hints = Hints(protected=protected, turn=int(alternate))
    whole = [part.clone() for part in plain._candidates(x, _shift(windows, alternate), hints)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND_BYTES", band_bytes)
        cut = plain._candidates(x, _shift(windows, alternate), hints)
        if band_bytes == 1 and windows.rows > max(1, reach):
            assert len(bands.bands(x, windows, reach)) > 1
    for one, other in zip(whole, cut, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(x, before)  # bands work in memory of their own


def _shift(windows, shift):
    return windows.shifted() if shift else windows


def test_the_default_cuts_a_grid_of_a_published_size():
    windows = Windows(Grid(64, 64), 2, 2)
    parts = bands.bands(torch.empty(2, 4096, 320), windows, reach=1)
    assert [part.rows for part in parts] == [16, 16]
    assert [part.num_windows for part in parts] == [16 * 32, 16 * 32]


def test_only_a_cpu_gets_bands():
    windows = Windows(Grid(64, 64), 2, 2)
    x = torch.empty(2, 4096, 640, device="meta")
    assert len(bands.bands(x, windows, reach=1)) == 1
