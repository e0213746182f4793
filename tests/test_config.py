"""Configurations: checked when made, never changed, the same after a trip through JSON."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retom import Config, ConfigError, ReToM
from retom.methods import METHODS, RandomRepresentative

configs = st.builds(
    Config,
    method=st.builds(
        ReToM,
        ratio=st.floats(0, 1, exclude_max=True),
        window=st.tuples(st.integers(1, 8), st.integers(1, 8)),
        allocation=st.sampled_from(["similarity", "coherence", "uniform"]),
        reach=st.integers(0, 3),
        merge=st.sampled_from(["mean", "representative", "norm_mean"]),
    ),
    levels=st.one_of(st.just("all"), st.lists(st.integers(0, 4), min_size=1).map(tuple)),
    noise=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: tuple(sorted(ends))),
)


@given(configs)
@settings(deadline=None)
def test_json_round_trip(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_survives_a_file(method, tmp_path):
    has_windows = any(field.name == "window" for field in dataclasses.fields(method))
    options = {"window": (4, 2)} if has_windows else {"ratio": 0.3}
    config = Config(method=method(**options), levels=(0, 1))
    config.save(tmp_path / "retom.json")
    assert Config.load(tmp_path / "retom.json") == config


def test_options_go_to_the_method_or_the_configuration():
    config = Config().with_options(ratio=0.3, window=[4, 4], levels="all")
    assert config == Config(method=ReToM(ratio=0.3, window=(4, 4)), levels="all")


@pytest.mark.parametrize("method", METHODS.values())
def test_no_option_of_a_method_is_called_as_one_of_the_configuration(method):
    """Options are told apart by their names alone, in ``retom.apply`` and on the command line."""
    own = {field.name for field in dataclasses.fields(Config)}
    assert own.isdisjoint(field.name for field in dataclasses.fields(method))


def test_options_apply_to_a_method_given_with_them():
    config = Config().with_options(method=RandomRepresentative(seed=3), ratio=0.25)
    assert config.method == RandomRepresentative(seed=3, ratio=0.25)


def test_levels_are_a_sorted_set():
    assert Config(levels=(2, 0, 2)).levels == (0, 2)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().levels = "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "levels is .* was given"),
        ({"levels": 0}, "whole numbers of at least 0, largest grid first; 0 was given"),
        ({"levels": (0, -1)}, "at least 0"),
        ({"levels": "top"}, "'top' was given"),
        ({"noise": (0.5, 0.2)}, "low <= high <= 1, where 1 is pure noise"),
        ({"noise": 0.2}, "noise is .low, high."),
        ({"noise": (0, 1.1)}, r"\(0, 1.1\) was given"),
        ({"scope": "mlp"}, "scope is one of auto, attention, .*, kv; 'mlp' was given"),
        ({"method": "retom"}, r"such as retom.ReToM\(ratio=0.5\); 'retom' was given"),
        ({"method": ReToM}, "method is an object"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(**options)


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError,
        match=r"Unknown option rate\. ReToM takes allocation, alternate, kv_lean, merge, ratio, "
        "reach, rematch, unmerge, window; the configuration takes levels, method, noise, refresh, "
        "rules, scope, score, share, size_",
    ):
        Config().with_options(rate=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a retom configuration"),
        ("[]", "holds list, not a retom configuration"),
        ('{"ratio": 0.5}', '"format": 1'),
        ('{"format": 2}', "another version of retom"),
        ('{"format": 1, "method": "retom"}', "an object with a name and options"),
        (
            '{"format": 1, "method": {"name": "best"}}',
            "Unknown method 'best'; the methods are retom",
        ),
        ('{"format": 1, "method": {"ratios": 1}}', "Unknown option ratios"),
        ('{"format": 1, "method": {"ratio": 2}}', "less than 1; 2 was given"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, message, tmp_path):
    path = tmp_path / "retom.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Config.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        Config.load(tmp_path / "nowhere.json")


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.c\.json cannot be written: No such file"):
        Config().save(tmp_path / "missing" / "c.json")


@pytest.mark.parametrize("data", [None, "x", 3, [1]])
def test_what_is_no_mapping_is_refused(data):
    with pytest.raises(ConfigError, match="from_dict takes what to_dict gives"):
        Config.from_dict(data)


def test_a_name_that_is_no_text_is_unknown():
    with pytest.raises(ConfigError, match="Unknown option 1;"):
        Config.from_dict({1: 2, "format": 1})
