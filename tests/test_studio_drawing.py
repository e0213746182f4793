"""The studio without its page: one picture at a time, nobody's settings in another's model."""

import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_studio_request import plausible
from tiny import latents, sd_pipeline

import retom
from retom import viz
from retom.drawing.loading import as_model
from retom.errors import ConfigError
from retom.studio import Limits, overlay
from retom.studio.job import Failed, Finished, Stopped, Waiting, Working
from retom.studio.studio import Studio

SMALL = {"height": 64, "width": 64, "steps": 2}


@pytest.fixture(scope="module")
def model():
    return as_model(sd_pipeline())


@pytest.fixture
def studio(model):
    studio = Studio({"one": model, "two": as_model(sd_pipeline())}, Limits(side=128, queue=3))
    yield studio
    studio.close()


def finished(job):
    event = job.result()
    assert isinstance(event, Finished), event
    return event.value


def pixels(drawn):
    both = drawn.result.comparison.unmerged.image, drawn.result.merged.image
    return [np.asarray(image) for image in both]


def is_clean(model):
    unet = model.pipe.unet
    hooks = [m for m in unet.modules() if m._forward_hooks or m._forward_pre_hooks]
    return retom.handle_of(unet) is None and hooks == []


def test_both_pictures_are_those_of_the_library(studio, model):
    drawn = finished(studio.draw("a", {**SMALL, "prompt": "red", "seed": 5}))
    arguments = {"height": 64, "width": 64, "num_inference_steps": 2}
    plain = model.pipe("red", generator=torch.Generator().manual_seed(5), **arguments).images[0]
    with retom.applied(model.pipe, preset="balanced"):
        generator = torch.Generator().manual_seed(5)
        merged = model.pipe("red", generator=generator, **arguments).images[0]
    for ours, theirs in zip(pixels(drawn), (plain, merged), strict=True):
        assert np.array_equal(ours, np.asarray(theirs))
    assert not np.array_equal(*pixels(drawn))
    assert is_clean(model)


def test_two_at_once_get_what_they_get_alone(studio, model):
    asked = [
        {**SMALL, "prompt": "red", "seed": 1, "ratio": 0.3},
        {**SMALL, "prompt": "blue", "seed": 2, "method": "tome", "ratio": 0.7, "scope": "block"},
    ]
    alone = [pixels(finished(studio.draw("a", values))) for values in asked]
    together = [None, None]

    def visit(place):
        together[place] = pixels(finished(studio.draw(f"visitor {place}", asked[place])))

    threads = [threading.Thread(target=visit, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for before, after in zip(alone, together, strict=True):
        assert all(map(np.array_equal, before, after))
    assert is_clean(model)


def test_stopping_in_the_middle_leaves_the_model_as_it_was(studio, model):
    before = latents(model.pipe)
    job = studio.draw("a", {**SMALL, "prompt": "red", "steps": 4})
    for event in job.events():
        if isinstance(event, Working) and event.label == "merged" and event.done == 1:
            assert studio.stop("a") == 1
        last = event
    assert isinstance(last, Stopped)
    assert is_clean(model)
    assert torch.equal(latents(model.pipe), before)
    finished(studio.draw("a", {**SMALL, "prompt": "red"}))


def test_a_reader_that_leaves_stops_its_job(studio):
    events = studio.draw("a", {**SMALL, "prompt": "red", "steps": 50}).events()
    next(events)
    second = studio.draw("b", {**SMALL, "prompt": "red"})
    events.close()
    finished(second)


def test_who_waits_is_told_how_many_come_first_and_can_leave(studio):
    first = studio.draw("a", {**SMALL, "prompt": "red", "steps": 50})
    running = first.events()
    while not isinstance(next(running), Working):
        pass
    second, third = (studio.draw(name, {**SMALL, "prompt": "red"}) for name in "bc")
    places = third.events()
    assert next(places) == Waiting(2)
    assert studio.stop("b") == 1
    assert isinstance(second.result(), Stopped)
    assert next(places) == Waiting(1)
    assert studio.stop("nobody") == 0
    running.close()
    assert isinstance(list(places)[-1], Finished)


def test_the_line_has_an_end(studio):
    jobs = [studio.draw("a", {**SMALL, "prompt": "red", "steps": 50})]
    events = jobs[0].events()
    while not isinstance(next(events), Working):
        pass
    jobs += [studio.draw("a", {**SMALL, "prompt": "red"}) for _ in range(3)]
    with pytest.raises(ConfigError, match="3 pictures wait already, as many as may"):
        studio.draw("b", {**SMALL, "prompt": "red"})
    assert studio.stop("a") == 4
    assert [type(job.result()) for job in jobs[1:]] == [Stopped] * 3


def test_previews_come_while_drawing_and_the_clock_stops_for_them(studio):
    events = list(studio.draw("a", {**SMALL, "prompt": "red", "steps": 7}).events())
    previews = [event for event in events if isinstance(event, Working) and event.preview]
    assert [(event.label, event.done) for event in previews] == [
        ("un-merged", 3), ("un-merged", 6), ("merged", 3), ("merged", 6)
    ]  # fmt: skip
    assert previews[0].preview.size == (64, 64)


def test_what_breaks_in_a_model_is_a_sentence_and_the_next_picture_works(studio, model, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    hook = model.pipe.unet.register_forward_pre_hook(fail)
    event = studio.draw("a", {**SMALL, "prompt": "red"}).result()
    hook.remove()
    assert isinstance(event, Failed)
    assert "could not draw this (ZeroDivisionError)" in event.sentence
    assert "secret" not in event.sentence
    assert "secret detail" in caplog.text
    assert is_clean(model)
    finished(studio.draw("a", {**SMALL, "prompt": "red"}))


def test_what_a_grid_cannot_do_is_a_sentence(studio):
    values = {**SMALL, "prompt": "red", "ratio": 0.9, "window": "2x2"}
    event = studio.draw("a", values).result()
    assert isinstance(event, Failed)
    assert "0.9" in event.sentence


def test_a_look_shows_layers_and_steps_of_the_same_picture(studio):
    values = {**SMALL, "prompt": "red"}
    drawn, looked = finished(studio.draw("a", values)), finished(studio.look("a", values))
    assert np.array_equal(np.asarray(looked.image), pixels(drawn)[1])
    layer = looked.recording.layers[-1]
    for show in viz.MAPS:
        picture, legend = overlay.of(looked, show, layer, 1)
        assert isinstance(picture, Image.Image)
        assert "64 tokens to 41 · 8x8 grid · step 1 of 2" in legend
    assert overlay.maps_of(looked) == list(viz.MAPS)
    with pytest.raises(ConfigError, match="step is a whole number from 1 to 2"):
        overlay.of(looked, "groups", layer, 9)


def test_a_step_that_a_preset_leaves_whole_is_said_to_be(studio):
    values = {**SMALL, "prompt": "red", "steps": 4, "preset": "balanced"}
    looked = finished(studio.look("a", values))
    layer = looked.recording.layers[0]
    _, legend = overlay.of(looked, "groups", layer, 3)
    assert "step 3 of 4" in legend
    with pytest.raises(ConfigError, match=r"leave step 4 whole.* Steps that merge: 1, 2, 3\."):
        overlay.of(looked, "groups", layer, 4)


def test_methods_without_windows_have_no_maps_of_them(studio):
    looked = finished(studio.look("a", {**SMALL, "prompt": "red", "method": "importance"}))
    assert overlay.maps_of(looked) == ["groups", "similarity", "error"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ratio": 0}, "Nothing merged in this picture: its ratio is 0"),
        ({"whole_below": 0.9}, "below the noise at which they merge, 0.9."),
        ({"method": "toma"}, "share tokens out by weights"),
    ],
)
def test_looks_that_show_nothing_are_sentences(studio, values, words):
    event = studio.look("a", {**SMALL, "prompt": "red", **values}).result()
    assert isinstance(event, Failed)
    assert words in event.sentence


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.fixed_dictionaries({}, optional=plausible))
def test_any_request_ends_as_a_picture_or_a_sentence(studio, model, values):
    values = {"prompt": "red", **values, "height": 64, "width": 64, "steps": 1}
    with suppress(ConfigError):
        event = studio.draw("a", values).result()
        assert isinstance(event, (Finished, Failed)), event
        if isinstance(event, Failed):
            assert "could not draw this" not in event.sentence
        assert is_clean(model)


def test_a_studio_needs_a_model_that_fits_its_limits(model):
    with pytest.raises(ConfigError, match="needs at least one model"):
        Studio({}, Limits())
    with pytest.raises(ConfigError, match=r"tiny draws 128 px by default, beyond the limit of 64"):
        Studio({"tiny": model}, Limits(side=64))


def test_a_closed_studio_takes_nothing(model):
    studio = Studio({"tiny": model}, Limits())
    studio.close()
    with pytest.raises(ConfigError, match="The studio is closing"):
        studio.draw("a", {**SMALL, "prompt": "red"})
