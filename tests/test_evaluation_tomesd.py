"""The package tomesd as a contender: seeded, removable, and its own max_downsample."""

import pytest
import torch

pytest.importorskip("tomesd")
pytest.importorskip("diffusers")

import tiny

from retom.errors import ConfigError
from retom.evaluation.specs import expand
from retom.evaluation.tokens import tokens_in_layers
from retom.evaluation.tomesd import Tomesd


def called(unet, given):
    with torch.no_grad():
        return unet(given["sample"], given["timestep"], given["encoder_hidden_states"])[0]


def test_merging_leaves_no_trace():
    unet, given = tiny.sd15_unet(), tiny.inputs()
    before = called(unet, given)
    classes = [type(module) for module in unet.modules()]
    remove = Tomesd().apply(unet)
    merged = called(unet, given)
    remove()
    assert not torch.equal(merged, before)
    assert torch.equal(called(unet, given), before)
    assert [type(module) for module in unet.modules()] == classes
    assert not any(hasattr(module, "_tome_info") for module in unet.modules())


def test_it_draws_the_same_every_time_it_is_applied():
    unet, given, outputs = tiny.sd15_unet(), tiny.inputs(), []
    for noise in range(2):
        torch.manual_seed(noise)
        remove = Tomesd(seed=3).apply(unet)
        outputs.append(called(unet, given))
        remove()
    assert torch.equal(*outputs)


def test_its_own_max_downsample_reaches_where_it_says():
    unet, given = tiny.sd15_unet(), tiny.inputs()
    counts = {}
    for reach in (None, 1, 2):
        merging = Tomesd(max_downsample=reach)
        remove = merging.apply(unet)
        counts[reach] = tokens_in_layers(unet, lambda: called(unet, given))
        remove()
    assert counts[1] == counts[None]  # level 0 of SD 1.5 is the latent's own size
    assert counts[2] != counts[1]


def test_options_as_words():
    (found,) = expand("tomesd:use_rand=false,max_downsample=2")
    assert found == Tomesd(use_rand=False, max_downsample=2)
    assert found.method == "tomesd:use_rand=false,max_downsample=2"
    assert found.to_dict()["max_downsample"] == 2
    assert "max_downsample" not in Tomesd().to_dict()  # names of results kept before stay
    for words in ("tomesd:max_downsample=0", "tomesd:max_downsample=x", "tomesd:reach=1"):
        with pytest.raises(ConfigError, match="max_downsample=1, 2, 4 or 8"):
            expand(words)
