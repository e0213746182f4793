import importlib.util

import pytest
import torch

from retom.errors import MetricError, MissingExtraError, ShapeError
from retom.metrics import Features, extract, frechet
from retom.metrics.adapters import ModuleExtractor, clip_score, inception_fid, lpips


def pictures(count, seed=0, side=8):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Means(torch.nn.Module):
    """Six numbers a picture: means of the channels in the upper and the lower half."""

    num_features = 6

    def forward(self, x):
        upper, lower = x.split([x.shape[2] // 2, x.shape[2] - x.shape[2] // 2], dim=2)
        return torch.cat([upper.mean(dim=(2, 3)), lower.mean(dim=(2, 3))], dim=1)


def test_a_module_becomes_an_extractor():
    module = torch.nn.Sequential(torch.nn.Dropout(0.5), Means())
    mean, std = (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)
    extractor = ModuleExtractor(module, "means", size=(8, 8), mean=mean, std=std)
    x = pictures(3)
    found = extract(x, extractor)
    assert found.extractor == "means"
    scaled = (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    # the same size: nothing is resized, and nothing is dropped in evaluation
    torch.testing.assert_close(found.values, Means()(scaled))
    flat = extract(torch.full((1, 3, 5, 9), 0.5), extractor)
    torch.testing.assert_close(flat.values[0], torch.tensor([0, 0.25, 0.25, 0, 0.25, 0.25]))


def test_fid_of_torchmetrics_with_another_network_is_our_distance():
    pytest.importorskip("torchmetrics")
    x, y = pictures(40), pictures(40, seed=1) ** 2
    found = inception_fid(x, y, network=Means(), batch_size=16)
    ours = [Features(Means()(each), "means") for each in (x, y)]
    # in float64 theirs, ours on float32 features
    assert found == pytest.approx(frechet(*ours, n=40).value, rel=1e-4)


def test_fid_without_inception_says_what_to_install():
    if importlib.util.find_spec("torch_fidelity"):
        pytest.skip("torch-fidelity is installed, and would download its weights")
    with pytest.raises(MissingExtraError, match=r'pip install "torchmetrics\[image\]"'):
        inception_fid(pictures(2), pictures(2))


def test_lpips_hands_over_batches_from_minus_one_to_one():
    x, y = pictures(5), pictures(5, seed=1)
    sizes = []

    def network(a, b):
        sizes.append(len(a))
        assert a.min() < -0.5
        assert b.max() > 0.5
        return (a - b).square().mean(dim=(1, 2, 3), keepdim=True)

    found = lpips(x, y, network=network, batch_size=2)
    assert sizes == [2, 2, 1]
    # on twice the range: four times the squared error
    torch.testing.assert_close(found, 4 * (x - y).square().mean(dim=(1, 2, 3)))


def test_lpips_without_its_package_says_what_to_install():
    if importlib.util.find_spec("lpips"):
        pytest.skip("lpips is installed, and would download its weights")
    with pytest.raises(MissingExtraError, match=r'LPIPS needs lpips, .* pip install "lpips"'):
        lpips(pictures(1), pictures(1))


def test_lpips_is_of_pairs():
    with pytest.raises(ShapeError, match="are compared at one size"):
        lpips(pictures(2), pictures(3), network=lambda a, _: a)


@pytest.fixture(scope="module")
def clip():
    """A tiny random CLIP, and a processor that does what CLIP's does at the model's own size."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    layer = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**layer, "num_attention_heads": 2, "vocab_size": 40, "eos_token_id": 1}
    vision = {**layer, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)

    def processor(*, text, images, **_):
        ids = torch.tensor([[2 + ord(word[0]) % 30, 3 + len(word) % 30, 1] for word in text])
        pixels = torch.stack([torch.from_numpy(image).movedim(-1, 0) for image in images])
        return {"input_ids": ids, "pixel_values": pixels.float() / 255}

    return transformers.CLIPModel(config), processor


def test_clip_score_is_a_hundred_cosines(clip):
    model, processor = clip
    x = (255 * pictures(5)).round() / 255
    prompts = ["apple", "rocket", "cat", "house", "tree"]
    found = clip_score(x, prompts, model=model, processor=processor, batch_size=2)
    inputs = processor(
        text=prompts, images=[(255 * p).round().byte().movedim(0, -1).numpy() for p in x]
    )
    with torch.no_grad():
        outputs = model(**inputs)
    # image against every text: the matching ones stand on the diagonal, times the learned scale
    cosines = outputs.logits_per_image.diagonal() / model.logit_scale.exp()
    torch.testing.assert_close(found, 100 * cosines.clamp_min(0).detach(), atol=1e-3, rtol=1e-4)


def test_clip_score_wants_a_prompt_a_picture_and_a_processor(clip):
    model, processor = clip
    with pytest.raises(MetricError, match="give processor as well"):
        clip_score(pictures(1), ["a"], model=model)
    for prompts in (["a"], ["a", "b", "c"]):
        with pytest.raises(MetricError, match=rf"{len(prompts)} prompts do not fit"):
            clip_score(pictures(2), prompts, model=model, processor=processor)
