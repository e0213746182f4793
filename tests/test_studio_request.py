"""What visitors ask for: read with every value checked, or refused with a sentence."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import sd_pipeline, sdxl_pipeline

import retom
from retom.drawing.loading import as_model
from retom.errors import ConfigError
from retom.methods import METHODS
from retom.presets import PRESETS
from retom.studio import Limits
from retom.studio.form import WINDOWS, filled
from retom.studio.form import given as shown
from retom.studio.request import NAMES, Request, read_request

LIMITS = Limits(side=128, steps=10, prompt=40, queue=2)


@pytest.fixture(scope="module")
def models():
    return {"one": as_model(sd_pipeline()), "two": as_model(sdxl_pipeline())}


def read(models, **values):
    return read_request({"prompt": "red", **values}, models, LIMITS)


def test_what_is_missing_is_the_models_own(models):
    request = read(models)
    assert request.model == "one"
    assert (request.settings.height, request.settings.width) == (128, 128)
    assert request.settings.steps == 10
    assert request.settings.guidance == models["one"].guidance
    assert request.config == retom.Config.preset("balanced")


def test_methods_are_compared_over_the_same_steps(models):
    assert read(models, method="tome").config.noise == (0.2, 1.0)
    assert read(models, method="tome", preset="paper").config.noise == (0.0, 1.0)
    assert read(models, whole_below=0.45).config.noise == (0.45, 1.0)
    assert read(models, whole_below=0).config == retom.Config()
    with pytest.raises(ConfigError, match="whole_below is a number from 0 to 1; 2 was given"):
        read(models, whole_below=2)


def test_values_read_are_values_that_read_the_same(models):
    request = read(models, model="two", method="tome", ratio=0.3, window="2x4", seed=7.0, steps=3)
    again = read_request(dict(request.values), models, LIMITS)
    assert again == request
    assert request.config.method == retom.methods.ToMe(ratio=0.3, window=(2, 4))


def test_windows_that_follow_the_ratio_can_be_asked_for(models):
    request = read(models, preset="paper", ratio=0.7, window="auto")
    assert request.config == retom.Config.preset("paper").with_options(ratio=0.7, window="auto")
    assert request.values["window"] == "auto"
    assert read_request(dict(request.values), models, LIMITS) == request
    assert read(models).values["window"] == "auto"  # as by default
    assert read(models, method="tome", window="auto").config.method == retom.methods.ToMe()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_whole_configuration(models, preset):
    assert read(models, preset=preset).config == retom.Config.preset(preset)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_asked_for(models, method):
    values = {"prompt": "red", "method": method, "ratio": 0.5, "window": "2x2"}
    assert read_request(shown(values), models, LIMITS).config.method.name == method


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": "  "}, "The prompt is empty; write what to draw."),
        ({"prompt": "x" * 41}, "The prompt has 41 characters; at most 40 are taken here."),
        ({"prompt": 3}, "The prompt is text; 3 was given."),
        ({"prompt": "\ud800"}, "characters that are not text"),
        ({"negative_prompt": ["x"]}, "The negative prompt is text"),
        ({"model": "../../secret"}, "model is one of one, two; '../../secret' was given."),
        ({"model": "owner/name"}, "model is one of one, two"),
        ({"seed": -1}, "seed is a whole number from 0 to 9007199254740991 here; -1 was given."),
        ({"seed": 10**400}, "'a larger number' was given"),
        ({"model": [10**5000]}, "'a value too large to repeat' was given"),
        ({"guidance": 10**400}, "guidance is a number from 0 to 50; 'a larger number' was given"),
        ({"seed": True}, "seed is a whole number"),
        ({"steps": 11}, "steps is a whole number from 1 to 10 here; 11 was given."),
        ({"steps": 2.5}, "2.5 was given"),
        ({"height": 136}, "height is a whole number from 1 to 128 here; 136 was given."),
        ({"width": 100}, "is a multiple of 8 px and at least 16 with this model; 100 was given"),
        ({"guidance": math.nan}, "guidance is a number from 0 to 50; nan was given."),
        ({"guidance": "4"}, "guidance is a number"),
        ({"ratio": 1.0}, "at least 0 and less than 1"),
        ({"ratio": -0.1}, "ratio is a number from 0 to 1; -0.1 was given."),
        ({"window": "2"}, "window is height x width in tokens, each from 1 to 16"),
        ({"window": "0x2"}, "window is height x width"),
        ({"window": [2, 999]}, "each from 1 to 16"),
        ({"scope": "everything"}, "scope is one of auto, attention"),
        ({"method": "tomesd"}, "method is one of retom"),
        ({"preset": {"a": 1}}, "preset is one of quality"),
        ({"method": "todo", "ratio": 0.5}, "The method todo takes no ratio; leave it out."),
        ({"folder": "x"}, "Unknown option folder; a request takes model, prompt"),
    ],
)
def test_refusals_say_what_is_allowed(models, values, words):
    with pytest.raises(ConfigError) as caught:
        read(models, **values)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("values", [None, 3, "red", ["red"]])
def test_a_request_is_an_object(models, values):
    with pytest.raises(ConfigError, match="A request is an object with a prompt"):
        read_request(values, models, LIMITS)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
plausible = {
    "model": st.sampled_from(["one", "two"]),
    "prompt": st.text(max_size=45),
    "negative_prompt": st.text(max_size=45),
    "seed": st.integers(-1, 2**54),
    "steps": st.integers(0, 11),
    "guidance": st.floats(-1, 60),
    "height": st.sampled_from([8, 16, 64, 128, 130]),
    "width": st.sampled_from([8, 16, 64, 128, 130]),
    "preset": st.sampled_from(list(PRESETS)),
    "method": st.sampled_from(list(METHODS)),
    "ratio": st.floats(-0.1, 1.1),
    "window": st.sampled_from([*WINDOWS, "0x1", "x", "2x2x2", "²x2"]),
    "scope": st.sampled_from(retom.config.SCOPES),
    "whole_below": st.floats(0, 1),
}
assert set(plausible) == set(NAMES)


@settings(max_examples=100, deadline=None)
@given(
    anything
    | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, anything))
    | st.fixed_dictionaries({}, optional=plausible)
)
def test_anything_is_a_request_or_a_sentence(models, values):
    answer = request_or_sentence(values, models)
    if isinstance(answer, Request):
        assert request_or_sentence(shown(answer.values), models) == answer
    else:
        assert 10 < len(answer) < 1000


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, anything)))
def test_a_kept_run_fills_the_form_or_gives_a_sentence(models, values):
    """What a browser kept of a run may have been altered there, any of its values."""
    answer = request_or_sentence(shown(values), models)
    if isinstance(answer, Request):
        assert len(filled(answer)) == len(NAMES)


def request_or_sentence(values, models, limits=LIMITS):
    try:
        return read_request(values, models, limits)
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("name", ["side", "steps", "prompt", "queue"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_limits_are_whole_numbers(name, value):
    with pytest.raises(ConfigError, match=f"The limit of {name} is a whole number"):
        Limits(**{name: value})
