import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retom.errors import MetricError
from retom.metrics import Estimate, mean_estimate
from retom.metrics.estimate import percentiles, resampled_counts


def test_mean_of_many_has_the_interval_of_the_normal_law():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    found = mean_estimate(values, "x", resamples=4000)
    half = 1.96 * values.std(correction=0).item() / 20
    mean = values.mean().item()
    assert found.value == pytest.approx(mean, abs=1e-7)
    # 4000 resamples put a percentile within about 0.002 of where it belongs
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=0.01)
    assert found.n == 400
    assert found.reference_n is None


def test_of_equal_values_is_a_point():
    found = mean_estimate(torch.full((5,), 3.0), "x")
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)


def test_is_the_same_twice_and_another_with_another_seed():
    values = torch.rand(30, generator=torch.Generator().manual_seed(1))
    assert mean_estimate(values, "x") == mean_estimate(values, "x")
    assert mean_estimate(values, "x") != mean_estimate(values, "x", seed=1)


@given(n=st.integers(1, 20), resamples=st.integers(2, 30), seed=st.integers(0, 99))
def test_counts_are_n_draws_of_n(n, resamples, seed):
    counts = resampled_counts(n, resamples, seed=seed)
    assert counts.shape == (resamples, n)
    assert torch.equal(counts, counts.round())
    assert (counts >= 0).all()
    assert (counts.sum(dim=1) == n).all()


def test_counts_have_mean_one_and_the_variance_of_the_binomial():
    counts = resampled_counts(10, 20_000, seed=0)
    # standard errors are 0.007 and 0.01
    assert counts.mean(dim=0).tolist() == pytest.approx([1.0] * 10, abs=0.03)
    assert counts.var(dim=0).tolist() == pytest.approx([0.9] * 10, abs=0.05)


def test_percentiles_leave_two_and_a_half_per_cent_on_each_side():
    assert percentiles(torch.arange(1001.0)) == pytest.approx((25, 975))


def test_it_reads_as_a_line():
    found = Estimate("KID (none)", 0.00123456, 0.001, 0.0015, 512, 2000)
    assert str(found) == "KID (none): 0.001235 [0.001, 0.0015], n = 512 against 2000"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([1.0]), r"at least 2 numbers; x has shape \(1,\)"),
        (torch.zeros(3, 2), r"x has shape \(3, 2\)"),
        (torch.tensor([1.0, math.inf, 2.0]), "not finite for 1 of 3 pictures"),
    ],
)
def test_what_has_no_mean_is_refused(values, message):
    with pytest.raises(MetricError, match=message):
        mean_estimate(values, "x")


def test_one_resample_is_no_interval():
    with pytest.raises(MetricError, match="at least 2 resamples; 1 was given"):
        mean_estimate(torch.zeros(3), "x", resamples=1)
