"""FID with its interval: the distance of all pictures, whatever their numbers."""

import importlib.util

import pytest
import torch

from retom.errors import MetricError, MissingExtraError
from retom.metrics import Features, fid, fid_difference, frechet, frechet_difference
from retom.metrics.adapters import InceptionFeatures


def features(n, d=6, *, seed=0, shift=0.0, name="drawn"):
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(n, d, generator=generator) + shift, name)


def test_of_as_many_pictures_it_is_the_frechet_distance():
    x, z, y = features(40), features(40, seed=2), features(40, seed=1, shift=0.5)
    found, other = fid(x, y, resamples=20), frechet(x, y, n=40, resamples=20)
    assert (found.value, found.low, found.high) == (other.value, other.low, other.high)
    found = fid_difference(x, z, y, resamples=20)
    other = frechet_difference(x, z, y, n=40, resamples=20)
    assert (found.value, found.low, found.high) == (other.value, other.low, other.high)


@pytest.mark.parametrize(("n", "m"), [(40, 90), (90, 40), (5, 4)])
def test_it_takes_all_pictures_also_fewer_than_features(n, m):
    metrics = pytest.importorskip("torchmetrics.image.fid")
    x, y = features(n), features(m, seed=1, shift=0.5)

    class Given(torch.nn.Module):
        """Hands features on, so that torchmetrics computes its FID of them."""

        num_features = 6

        def forward(self, rows):
            return rows.flatten(1)

    theirs = metrics.FrechetInceptionDistance(feature=Given(), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(x.values.double().reshape(n, 1, 1, 6), real=False)
    theirs.update(y.values.double().reshape(m, 1, 1, 6), real=True)
    found = fid(x, y, resamples=20)
    assert found.value == pytest.approx(float(theirs.compute()), rel=1e-5, abs=1e-5)
    assert (found.n, found.reference_n) == (n, m)
    assert found.low < found.value < found.high


def test_a_difference_is_one_and_narrower_than_its_parts():
    x = features(60)
    z = Features(x.values + 0.1 * features(60, seed=3).values, "drawn")
    y = features(80, seed=1, shift=0.5)
    found = fid_difference(z, x, y)
    parts = [fid(each, y) for each in (z, x)]
    assert found.value == pytest.approx(parts[0].value - parts[1].value)
    assert found.high - found.low < min(part.high - part.low for part in parts) / 2


@pytest.mark.parametrize(("n", "m"), [(40, 400), (400, 40)])  # either set may be what varies
def test_the_interval_has_the_spread_of_the_estimate(n, m):
    values = [
        fid(features(n, seed=10 + i), features(m, seed=500 + i, shift=0.5), resamples=2).value
        for i in range(80)
    ]
    spread = torch.tensor(values).std().item()
    found = fid(features(n), features(m, seed=1, shift=0.5), resamples=200)
    assert 2.8 < (found.high - found.low) / spread < 5.5  # 3.9 standard deviations


def test_one_picture_other_extractors_and_unpaired_sets_are_refused():
    with pytest.raises(MetricError, match="at least 2 pictures in each set; one has 1"):
        fid(features(1), features(4))
    with pytest.raises(MetricError, match="extractor"):
        fid(features(4), features(4, name="another"))
    with pytest.raises(MetricError, match="as many of each; 4 and 5"):
        fid_difference(features(4), features(5), features(6))


def test_inception_gets_eight_bits():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, pictures):
            seen.append(pictures)
            return pictures.float().mean(dim=(2, 3))

    extractor = InceptionFeatures(Network(), "means")
    pictures = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4) / 255
    assert extractor.name == "means"
    torch.testing.assert_close(extractor(pictures), (255 * pictures).mean(dim=(2, 3)))
    assert seen[0].dtype == torch.uint8
    assert torch.equal(seen[0].flatten(), torch.arange(96).byte())


def test_inception_without_its_package_says_what_to_install():
    if importlib.util.find_spec("torch_fidelity"):
        pytest.skip("torch-fidelity is installed, and would download its weights")
    with pytest.raises(MissingExtraError, match=r'pip install "torchmetrics\[image\]"'):
        InceptionFeatures()
