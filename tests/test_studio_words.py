"""What the studio writes: code that draws the same, histories that last, markup that is inert."""

import re
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_studio_request import anything
from tiny import sd_pipeline

import retom
from retom.drawing.loading import as_model, load_model
from retom.methods import METHODS
from retom.presets import PRESETS
from retom.studio import Limits, history, markup, recipe, stage
from retom.studio.job import Finished
from retom.studio.preview import can_preview, noise_levels, solved
from retom.studio.studio import Studio
from retom.studio.thumbnail import data_uri, is_data_uri

NASTY = "<img src=x onerror=alert(1)> ${7*7} {{7*7}} \"'` </script>"


@pytest.fixture(scope="module")
def drawn():
    studio = Studio({"tiny": as_model(sd_pipeline())}, Limits())
    values = {"prompt": NASTY, "negative_prompt": "blue", "height": 64, "width": 48, "steps": 2}
    event = studio.draw("a", {**values, "seed": 3, "preset": "paper", "ratio": 0.3}).result()
    studio.close()
    assert isinstance(event, Finished)
    return event.value


def test_the_python_draws_the_same_picture(drawn, tmp_path, monkeypatch):
    sd_pipeline().save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    model = load_model(str(tmp_path / "tiny"), device="cpu")
    code = recipe.as_python(model, drawn.request.settings, drawn.request.config)
    assert str(tmp_path) not in code
    exec(compile(code, "recipe", "exec"), {})
    with Image.open("merged.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(drawn.result.merged.image))


def test_the_json_loads_back(drawn, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(recipe.as_json(drawn.request.config), encoding="utf-8")
    assert retom.Config.load(path) == drawn.request.config


@pytest.mark.parametrize(
    "config",
    [
        *(retom.Config.preset(name) for name in PRESETS),
        *(retom.Config(method=method(), scope="kv") for method in METHODS.values()),
    ],
    ids=lambda config: config.method.name,
)
def test_an_expression_is_the_configuration(config):
    assert eval(recipe.as_expression(config), {"retom": retom}) == config


def test_a_history_keeps_the_newest_and_reads_back(drawn):
    entry = history.entry_of(drawn)
    stored = []
    for number in range(history.LENGTH + 3):
        stored = history.added({**entry, "speedup": float(number)}, stored)
    assert len(stored) == history.LENGTH
    assert stored[0]["speedup"] == history.LENGTH + 2
    assert history.read(stored) == stored
    assert history.strip(stored).count("data-run") == history.LENGTH


@settings(max_examples=150, deadline=None)
@given(anything | st.lists(anything, max_size=3))
def test_whatever_a_browser_kept_is_read(stored):
    assert history.read(stored) == []
    assert "Every picture that you draw is kept here" in history.strip(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"thumbnail": 'data:image/webp;base64,AA" onerror="x'},
        {"thumbnail": "https://elsewhere.example/x.webp"},
        {"values": {"prompt": 3}},
        {"values": {"prompt": "red", "folder": "x"}},
        {"speedup": float("nan")},
        {"psnr": "a"},
        {"setting": None},
    ],
)
def test_an_altered_run_is_left_out(drawn, change):
    assert history.read([{**history.entry_of(drawn), **change}]) == []


def test_what_a_visitor_writes_stays_text(drawn):
    card = history.strip([history.entry_of(drawn)])
    for words in (card, stage.failure(NASTY), stage.note(NASTY)):
        assert "<img src=x" not in words
        assert not re.search(r"\$\{|\{\{|`", words)
    assert markup.text("a & b") == "a &amp; b"


def test_numbers_say_what_was_timed(drawn):
    words = stage.numbers(drawn, as_model(sd_pipeline()))
    assert "64x48 px · 2 steps · seed 3 · retom (paper) · 0.3 · 2x2 · attention" in words
    assert "one pair after a warm-up, previews not counted" in words
    assert "of 48 on the largest grid" in words


def test_a_thumbnail_is_small_and_an_address():
    uri = data_uri(Image.new("RGB", (900, 300), "red"))
    assert is_data_uri(uri)
    assert not is_data_uri(uri + "'")
    assert not is_data_uri(uri.replace("webp", "svg+xml"))


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False),
        EulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(),
    ],
    ids=("ddim", "ddim as in stable diffusion", "euler", "flow"),
)
def test_two_neighbouring_latents_tell_the_picture_that_is_meant(scheduler):
    torch.manual_seed(0)
    scheduler.set_timesteps(5)
    picture, noise = torch.randn(2, 1, 4, 6, 6).double()
    levels = noise_levels(scheduler)
    assert len(levels) == 6
    assert levels[-1][1] == pytest.approx(0, abs=0.05)
    for (a, s), (b, t) in pairwise(levels):
        before, after = a * picture + s * noise, b * picture + t * noise
        # Stable Diffusion's last step stays where it is; then what there is is the estimate.
        exact = after if (a, s) == (b, t) else picture
        assert torch.allclose(solved(before, after, (a, s), (b, t)), exact, atol=1e-6)


def test_ddims_own_estimate_is_the_same():
    torch.manual_seed(0)
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(5)
    latents = torch.randn(1, 4, 6, 6)
    levels = noise_levels(scheduler)
    for place, timestep in enumerate(scheduler.timesteps):
        step = scheduler.step(torch.randn(1, 4, 6, 6), timestep, latents)
        ours = solved(latents, step.prev_sample, levels[place], levels[place + 1])
        assert torch.allclose(ours, step.pred_original_sample, atol=1e-4)
        latents = step.prev_sample


def test_latents_that_are_no_maps_have_no_preview():
    pipe = sd_pipeline()
    assert can_preview(pipe, torch.zeros(1, 4, 8, 8))
    assert not can_preview(pipe, torch.zeros(1, 64, 16))
    assert not can_preview(pipe, torch.zeros(1, 8, 8, 8))
    assert not can_preview(SimpleNamespace(vae=None), torch.zeros(1, 4, 8, 8))
