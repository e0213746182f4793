"""The models that come along, by the names that commands take."""

import json

import pytest

from retom.cli import main
from retom.drawing.bundled import BUNDLED, DEFAULT
from retom.drawing.loading import load_model
from retom.errors import ModelError

emoji = pytest.importorskip("retom_emoji")


def test_there_is_a_name_for_every_size():
    assert tuple(BUNDLED.values()) == emoji.SIZES
    assert BUNDLED[DEFAULT] == emoji.SIZES[0]


@pytest.mark.parametrize("name", BUNDLED)
def test_a_name_loads_its_model(name):
    model = load_model(name, device="cpu")
    assert (model.name, model.steps, model.guidance) == (name, 20, 4.0)
    assert model.default_size == (BUNDLED[name], BUNDLED[name])


def test_no_name_is_the_first():
    assert load_model(None, device="cpu").name == DEFAULT


def test_benchmarks_take_the_names():
    from retom.benchmarking.subject import subject_named

    assert subject_named("retom-emoji-128").model.default_size == (128, 128)
    with pytest.raises(ModelError, match="retom-emoji-256 and retom-emoji-128"):
        subject_named("retom-emoji")


def test_a_name_that_is_nearly_one_is_told_the_names():
    with pytest.raises(ModelError, match="retom-emoji-256 and retom-emoji-128"):
        load_model("retom-emoji")


def test_evaluation_finds_prompts_and_head_by_name():
    from retom.cli.evaluate import folder_of, own_head
    from retom.evaluation.prompts import prompts_of

    for name, size in BUNDLED.items():
        assert folder_of(name) == emoji.folder(size)
        assert own_head(name) == emoji.alignment_head()
        assert "a red apple, fluent 3d emoji" in prompts_of(folder_of(name))


@pytest.mark.parametrize("name", BUNDLED)
def test_what_they_can_gain_is_explained_at_their_own_size(name, capsys):
    """Their autoencoder lists its stages by another name than most do."""
    assert main(["explain", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["height"], found["width"]) == (BUNDLED[name], BUNDLED[name])
    side = BUNDLED[name] // 4
    assert found["layers"][0]["grid"] == {"height": side, "width": side}


def test_the_studio_writes_code_for_the_model_it_drew_with():
    pytest.importorskip("gradio")
    from retom import Config
    from retom.drawing.generation import Settings
    from retom.studio.recipe import as_python

    model = load_model("retom-emoji-128", device="cpu")
    settings = Settings(prompt="a tree", height=128, width=128, steps=2, guidance=4.0, seed=0)
    assert "retom_emoji.folder(128)" in as_python(model, settings, Config())
