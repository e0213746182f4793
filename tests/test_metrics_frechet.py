import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retom.errors import MetricError
from retom.metrics import Features, frechet, frechet_difference, gaussian_frechet


def features(n, d=4, *, seed=0, shift=0.0, scale=1.0):
    values = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Features(scale * values + shift, "numbers")


def covariance(d, seed):
    root = torch.randn(d, d + 2, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.T / d


def slow_frechet(mean, cov, other_mean, other_cov):
    """The formula as it stands, with scipy's square root of a matrix."""
    root = np.real(scipy.linalg.sqrtm(np.asarray(cov) @ np.asarray(other_cov)))
    gap = np.asarray(mean) - np.asarray(other_mean)
    return float(gap @ gap + np.trace(np.asarray(cov) + np.asarray(other_cov) - 2 * root))


def test_of_gaussians_on_a_line():
    # (μ - μ')² + (σ - σ')²
    found = gaussian_frechet(
        torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([4.0]), torch.tensor([[25.0]])
    )
    assert found == pytest.approx(9 + 9, rel=1e-12)


def test_of_gaussians_with_covariances_that_commute():
    # diagonal in one basis: the sum of what every axis gives
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[
        0
    ]
    a, b = torch.tensor([1.0, 4.0, 0.0]).double(), torch.tensor([9.0, 4.0, 1.0]).double()
    mean = torch.zeros(3)
    found = gaussian_frechet(mean, turn * a @ turn.T, mean, turn * b @ turn.T)
    # the root of an eigenvalue that is 1e-16 instead of 0 is 1e-8
    assert found == pytest.approx((1 - 3) ** 2 + 0 + 1, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(d=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_agrees_with_the_square_root_of_scipy(d, seed):
    a, b = covariance(d, seed), covariance(d, seed + 1)
    mean = torch.randn(d, generator=torch.Generator().manual_seed(seed)).double()
    expected = slow_frechet(mean, a, torch.zeros(d), b)
    assert gaussian_frechet(mean, a, torch.zeros(d), b) == pytest.approx(expected, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(d=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_of_samples_is_that_of_their_moments(d, seed):
    x, y = features(30, d, seed=seed), features(30, d, seed=seed + 1, shift=0.5, scale=2)
    moments = [m for f in (x, y) for m in (f.values.double().mean(0), np.cov(f.values.double().T))]
    moments[1], moments[3] = (np.atleast_2d(m) for m in (moments[1], moments[3]))
    found = frechet(x, y, n=30, resamples=2)
    assert found.value == pytest.approx(slow_frechet(*moments), abs=1e-8)


def test_agrees_with_torchmetrics():
    module = pytest.importorskip("torchmetrics.image.fid")

    class Identity(torch.nn.Module):
        num_features = 4

        def forward(self, x):
            return x.reshape(len(x), -1)[:, :4]

    metric = module.FrechetInceptionDistance(
        feature=Identity(), normalize=True, input_img_size=(1, 1, 4)
    )
    metric.set_dtype(torch.float64)
    x, y = features(50), features(50, seed=1, shift=0.3)
    metric.update(y.values.double(), real=True)
    metric.update(x.values.double(), real=False)
    # theirs accumulates sums of squares
    assert frechet(x, y, n=50).value == pytest.approx(metric.compute().item(), rel=1e-5)


def test_of_many_samples_nears_that_of_the_distributions():
    x, y = features(20_000), features(20_000, seed=1, shift=1.0, scale=3.0)
    found = frechet(x, y, n=20_000, resamples=20)
    # four axes of (1)² + (3 - 1)²; the standard error at this n is about 0.15
    assert found.value == pytest.approx(20, abs=0.6)
    assert found.low <= found.value <= found.high
    assert (found.n, found.reference_n) == (20_000, 20_000)
    assert found.metric == "Fréchet distance (numbers)"


def test_of_a_set_to_itself_is_zero():
    x = features(20)
    assert frechet(x, x, n=20).value == pytest.approx(0, abs=1e-10)


def test_is_biased_upwards_at_small_n_as_its_documentation_says():
    near = [frechet(features(n), features(n, seed=1), n=n).value for n in (10, 1000)]
    assert near[0] > 10 * near[1]


def test_uses_the_first_n_of_each():
    x, y = features(40), features(50, seed=1)
    first = Features(x.values[:20], "numbers"), Features(y.values[:20], "numbers")
    assert frechet(x, y, n=20) == frechet(*first, n=20)


def test_principal_axes_of_all_features_change_nothing():
    x, y = features(30), features(30, seed=1, shift=1)
    whole, turned = frechet(x, y, n=30), frechet(x, y, n=30, principal=4)
    assert turned.value == pytest.approx(whole.value, rel=1e-9)
    assert turned.metric == "Fréchet distance (numbers, 4 principal axes of the reference)"


def test_principal_axes_are_the_reference_s_widest():
    # The reference is wide along the first feature only, the pictures differ along the second only.
    wide = torch.tensor([10.0, 1.0])
    y = Features(features(200, 2).values * wide, "numbers")
    x = Features(y.values + torch.tensor([0.0, 5.0]), "numbers")
    assert frechet(x, y, n=200).value == pytest.approx(25, rel=1e-4)
    assert frechet(x, y, n=200, principal=1).value < 0.5


def test_fewer_pictures_than_features_along_principal_axes():
    x, y = features(20, 64), features(20, 64, seed=1)
    assert frechet(x, y, n=20, principal=5).value > 0


def test_interval_has_the_spread_of_the_estimate():
    found = [
        frechet(
            features(60, seed=2 * i), features(60, seed=2 * i + 1, shift=0.5), n=60, resamples=40
        )
        for i in range(40)
    ]
    spread = torch.tensor([each.value for each in found]).std().item()
    half = sum(each.high - each.low for each in found) / 80
    # 40 sets give a deviation to 11 %, and resampling at n = 60 is up to 20 % too wide.
    assert half == pytest.approx(1.96 * spread, rel=0.45)


def test_difference_is_the_difference_with_a_narrower_interval():
    x, y = features(60), features(60, seed=1, shift=0.2)
    z = Features(x.values + 0.1 * features(60, seed=5).values, "numbers")
    found = frechet_difference(z, x, y, n=60)
    far, near = frechet(z, y, n=60), frechet(x, y, n=60)
    assert found.value == pytest.approx(far.value - near.value, rel=1e-9)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.5 * (near.high - near.low)
    same = frechet_difference(x, x, y, n=60)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_is_the_same_twice():
    x, y = features(20), features(20, seed=1)
    assert frechet(x, y, n=20) == frechet(x, y, n=20)


def test_singular_covariances_stay_real():
    x = Features(torch.cat([features(20, 2).values] * 3, dim=1), "numbers")
    y = Features(torch.cat([features(20, 2, seed=1).values] * 3, dim=1), "numbers")
    # every axis three times over
    half = Features(x.values[:, :2], "numbers"), Features(y.values[:, :2], "numbers")
    assert frechet(x, y, n=20).value == pytest.approx(3 * frechet(*half, n=20).value, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 21}, "it is 21, with 20 pictures and 25 reference pictures"),
        ({"n": 1}, "from 2 to the number of pictures"),
        ({"n": 4}, "needs more than 4 pictures in each set; n is 4. Use kid"),
        ({"n": 20, "principal": 5}, "principal must be from 1 to 4"),
        ({"n": 20, "principal": 0}, "principal must be from 1 to 4.*0 was given"),
        ({"n": 3, "principal": 3}, "principal must be from 1 to 2"),
    ],
)
def test_too_few_are_refused(options, message):
    with pytest.raises(MetricError, match=message):
        frechet(features(20), features(25), **options)


def test_features_of_other_extractors_and_unpaired_sets_are_refused():
    x = features(20)
    with pytest.raises(MetricError, match="Features of one extractor"):
        frechet(x, Features(x.values, "else"), n=20)
    with pytest.raises(MetricError, match="as many of each; 20 and 21 were given"):
        frechet_difference(x, features(21), x, n=20)


@pytest.mark.parametrize(
    ("mean", "cov", "message"),
    [
        (torch.zeros(2), torch.eye(3), r"\(2,\) and \(3, 3\) were given"),
        (torch.zeros(2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "is symmetric"),
        (torch.zeros(2), torch.diag(torch.tensor([1.0, -0.5])), "the given one has -0.5"),
        (torch.zeros(3), torch.eye(3), "of one dimension are compared; 3 and 2"),
    ],
)
def test_what_is_no_normal_distribution_is_refused(mean, cov, message):
    with pytest.raises(MetricError, match=message):
        gaussian_frechet(mean, cov, torch.zeros(2), torch.eye(2))
