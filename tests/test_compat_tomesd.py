"""tomesd's interface: the same arguments, what they become, and a warning of what changes."""

import inspect

import pytest
import tiny
import tomesd as installed
import torch

import retom
from retom import ConfigError
from retom.compat import tomesd


def test_the_arguments_are_those_of_tomesd():
    def arguments(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert arguments(tomesd.apply_patch) == arguments(installed.apply_patch)
    assert arguments(tomesd.remove_patch) == arguments(installed.remove_patch)


def test_it_merges_and_is_removed():
    model, arguments = tiny.sd15_unet(), tiny.inputs()
    plain = tiny.call(model, arguments)
    with pytest.warns(UserWarning, match="differ from those of tomesd.*use_rand has no effect"):
        assert tomesd.apply_patch(model) is model
    with tiny.tokens_seen(model) as seen:
        merged = tiny.call(model, arguments)
    assert {counts[0] for counts in seen.values()} >= {128}
    assert not torch.equal(merged, plain)
    assert tomesd.remove_patch(model) is model
    assert torch.equal(tiny.call(model, arguments), plain)
    tomesd.remove_patch(model)


def test_arguments_become_options():
    model = tiny.sd15_unet()
    with pytest.warns(UserWarning, match="differ") as caught:
        tomesd.apply_patch(
            model, 0.25, max_downsample=8, sx=3, sy=4, use_rand=False, merge_mlp=True
        )
    assert "use_rand" not in str(caught[0].message)
    config = retom.handle_of(model).config
    assert (config.method.ratio, config.method.window, config.scope) == (
        0.25,
        (4, 3),
        "attention+mlp",
    )
    assert config.levels == retom.handle_of(model)._layout.levels
    with pytest.warns(UserWarning, match="differ"):
        tomesd.apply_patch(model, ratio=0.5, max_downsample=2)  # patches anew
    assert retom.handle_of(model).config.levels == (0, 1)


def test_a_model_on_which_tomesd_merges_nothing_merges_and_says_so():
    model = tiny.sdxl_unet()
    with pytest.warns(UserWarning, match="tomesd would merge nothing; the largest grid"):
        tomesd.apply_patch(model)
    assert retom.handle_of(model).config.levels == (0,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_downsample": 3}, "1, 2, 4 or 8; 3 was given"),
        ({"merge_attn": False}, "merge_attn=True"),
        ({"merge_crossattn": True}, "never for text attention"),
        ({"ratio": 0.8}, "sx=2 and sy=2 can give up 0.75 of the tokens, and ratio 0.8"),
        ({"ratio": 1.0}, "less than 1"),
        ({"sx": 0}, "window"),
    ],
)
def test_what_is_not_done_here_is_refused(options, words):
    model = tiny.sd15_unet()
    with pytest.raises(ConfigError, match=words):
        tomesd.apply_patch(model, **options)
    assert retom.handle_of(model) is None
