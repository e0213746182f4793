import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d, interpolate

from retom.errors import ShapeError
from retom.metrics import grid_artefacts, grid_energy


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def photograph(name="chelsea"):
    data = pytest.importorskip("skimage.data")
    picture = torch.from_numpy(getattr(data, name)()).movedim(-1, 0)[:, :256, :256]
    return picture.float() / 255


def blocks(picture, side, share):
    """Mix in the mean of every window: what merging to one token a window would do."""
    mean = avg_pool2d(picture[None], side)
    return picture + share * (interpolate(mean, scale_factor=side, mode="nearest")[0] - picture)


def slow_energy(x, period):
    """The definition with sums of cosines and sines instead of a transform, for whole windows."""
    ratios = []
    for plane, side in ((x.transpose(1, 2), period[0]), (x, period[1])):
        length = plane.shape[2]
        count = length // side
        profile = (plane[:, :, 1:] - plane[:, :, :-1]).abs().mean(dim=(0, 1)).tolist()
        mean = sum(profile) / len(profile)
        profile = [value - mean for value in profile] + [0.0]
        power = []
        for f in range(length // 2 + 1):
            angle = 2 * math.pi * f / length
            real = sum(v * math.cos(angle * i) for i, v in enumerate(profile))
            imaginary = sum(v * math.sin(angle * i) for i, v in enumerate(profile))
            power.append(real**2 + imaginary**2 + length / 255**2 / 12 / (3 * plane.shape[1]))
        for f in range(count, len(power), count):
            near = [p for g, p in enumerate(power) if g != f and abs(g - f) <= count // 2]
            ratios.append(power[f] / (sum(near) / len(near)))
    return sum(ratios) / len(ratios)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(4, 6),
    columns=st.integers(4, 6),
    height=st.integers(2, 5),
    width=st.integers(2, 5),
    seed=st.integers(0, 999),
)
def test_agrees_with_sums_of_sines(rows, columns, height, width, seed):
    x = noise(3, rows * height, columns * width, seed=seed)
    expected = slow_energy(x.double(), (height, width))
    assert grid_energy(x, (height, width)).item() == pytest.approx(expected, rel=1e-5)


def test_noise_and_nothing_have_no_grid():
    energies = grid_energy(noise(64, 3, 64, 64), (8, 8))
    assert energies.mean().item() == pytest.approx(1, abs=0.15)  # standard error 0.05
    assert grid_energy(torch.full((3, 64, 64), 0.5), (8, 8)).item() == pytest.approx(1)


def test_lines_at_the_window_borders_are_all_there_is():
    lines = torch.zeros(3, 64, 64)
    lines[:, ::8] = lines[:, :, ::8] = 1
    assert grid_energy(lines, (8, 8)).item() > 100


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
def test_blocks_in_a_photograph_raise_it_with_their_share(name):
    picture = photograph(name)
    levels = [
        grid_artefacts(blocks(picture, 16, share), picture, (16, 16)).item()
        for share in (0.0, 0.1, 0.3, 1.0)
    ]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[1] > 4
    assert levels[2] > 12


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: 0.8 * x,
        lambda x: x.flip(2),
        lambda x: (
            x + 0.04 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        ).clamp(0, 1),
        lambda x: avg_pool2d(x[None], 3, stride=1, padding=1, count_include_pad=False)[0],
    ],
    ids=["darker", "mirrored", "noisy", "blurred"],
)
def test_what_is_no_grid_hardly_changes_it(name, change):
    picture = photograph(name)
    assert abs(grid_artefacts(change(picture), picture, (16, 16)).item()) < 2.5


def test_it_is_the_grid_of_this_period_that_counts():
    picture = photograph()
    blocky = blocks(picture, 16, 0.3)
    assert grid_artefacts(blocky, picture, (16, 16)) > 12
    assert grid_artefacts(blocky, picture, (11, 11)) < 2


def test_height_and_width_are_not_mixed_up():
    rows = torch.zeros(3, 70, 70)
    rows[:, ::7] = 1  # lines 7 pixels apart, one below the other
    assert grid_energy(rows, (7, 10)) > 3 * grid_energy(rows, (10, 7))


def test_a_ragged_edge_is_left_out():
    picture = noise(3, 32, 40)
    picture[:, :, 35:] = 0.5  # flat: nothing for the profile of the rows but a constant factor
    assert grid_energy(picture, (8, 7)).isfinite()
    # Windows 7 wide end at pixel 35, so that the profile of the columns does not see the rest.
    rows = torch.zeros(3, 32, 40)
    rows[:, :, 35:] = noise(3, 1, 5)
    flat = torch.zeros(3, 32, 40)
    assert torch.equal(grid_energy(rows, (8, 7)), grid_energy(flat, (8, 7)))


def test_a_batch_gives_one_number_a_picture():
    x, y = noise(4, 3, 32, 32), noise(4, 3, 32, 32, seed=1)
    together = grid_artefacts(x, y, (4, 4))
    assert together.shape == (4,)
    alone = torch.stack([grid_artefacts(a, b, (4, 4)) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_too_few_windows_and_other_shapes_are_refused():
    x = noise(3, 32, 32)
    with pytest.raises(ShapeError, match="a window 16 and a picture 32 pixels high"):
        grid_energy(x, (16, 8))
    with pytest.raises(ShapeError, match="a window 1 and a picture 32 pixels wide"):
        grid_energy(x, (8, 1))
    with pytest.raises(ShapeError, match=r"\(3, 32, 32\) and \(3, 32, 40\) were given"):
        grid_artefacts(x, noise(3, 32, 40), (8, 8))
