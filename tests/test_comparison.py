"""Tokens compared with the representatives around them: two ways to compute it, and who wins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retom import ReToM, candidates, comparison, representative
from retom.grid import Grid, Windows, around


def field_of(vectors, rows, columns, reach):
    """Representatives with as many zeros before and behind as a field has."""
    edge = vectors.new_zeros(len(vectors), reach * (columns + 1), vectors.shape[2])
    return torch.cat([edge, vectors, edge], dim=1)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    area=st.integers(1, 9),
    reach=st.integers(1, 3),
    channels=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_both_ways_give_the_dot_product_with_each_window_around(
    rows, columns, area, reach, channels, seed
):
    tokens = unit(2, rows * columns, area, channels, seed=seed)
    vectors = unit(2, rows * columns, channels, seed=seed + 1)
    field = field_of(vectors, rows, columns, reach)
    room = torch.full((comparison.room_needed(2, rows * columns, channels, reach),), torch.nan)
    by_window = comparison._window_by_window(tokens, field, columns, reach, room)
    by_place = comparison._place_by_place(tokens, field, columns, reach, None)
    places = around(reach)
    assert by_window.shape == by_place.shape == (len(places), 2, rows * columns, area)
    torch.testing.assert_close(by_window, by_place, rtol=0, atol=1e-5)
    for row in range(rows):
        for column in range(columns):
            window = row * columns + column
            for k, (down, right) in enumerate(places):
                if 0 <= row + down < rows and 0 <= column + right < columns:
                    other = (row + down) * columns + column + right
                    expected = (tokens[:, window] * vectors[:, other, None]).sum(-1)
                    torch.testing.assert_close(by_window[k, :, window], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("matrices", [True, False])
def test_equal_tokens_stay_at_home_whatever_their_rounding(matrices, monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: matrices)
    for channels in (1, 3, 17, 320, 1280):
        x = unit(1, 1, channels).expand(2, 64, -1).contiguous()
        windows = Windows(Grid(8, 8), 2, 2)
        target, similarity = candidates.nearest_representative(
            x,
            windows,
            1,
            None,
            lambda tokens, band, _: tokens.new_zeros(2, band.num_windows).long(),
        )
        assert torch.equal(target[0], windows.token_index(x.device)[:, :1].expand(-1, 4))
        assert set(similarity.unique().tolist()) == {-torch.inf, 1.0}


@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_either_way_similarities_differ_by_a_step_at_most(spread, monkeypatch):
    x = unit(1, 1, 64) + spread * unit(2, 24 * 20, 64, seed=1)
    windows = Windows(Grid(24, 20), 2, 2)
    found = []
    for matrices in (True, False):
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda given=matrices: given)
        similarity = candidates.nearest_representative(x, windows, 2, None, ReToM().elect)[1]
        found.append(similarity.masked_fill(similarity == -torch.inf, 0))
    assert (found[0] - found[1]).abs().max() <= candidates.STEP
    assert (found[0] != found[1]).float().mean() < 0.02


@settings(deadline=None)
@given(
    reach=st.sampled_from([1, 2, 7, 9]),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_best_is_the_first_of_the_highest(reach, ties, seed):
    windows = Windows(Grid(40, 40), 2, 2)
    standing = candidates._standing(windows, reach, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(len(standing), 2, 400, 4, generator=generator) * 2 - 1
    if ties:
        found = (found * 3).round() / 4
    step = {1: 2.0**-16, 2: 2.0**-16, 7: 2.0**-15, 9: 2.0**-14}[reach]
    steps = (found / step).round() * step
    steps = steps.masked_fill(standing[:, None] == -torch.inf, -torch.inf)
    expected, first = steps.max(dim=0)
    similarity, place = candidates._best(found.clone(), standing)
    assert torch.equal(similarity, expected)
    assert torch.equal(place, first)


def test_what_is_no_number_is_like_nothing_and_spoils_no_other_token():
    grid = Grid(8, 8)
    x = unit(1, 64, 16)
    plain = candidates.nearest_representative(x, Windows(grid, 2, 2), 1, None, ReToM().elect)
    broken = x.clone()
    broken[0, 16] = torch.nan  # in the first column of windows, in their second row
    target, similarity = candidates.nearest_representative(
        broken, Windows(grid, 2, 2), 1, None, ReToM().elect
    )
    assert not similarity.isnan().any()
    far = [window for window in range(16) if window % 4 > 1 or window // 4 > 2]
    assert torch.equal(target[:, far], plain[0][:, far])
    assert torch.equal(similarity[:, far], plain[1][:, far])


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_tokens_too_short_to_have_a_direction_do_no_harm(reach):
    for length in (1e-23, 1e-30, 1e-38, 0.0):
        x = unit(1, 64, 8)
        x[0, 20] *= length
        for tokens in (x, x * length, x.bfloat16() * length):
            plan = ReToM(reach=reach).plan(tokens, Grid(8, 8))
            assert plan.unmerge(plan.merge(tokens)).isfinite().all()


@pytest.mark.parametrize("allowed", ["high", "medium", "highest"])
def test_products_of_matrices_only_where_they_are_in_float32(allowed):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(allowed)
        assert representative.multiplies_well(torch.device("cpu")) == (
            allowed == "highest" and torch.backends.mkl.is_available()
        )
    finally:
        torch.set_float32_matmul_precision(before)


def test_similarities_are_in_float32_under_autocast():
    x = unit(2, 1024, 64)
    expected = ReToM().plan(x, Grid(32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        plan = ReToM().plan(x, Grid(32, 32))
    assert torch.equal(plan.kept, expected.kept)
    assert torch.equal(plan.slot, expected.slot)
