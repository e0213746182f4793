"""SiTo: against a slow loop from its definition, and wrong use."""

import pytest
import torch
from reference import assignment_of, cosine, windows_of

from retom import BudgetError, Config, ConfigError, Grid, ShapeError
from retom.methods import SiTo


def slow(tokens, height, width, method, budget):
    """``{pruned token: the kept token that it is recovered from}``, one pair at a time."""
    tokens = tokens.double().tolist()
    count = height * width
    similar = [[cosine(a, b) for b in tokens] for a in tokens]
    draw = torch.randn(count, generator=torch.Generator().manual_seed(method.seed)).tolist()
    score = [sum(similar[i]) + method.score_noise * draw[i] for i in range(count)]
    base = [max(w, key=lambda i: score[i]) for w in windows_of(height, width, method.window)]
    nearest = {i: max(similar[i][b] for b in base) for i in range(count) if i not in base}
    pruned = sorted(nearest, key=lambda i: (-nearest[i], i))[:budget]
    kept = [i for i in range(count) if i not in pruned]
    return {i: max(kept, key=lambda k: similar[i][k]) for i in pruned}


@pytest.mark.parametrize("noise", [0.0, 0.1, 5.0])
@pytest.mark.parametrize(
    ("size", "window", "ratio"), [((6, 8), (2, 2), 0.5), ((5, 7), (2, 2), 0.6), ((4, 9), (3, 2), 0)]
)
def test_plans_equal_the_slow_loop(size, window, ratio, noise):
    grid = Grid(*size)
    x = torch.randn(2, grid.num_tokens, 6, generator=torch.Generator().manual_seed(1))
    method = SiTo(ratio=ratio, window=window, score_noise=noise, seed=3)
    plan = method.plan(x, grid)
    for item in range(2):
        expected = slow(x[item], *size, method, method.num_removed(grid))
        assert assignment_of(plan, item) == expected


def test_kept_tokens_are_not_averaged():
    x = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(0))
    plan = SiTo().plan(x, Grid(4, 4))
    assert torch.equal(plan.merge(x)[0], x[0, plan.kept[0]])


def test_much_noise_makes_the_base_tokens_random():
    x = torch.randn(1, 64, 6, generator=torch.Generator().manual_seed(0))
    one, other = (SiTo(ratio=0.75, score_noise=1e3, seed=s).plan(x, Grid(8, 8)) for s in (0, 1))
    assert not torch.equal(one.kept, other.kept)
    calm = [SiTo(ratio=0.75, score_noise=0, seed=s).plan(x, Grid(8, 8)).kept for s in (0, 1)]
    assert torch.equal(*calm)


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="ratio is the fraction"):
        SiTo(ratio=1.0)
    with pytest.raises(ConfigError, match="window is"):
        SiTo(window=2)
    for noise in (-1, float("nan"), float("inf"), True, "much"):
        with pytest.raises(ConfigError, match="score_noise is a number of at least 0"):
            SiTo(score_noise=noise)
    with pytest.raises(ConfigError, match="seed is a whole number"):
        SiTo(seed=-1)
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        SiTo().plan(torch.randn(1, 9, 4), Grid(2, 4))
    with pytest.raises(BudgetError, match="can give up 12 at most"):
        SiTo(ratio=0.85).num_removed(Grid(4, 4))
    with pytest.raises(ConfigError, match="SiTo cannot protect tokens"):
        SiTo().check_protected(torch.zeros(16, dtype=torch.bool), Grid(4, 4))


def test_it_survives_json():
    config = Config(method=SiTo(ratio=0.3, window=(4, 2), score_noise=0.5, seed=7))
    assert Config.from_dict(config.to_dict()) == config
