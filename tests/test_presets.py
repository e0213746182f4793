"""Presets: configurations with a name, in one table."""

import argparse
import dataclasses
import json

import pytest
import tiny
import torch

import retom
from retom import Config, ConfigError, ReToM
from retom.cli.merging import add_merging, config_of
from retom.presets import NOT_VALIDATED, PRESETS

NAMES = ["quality", "balanced", "fast", "paper"]


def test_the_names_are_those_of_the_documents():
    assert list(PRESETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_survives_json_and_says_what_it_is(name):
    config = Config.preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert NOT_VALIDATED in str(PRESETS[name])
    assert PRESETS[name].measured


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(16, 16), (17, 13)], ids=str)
def test_every_preset_draws(name, size):
    model = tiny.sd15_unet()
    unmerged = tiny.call(model, tiny.inputs(size=size))
    handle = retom.apply(model, preset=name)
    assert handle.config == Config.preset(name).with_options(scope="attention")
    assert not torch.equal(tiny.call(model, tiny.inputs(size=size)), unmerged)


def test_balanced_is_the_defaults_with_the_last_steps_whole_and_the_others_differ():
    assert Config.preset("balanced") == Config(noise=(0.2, 1.0))
    assert len({Config.preset(name) for name in NAMES}) == 4
    ratios = [Config.preset(name).method.ratio for name in ("quality", "balanced", "fast")]
    assert ratios == sorted(ratios)


def test_paper_is_the_form_that_the_paper_states():
    """Adjusted windows, the representative itself, similarity at chosen timesteps and reuse."""
    config = Config.preset("paper")
    assert config.method.merge == "representative"
    assert config.method.allocation == "multiscale"
    assert config.method.reach == 0
    assert config.refresh == (0.5,)
    assert config.scope == "attention"


def test_options_go_on_top_of_a_preset():
    with retom.applied(tiny.sd15_unet(), preset="paper", ratio=0.3, scope="kv") as handle:
        expected = ReToM(
            ratio=0.3,
            window=(2, 2),
            allocation="multiscale",
            reach=0,
            merge="representative",
            kv_lean=0,
            unmerge="copy",
        )
        others = {"refresh": (0.5,), "share": "level", "size_weighted": False}
        assert handle.config == Config(method=expected, scope="kv", **others)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    message = "preset is one of quality, balanced, fast, paper; 'best' was given"
    with pytest.raises(ConfigError, match=message):
        Config.preset("best")
    with pytest.raises(ConfigError, match=message):
        retom.apply(tiny.sd15_unet(), preset="best")


def test_a_preset_and_a_configuration_are_refused():
    with pytest.raises(ConfigError, match="config and preset='fast' were both given"):
        retom.apply(tiny.sd15_unet(), Config(), preset="fast")


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_merging(parser.add_argument_group())
    return config_of(parser.parse_args(arguments))


def test_the_command_takes_a_preset_and_options_on_top():
    assert parse("--preset", "paper") == Config.preset("paper")
    assert parse("--preset", "fast") == Config(method=ReToM(ratio=0.7), noise=(0.2, 1.0))
    fast = Config(method=ReToM(ratio=0.6), noise=(0.2, 1.0))
    assert parse("--preset", "fast", "--ratio", "0.6") == fast
    assert parse("--preset", "fast", "--noise", "0,1") == Config(method=ReToM(ratio=0.7))
    paper = Config.preset("paper").with_options(ratio=0.6)
    assert parse("--preset", "paper", "--ratio", "0.6") == paper
    assert paper.method.window == (2, 2)
    kept = parse("--preset", "quality", "--method", "window_corner").method
    assert (kept.name, kept.ratio) == ("window_corner", 0.3)


def test_every_option_can_be_given_on_the_command_line():
    options = {
        "--reach": "2", "--unmerge": "similarity", "--score": "block", "--share": "level",
        "--allocation": "uniform", "--kv-lean": "0", "--window": "2x4", "--merge": "norm_mean",
        "--ratio": "0.3", "--scope": "block", "--levels": "0,1", "--refresh": "2",
        "--noise": "0.2,1", "--skip": "unprofitable",
    }  # fmt: skip
    switches = ["--rematch", "--alternate", "--no-size-weighted"]
    given = parse(*(word for pair in options.items() for word in pair), *switches)
    plain = Config()
    for settings, default in ((given, plain), (given.method, plain.method)):
        for option in dataclasses.fields(default):
            if option.name not in {"method", "rules", "block"}:
                changed = getattr(settings, option.name) != getattr(default, option.name)
                assert changed, option.name


def test_a_method_where_a_configuration_goes_is_refused():
    with pytest.raises(ConfigError, match=r"a ReToM was given.*method=retom\.ReToM"):
        retom.apply(tiny.unet(), retom.ReToM(ratio=0.3))
