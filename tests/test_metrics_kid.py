import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retom.errors import MetricError
from retom.metrics import Features, kid, kid_difference


def features(n, d=6, *, seed=0, shift=0.0):
    values = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift
    return Features(values, "numbers")


def slow_kid(x, y):
    """The U-statistic as a loop over pairs."""
    d = len(x[0])

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / d + 1) ** 3

    def within(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(k(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


def test_by_hand():
    # d = 1: k(0, 0) = 1, k(1, 1) = 8, k(0, 1) = 1, so 1 + 8 - 2
    zeros = Features(torch.zeros(8, 1), "numbers")
    ones = Features(torch.ones(9, 1), "numbers")
    found = kid(zeros, ones)
    assert (found.value, found.low, found.high) == (7.0, 7.0, 7.0)
    assert (found.n, found.reference_n) == (8, 9)
    assert found.metric == "KID (numbers)"


@settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 14), m=st.integers(8, 14), d=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_agrees_with_a_loop_over_pairs(n, m, d, seed):
    x, y = features(n, d, seed=seed), features(m, d, seed=seed + 1, shift=0.3)
    expected = slow_kid(x.values.double().tolist(), y.values.double().tolist())
    assert kid(x, y, resamples=2).value == pytest.approx(expected, rel=1e-9, abs=1e-12)


# torchmetrics warns that it keeps all features
@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_agrees_with_torchmetrics():
    module = pytest.importorskip("torchmetrics.image.kid")

    class Identity(torch.nn.Module):
        num_features = 6

        def forward(self, x):
            return x

    x, y = features(40), features(40, seed=1, shift=0.2)
    metric = module.KernelInceptionDistance(
        feature=Identity(), subsets=1, subset_size=40, degree=3, gamma=None, coef=1.0
    )
    metric.update(y.values.double(), real=True)
    metric.update(x.values.double(), real=False)
    # one subset of everything is the U-statistic itself, in another order
    assert kid(x, y).value == pytest.approx(metric.compute()[0].item(), rel=1e-6)


def test_has_mean_zero_for_equal_distributions():
    found = [
        kid(features(30, seed=2 * i), features(30, seed=2 * i + 1), resamples=2).value
        for i in range(400)
    ]
    values = torch.tensor(found)
    standard_error = values.std().item() / 20
    # A biased estimator, with k(x, x) in it, would be off by mean k(x, x) / 30 = 0.9.
    assert abs(values.mean().item()) < 4 * standard_error
    assert standard_error < 0.02


def test_interval_covers_the_expected_value():
    # 100 sets: 95 % ± 2.2 % standard error; below 88 the interval is wrong
    found = [
        kid(features(40, seed=2 * i), features(40, seed=2 * i + 1, shift=0.5), resamples=200)
        for i in range(100)
    ]
    expected = sum(each.value for each in found) / 100
    assert sum(each.low <= expected <= each.high for each in found) >= 88
    spread = torch.tensor([each.value for each in found]).std().item()
    half = sum(each.high - each.low for each in found) / 200
    assert half == pytest.approx(1.96 * spread, rel=0.3)


def test_difference_is_the_difference_with_a_narrower_interval():
    x, y = features(60), features(50, seed=1, shift=0.2)
    noise = torch.randn(60, 6, generator=torch.Generator().manual_seed(5))
    z = Features(x.values + 0.1 * noise, "numbers")
    found = kid_difference(z, x, y)
    far, near = kid(z, y), kid(x, y)
    assert found.value == pytest.approx(far.value - near.value, rel=1e-9)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.5 * (near.high - near.low)


def test_difference_of_a_set_from_itself_is_zero():
    x, y = features(20), features(20, seed=1)
    found = kid_difference(x, x, y)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_is_symmetric_and_the_same_twice():
    x, y = features(20), features(25, seed=1, shift=1.0)
    assert kid(x, y).value == pytest.approx(kid(y, x).value, rel=1e-12)
    assert kid(x, y) == kid(x, y)
    assert kid(x, y).low != kid(x, y, seed=9).low


def test_order_of_pictures_does_not_matter():
    x, y = features(20), features(25, seed=1)
    mixed = Features(x.values.flip(0), "numbers")
    assert kid(mixed, y).value == pytest.approx(kid(x, y).value, rel=1e-9)


def test_too_few_others_and_unpaired_are_refused():
    x, y = features(20), features(7)
    with pytest.raises(MetricError, match="at least 8 in each; reference has 7"):
        kid(x, y)
    with pytest.raises(MetricError, match="features has 7"):
        kid(y, x)
    with pytest.raises(MetricError, match=r"numbers \(6 numbers\) and else \(6 numbers\)"):
        kid(x, Features(x.values, "else"))
    with pytest.raises(MetricError, match="as many of each; 20 and 21 were given"):
        kid_difference(x, features(21), x)
