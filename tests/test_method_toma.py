"""ToMA: greedy cover and matrices against a slow loop from the definition, and wrong use."""

import math

import pytest
import torch
from reference import cosine, windows_of

from retom import BudgetError, Config, ConfigError, Grid, ShapeError
from retom.grid import Windows
from retom.methods import ReToM, ToMA
from retom.methods.toma import kept_by_window, most_kept


def slow(tokens, height, width, method, budget):
    """Kept tokens in raster order, and the matrices M (K, N) and A (K, N)."""
    values = tokens.double().tolist()
    windows = windows_of(height, width, method.window)
    may_go = height * width - len(windows)
    before, shares = 0, {}
    for members in windows:
        after = before + len(members) - 1
        quota = len(members) - (after * budget // may_go - before * budget // may_go)
        before = after
        chosen = []
        for _ in range(quota):
            left = [d for d in members if d not in chosen]
            cover = [
                sum(max(cosine(values[i], values[k]) for k in [*chosen, d]) for i in members)
                for d in left
            ]
            # Two tokens that are each other's nearest gain the same, but for rounding.
            chosen.append(
                next(d for d, c in zip(left, cover, strict=True) if c > max(cover) - 1e-9)
            )
        for i in members:
            logits = [cosine(values[i], values[d]) / method.temperature for d in chosen]
            total = sum(math.exp(value) for value in logits)
            for d, value in zip(chosen, logits, strict=True):
                shares[d, i] = math.exp(value) / total
    kept = sorted({d for d, _ in shares})
    a = torch.zeros(len(kept), height * width, dtype=torch.float64)
    for (d, i), share in shares.items():
        a[kept.index(d), i] = share
    return kept, a / a.sum(dim=1, keepdim=True), a


@pytest.mark.parametrize(
    ("size", "window", "ratio"),
    [((4, 8), (4, 4), 0.5), ((5, 6), (4, 4), 0.6), ((3, 7), (2, 2), 0.3), ((4, 5), (9, 9), 0.75)],
)
def test_plans_equal_the_slow_loop(size, window, ratio):
    grid = Grid(*size)
    x = torch.randn(2, grid.num_tokens, 6, generator=torch.Generator().manual_seed(1))
    y = torch.randn(2, grid.num_tokens, 3, generator=torch.Generator().manual_seed(2))
    method = ToMA(ratio=ratio, window=window)
    plan = method.plan(x, grid)
    for item in range(2):
        kept, merge, shares = slow(x[item], *size, method, method.num_removed(grid))
        assert plan.kept[item].tolist() == kept
        merged = plan.merge(y)[item].double()
        torch.testing.assert_close(merged, merge @ y[item].double(), rtol=1e-4, atol=1e-5)
        back = plan.unmerge(plan.merge(y))[item].double()
        torch.testing.assert_close(back, shares.T @ merged, rtol=1e-4, atol=1e-5)
        sizes = plan.log_sizes[item].exp().double()
        torch.testing.assert_close(sizes, shares.sum(dim=1), rtol=1e-4, atol=1e-5)


def test_the_first_choice_is_the_representative():
    x = torch.randn(3, 64, 8, generator=torch.Generator().manual_seed(0))
    one = ToMA(ratio=0.9375, window=(4, 4)).plan(x, Grid(8, 8))
    assert torch.equal(one.kept, ReToM(ratio=0.9375, window=(4, 4)).plan(x, Grid(8, 8)).kept)


def test_the_pseudo_inverse_gives_back_what_was_kept():
    grid = Grid(5, 7)
    x = torch.randn(2, 35, 8, generator=torch.Generator().manual_seed(0))
    plan = ToMA(inverse="pseudo_inverse").plan(x, grid)
    y = plan.merge(x)
    torch.testing.assert_close(plan.merge(plan.unmerge(y)), y, rtol=1e-3, atol=1e-4)
    transpose = ToMA().plan(x, grid)
    assert (transpose.merge(transpose.unmerge(y)) - y).abs().max() > 0.01


def test_near_temperature_zero_every_token_joins_one():
    x = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))
    plan = ToMA(temperature=1e-4).plan(x, Grid(8, 8))
    assert torch.allclose(plan.log_sizes.exp(), plan.log_sizes.exp().round(), atol=1e-3)
    kept = plan.unmerge(plan.merge(x))[0, plan.kept[0][plan.log_sizes[0].exp().round() == 1]]
    alone = x[0, plan.kept[0][plan.log_sizes[0].exp().round() == 1]]
    torch.testing.assert_close(kept, alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9, 2), (16, 16), (3, 3)])
@pytest.mark.parametrize("window", [(2, 2), (4, 4), (3, 5)])
def test_windows_keep_an_even_share_and_the_bound_holds(size, window):
    windows = Windows(Grid(*size), *(min(w, s) for w, s in zip(window, size, strict=True)))
    for budget in range(windows.grid.num_tokens - windows.count + 1):
        quota = kept_by_window(windows, budget, torch.device("cpu"))
        assert int(quota.sum()) == windows.grid.num_tokens - budget
        assert quota.min() >= 1
        assert quota.max() <= most_kept(windows, budget) <= windows.area


def test_low_precision_and_gradients():
    x = torch.randn(1, 15, 8, generator=torch.Generator().manual_seed(0))
    plan = ToMA(window=(2, 2)).plan(x, Grid(3, 5))
    for dtype in (torch.float16, torch.bfloat16):
        back = plan.unmerge(plan.merge(x.to(dtype)))
        assert back.dtype == dtype
        # A share has the precision of the tokens; sums of four such products.
        torch.testing.assert_close(back.float(), plan.unmerge(plan.merge(x)), atol=0.05, rtol=0.05)
    values = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: plan.unmerge(plan.merge(v)), (values,))


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="ratio is the fraction"):
        ToMA(ratio=1.0)
    with pytest.raises(ConfigError, match="window is"):
        ToMA(window=4)
    for temperature in (0, -1, float("inf"), "hot", True):
        with pytest.raises(ConfigError, match="temperature is a number over 0"):
            ToMA(temperature=temperature)
    with pytest.raises(ConfigError, match="transpose, pseudo_inverse; 'solve' was given"):
        ToMA(inverse="solve")
    with pytest.raises(ShapeError, match="needs tokens of shape"):
        ToMA().plan(torch.randn(1, 9, 4), Grid(2, 4))
    with pytest.raises(BudgetError, match="can give up 60 at most"):
        ToMA(ratio=0.96).num_removed(Grid(8, 8))
    with pytest.raises(ConfigError, match="ToMA cannot protect tokens"):
        ToMA().check_protected(torch.zeros(16, dtype=torch.bool), Grid(4, 4))
    plan = ToMA().plan(torch.randn(1, 8, 4), Grid(2, 4))
    with pytest.raises(ShapeError, match=r"merge expects .* 8 tokens"):
        plan.merge(torch.zeros(1, 9, 4))
    with pytest.raises(ShapeError, match=r"unmerge expects .* 4 tokens"):
        plan.unmerge(torch.zeros(1, 9, 4))


def test_it_survives_json():
    config = Config(method=ToMA(ratio=0.3, window=(4, 2), temperature=0.5, inverse="transpose"))
    assert Config.from_dict(config.to_dict()) == config
