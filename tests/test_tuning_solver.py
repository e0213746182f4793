"""The knapsack behind a schedule: by hand, and against trying out every combination."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retom.errors import ConfigError
from retom.tuning.solver import (
    NOTHING,
    fastest,
    knapsack,
    least_damage,
    least_time,
    mean_psnr,
)


def times(rows):
    return torch.tensor(rows, dtype=torch.int64)


def harms(rows):
    return torch.tensor(rows, dtype=torch.float64)


class TestByHand:
    # Not merging, a little, a lot: the first cell minds little, the second much.
    TIMES = times([[10, 6, 4], [10, 6, 4]])
    HARM = harms([[0.0, 1.0, 2.0], [0.0, 5.0, 9.0]])

    @pytest.mark.parametrize(
        ("budget", "choices"),
        [
            (20, [0, 0]),
            (19, [1, 0]),  # 6 + 10: saves 4 for 1
            (15, [2, 0]),  # 4 + 10: saves 6 for 2, where [1, 1] saves 8 for 6
            (13, [1, 1]),  # 12 for 6, where [2, 1] is 10 for 7
            (11, [2, 1]),
            (9, [2, 2]),
            (8, [2, 2]),
        ],
    )
    def test_least_damage_within_a_time(self, budget, choices):
        assert knapsack(self.TIMES, self.HARM, budget) == choices
        assert least_damage(self.TIMES, self.HARM[..., None], budget) == choices

    def test_less_time_than_the_fastest_takes_is_refused(self):
        with pytest.raises(ConfigError, match="fastest choices take 8 units of time; 7 are"):
            knapsack(self.TIMES, self.HARM, 7)

    def test_a_choice_that_is_lacking_is_never_taken(self):
        harm = self.HARM.clone()
        harm[0, 2] = math.inf
        assert knapsack(self.TIMES, harm, 10) == [1, 2]
        assert fastest(self.TIMES, harm[..., None]) == [1, 2]
        with pytest.raises(ConfigError, match="take 10 units"):
            knapsack(self.TIMES, harm, 9)

    def test_of_equals_the_first_is_taken(self):
        equal = torch.zeros(3, 4, dtype=torch.float64)
        assert knapsack(torch.ones(3, 4, dtype=torch.int64), equal, 3) == [0, 0, 0]

    def test_least_time_at_a_psnr(self):
        harm = self.HARM[..., None] / 100
        # 17 dB is a damage of 0.01995 in all: [1, 0] has 0.01, [2, 0] 0.02
        assert least_time(self.TIMES, harm, 17.0, 20) == [1, 0]
        assert least_time(self.TIMES, harm, 16.9, 20) == [2, 0]
        assert least_time(self.TIMES, harm, 99.9, 20) == [0, 0]
        assert least_time(self.TIMES, harm + 1.0, 30.0, 20) is None

    def test_the_mean_is_over_pictures_in_decibels(self):
        # The first picture is far off in any case. A mean of errors would rather spoil the second.
        units = times([[2, 1], [2, 1], [0, 0]])
        harm = torch.zeros(3, 2, 2, dtype=torch.float64)
        harm[0, 1] = torch.tensor([0.0, 0.010])
        harm[1, 1] = torch.tensor([0.011, 0.0])
        harm[2, :] = torch.tensor([0.1, 0.0])
        assert knapsack(units, harm.sum(dim=-1), 3) == [1, 0, 0]
        assert least_damage(units, harm, 3) == [0, 1, 0]


@st.composite
def problems(draw, pictures=1):
    """Times, damage (K, J, n) and a budget that the fastest choices keep."""
    cells, options = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    whole = st.integers(0, 12)
    units = times([[draw(whole) for _ in range(options)] for _ in range(cells)])
    numbers = st.floats(0, 0.5, allow_nan=False, width=32)
    rows = [
        [[draw(numbers) for _ in range(pictures)] for _ in range(options)] for _ in range(cells)
    ]
    harm = harms(rows)
    for cell, option in itertools.product(range(cells), range(1, options)):
        if draw(st.integers(0, 5)) == 0:
            harm[cell, option] = math.inf
    least = int(units.masked_fill(harm[..., 0].isinf(), 99).amin(dim=1).sum())
    return units, harm, draw(st.integers(least, int(units.amax(dim=1).sum()) + 1))


def every(units, harm):
    """Each combination with its time and its damage."""
    cells = range(len(units))
    for choices in itertools.product(range(units.shape[1]), repeat=len(units)):
        at = list(choices)
        yield at, int(units[cells, at].sum()), harm[cells, at].sum(dim=0)


@given(problems())
@settings(max_examples=150, deadline=None)
def test_nothing_within_the_time_is_better(problem):
    units, harm, budget = problem
    found = least_damage(units, harm, budget)
    assert int(units[range(len(units)), found].sum()) <= budget
    best = min(float(total) for _, taken, total in every(units, harm) if taken <= budget)
    own = float(harm[range(len(units)), found].sum())
    assert own == pytest.approx(best, abs=1e-12)
    assert mean_psnr(harm, found) == pytest.approx(-10 * math.log10(best + NOTHING))


@given(problems(pictures=3))
@settings(max_examples=60, deadline=None)
def test_for_several_pictures_it_is_at_least_as_good_as_any_fixed_weighing(problem):
    units, harm, budget = problem
    found = mean_psnr(harm, least_damage(units, harm, budget))
    scale = harm.nan_to_num(posinf=0.0).mean(dim=(0, 1)).clamp_min(NOTHING)
    for weights in (torch.ones_like(scale), 1 / scale):
        assert found >= mean_psnr(harm, knapsack(units, harm @ weights, budget)) - 1e-9
    best = max(
        mean_psnr(harm, at) for at, taken, total in every(units, harm)
        if taken <= budget and bool(total.isfinite().all())
    )  # fmt: skip
    assert found <= best + 1e-9


@given(problems(), st.floats(1, 60))
@settings(max_examples=80, deadline=None)
def test_nothing_at_that_psnr_is_faster(problem, psnr):
    units, harm, _ = problem
    most = int(units.amax(dim=1).sum())
    found = least_time(units, harm, psnr, most)
    able = [
        taken
        for at, taken, total in every(units, harm)
        if bool(total.isfinite()) and mean_psnr(harm, at) >= psnr
    ]
    if found is None:
        assert not able
    else:
        assert int(units[range(len(units)), found].sum()) == min(able)
        assert mean_psnr(harm, found) >= psnr


def test_the_same_twice():
    generator = torch.Generator().manual_seed(0)
    units = torch.randint(0, 2000, (12, 11), generator=generator)
    harm = torch.rand(12, 11, 4, generator=generator, dtype=torch.float64)
    assert least_damage(units, harm, 9000) == least_damage(units.clone(), harm.clone(), 9000)
