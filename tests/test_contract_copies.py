"""Copies of a merging denoiser merge on their own; saved ones are clean."""

import copy
import io
import pickle

import pytest
import tiny
import torch
from diffusers import StableDiffusionImg2ImgPipeline, UNet2DConditionModel

import retom


def torch_save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": torch_save_and_load,
}


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
def test_copy_of_a_unet_has_its_own_handle(make_copy):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    handle = retom.apply(model, ratio=0.3)
    merged = tiny.call(model, arguments)

    twin = make_copy(model)
    twin_handle = retom.handle_of(twin)
    assert twin_handle is not None
    assert twin_handle is not handle
    assert twin_handle.config == handle.config
    assert torch.equal(tiny.call(twin, arguments), merged)

    handle.remove()
    assert twin_handle.applied
    assert torch.equal(tiny.call(model, arguments), unmerged)
    assert torch.equal(tiny.call(twin, arguments), merged)

    twin_handle.remove()
    assert torch.equal(tiny.call(twin, arguments), unmerged)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules())


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
def test_switching_and_changing_a_copy_leaves_the_original(make_copy):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    handle = retom.apply(model)
    merged = tiny.call(model, arguments)
    twin = make_copy(model)

    retom.handle_of(twin).update(ratio=0.25, levels="all")
    assert not torch.equal(tiny.call(twin, arguments), merged)
    retom.handle_of(twin).enabled = False

    assert handle.enabled
    assert handle.config.method.ratio == 0.5
    assert torch.equal(tiny.call(model, arguments), merged)


def test_copy_of_a_pipeline_has_its_own_handle():
    pipe = tiny.sd_pipeline()
    unmerged = tiny.latents(pipe)
    handle = retom.apply(pipe)
    merged = tiny.latents(pipe)

    twin = copy.deepcopy(pipe)
    retom.handle_of(twin).remove()

    assert handle.applied
    assert torch.equal(tiny.latents(twin), unmerged)
    assert torch.equal(tiny.latents(pipe), merged)


def test_two_pipelines_that_share_a_unet_share_one_handle():
    pipe = tiny.sd_pipeline()
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    handle = retom.apply(pipe)
    assert retom.handle_of(other) is handle
    assert retom.handle_of(pipe.unet) is handle
    with pytest.raises(retom.AlreadyAppliedError):
        retom.apply(other)
    retom.handle_of(other).remove()
    assert retom.handle_of(pipe) is None


def test_nothing_enters_the_state_dict():
    model = tiny.sd15_unet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    retom.apply(model, levels="all")
    tiny.call(model, tiny.inputs())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len(list(model.buffers())) == 0


def test_saved_unet_is_clean(tmp_path):
    model = tiny.sd15_unet()
    arguments = tiny.inputs()
    unmerged = tiny.call(model, arguments)
    retom.apply(model)
    tiny.call(model, arguments)

    model.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path).eval()

    assert retom.handle_of(loaded) is None
    assert "retom" not in (tmp_path / "config.json").read_text().lower()
    assert torch.equal(tiny.call(loaded, arguments), unmerged)


def test_saved_pipeline_is_clean(tmp_path):
    pipe = tiny.sd_pipeline()
    unmerged = tiny.latents(pipe)
    retom.apply(pipe)

    pipe.save_pretrained(tmp_path)
    loaded = type(pipe).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)

    assert retom.handle_of(loaded) is None
    assert torch.equal(tiny.latents(loaded), unmerged)
