"""The window's corner as its representative: by hand, against the slow loop, protection."""

import pytest
import tiny
import torch
from reference import assignment_of
from reference import retom as slow

import retom
from retom import BudgetError, Config, Grid
from retom.hints import Hints
from retom.methods import WindowCorner


def test_whole_windows_collapse_into_their_first_tokens():
    x = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))
    plan = WindowCorner(ratio=0.75, window=(2, 2)).plan(x, Grid(4, 4))
    assert plan.kept.tolist() == [[0, 2, 8, 10]] * 2


def test_the_most_like_their_corner_go_by_hand():
    # Windows of 1x2: only the second token of each may go, 1 (like its corner) before 3 (unlike).
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]])
    plan = WindowCorner(ratio=0.25, window=(1, 2), reach=0).plan(x, Grid(1, 4))
    assert assignment_of(plan) == {1: 0}
    torch.testing.assert_close(plan.merge(x)[0, 0], torch.tensor([1.0, 0.05]))


@pytest.mark.parametrize("allocation", ["similarity", "coherence", "uniform"])
@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize(
    ("size", "window", "ratio"),
    [((6, 8), (2, 2), 0.5), ((5, 7), (2, 2), 0.4), ((7, 5), (3, 2), 0.6), ((1, 9), (2, 2), 0.3)],
)
def test_plans_are_those_of_the_slow_loop(size, window, ratio, reach, allocation):
    grid = Grid(*size)
    x = torch.randn(2, grid.num_tokens, 6, generator=torch.Generator().manual_seed(3))
    options = {"ratio": ratio, "window": window, "reach": reach, "allocation": allocation}
    plan = WindowCorner(**options).plan(x, grid)
    for item in range(2):
        expected = slow(x[item], *size, **options, elect=lambda _tokens, members: members[0])
        assert assignment_of(plan, item) == expected


def test_a_protected_corner_passes_its_part_to_the_next_token():
    protected = torch.zeros(16, dtype=torch.bool)
    protected[[0, 2]] = True
    x = torch.ones(1, 16, 3)
    method = WindowCorner(ratio=0.5, window=(2, 2), reach=0)
    method.check_protected(protected, Grid(4, 4))
    gone = assignment_of(method.plan(x, Grid(4, 4), Hints(protected=protected)))
    assert {gone[4], gone[6]} == {1, 3}  # not 0 and 2, which stand alone
    assert not {0, 2} & {*gone.keys(), *gone.values()}
    with pytest.raises(BudgetError, match="2 of them protected"):
        WindowCorner(ratio=0.7, window=(2, 2)).check_protected(protected, Grid(4, 4))


def test_it_draws_other_pictures_than_electing_and_un_merged():
    model = tiny.sd15_unet()
    outputs = [tiny.call(model, tiny.inputs())]
    for method in (retom.ReToM(), WindowCorner()):
        with retom.applied(model, Config(method=method)) as handle:
            outputs.append(tiny.call(model, tiny.inputs()))
            assert handle.summary().levels[0].kept == 128
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 1e-5 < (outputs[one] - outputs[other]).abs().mean() < 0.1
