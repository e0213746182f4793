"""SDTM's structure stage: against a slow loop from its definition, protection, wrong use."""

import itertools

import pytest
import tiny
import torch
from reference import assignment_of, cosine, windows_of

import retom
from retom import BudgetError, Config, ConfigError, Grid, ShapeError
from retom.hints import Hints
from retom.methods import SDTM


def slow(tokens, height, width, window, budget):
    """Windows in the order of collapse, and how many tokens each gives up."""
    tokens = tokens.double().tolist()
    windows = [w for w in windows_of(height, width, window) if len(w) > 1]
    coherence = [
        sum(cosine(tokens[i], tokens[k]) for i, k in itertools.combinations(members, 2))
        / (len(members) * (len(members) - 1) / 2)
        for members in windows
    ]
    gone = {}
    for number in sorted(range(len(windows)), key=lambda n: (-coherence[n], n)):
        gone[number] = min(len(windows[number]) - 1, budget)
        budget -= gone[number]
    return windows, gone


@pytest.mark.parametrize(
    ("size", "window", "ratio"),
    [((6, 8), (2, 2), 0.5), ((5, 7), (2, 2), 0.4), ((7, 5), (3, 2), 0.7), ((1, 9), (2, 2), 0.3)],
)
def test_the_most_coherent_windows_collapse_into_one_of_their_tokens(size, window, ratio):
    grid = Grid(*size)
    x = torch.randn(2, grid.num_tokens, 6, generator=torch.Generator().manual_seed(1))
    method = SDTM(ratio=ratio, window=window)
    plan = method.plan(x, grid)
    for item in range(2):
        gone = assignment_of(plan, item)
        windows, expected = slow(x[item], *size, window, method.num_removed(grid))
        for number, members in enumerate(windows):
            left = [i for i in members if i in gone]
            assert len(left) == expected[number]
            assert len({gone[i] for i in left}) <= 1
            assert {gone[i] for i in left} <= set(members)


def test_the_survivor_is_drawn_by_seed_alone():
    x = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(0))
    kept = [SDTM(ratio=0.75, seed=s).plan(x, Grid(8, 8)).kept for s in (0, 0, 1)]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0][0], kept[0][1])  # both pictures: the draw, not the tokens
    assert not torch.equal(kept[0], kept[2])


def test_protected_tokens_neither_go_nor_take_others_in():
    protected = torch.zeros(64, dtype=torch.bool)
    protected[:24] = True
    method = SDTM(ratio=0.4)
    method.check_protected(protected, Grid(8, 8))
    x = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(0))
    plan = method.plan(x, Grid(8, 8), Hints(protected=protected))
    assert plan.num_kept == 64 - method.num_removed(Grid(8, 8))
    for item in range(2):
        touched = {*assignment_of(plan, item).keys(), *assignment_of(plan, item).values()}
        assert not touched & set(range(24))
    with pytest.raises(BudgetError, match="with 24 of them protected"):
        SDTM(ratio=0.7).check_protected(protected, Grid(8, 8))


def test_a_handle_protects():
    model = tiny.sd15_unet()
    handle = retom.apply(model, Config(method=SDTM()))
    handle.protect(torch.ones(16, 16, dtype=torch.bool).tril(-4))
    tiny.call(model, tiny.inputs())
    assert handle.summary().levels[0].kept == 128


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="ratio is the fraction"):
        SDTM(ratio=1.0)
    with pytest.raises(ConfigError, match="window is"):
        SDTM(window=(2, 0))
    with pytest.raises(ConfigError, match="seed is a whole number"):
        SDTM(seed=0.5)
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        SDTM().plan(torch.randn(1, 9, 4), Grid(2, 4))
    with pytest.raises(BudgetError, match="can give up 12 at most"):
        SDTM(ratio=0.85).num_removed(Grid(4, 4))


def test_it_survives_json():
    config = Config(method=SDTM(ratio=0.3, window=(4, 2), seed=7))
    assert Config.from_dict(config.to_dict()) == config
