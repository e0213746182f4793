"""Whatever a file or an argument says: a result or one sentence; nothing runs and nothing leaks."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import retom
from retom import Config, RetomError
from retom.cli import main
from retom.hints import Hints
from retom.methods import METHODS, SDTM, SiTo, WindowCorner
from retom.methods.local import LocalMethod
from retom.rules import method_to_dict

RELAXED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = st.sampled_from(
    [
        *("format", "method", "scope", "levels", "rules", "refresh", "share", "score", "noise"),
        *("size_weighted", "name", "ratio", "window", "allocation", "reach", "merge", "alternate"),
        *("rematch", "unmerge", "seed", "tiles", "all", "auto", "block", "kv", "skip", *METHODS),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    WORDS,
    st.sampled_from([0, 1, 2, -1, 0.5, 10**9, 1e308]),
)
VALUES = st.recursive(
    LEAVES,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(WORDS | st.text(max_size=4), children, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def files(draw):
    """A configuration of some method, with some of its entries replaced."""
    method = METHODS[draw(st.sampled_from(sorted(METHODS)))]()
    data = {**Config().to_dict(), "method": method_to_dict(method)}
    for _ in range(draw(st.integers(0, 3))):
        inside = data["method"] if draw(st.booleans()) else data
        if isinstance(inside, dict):
            inside[draw(st.sampled_from([*inside, "other"]))] = draw(VALUES)
    return data


def loaded(path, text):
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        return Config.load(path)
    except RetomError:
        return None


@given(files() | VALUES)
@settings(RELAXED, max_examples=200)
def test_any_json_is_a_configuration_or_a_sentence(tmp_path, data):
    config = loaded(tmp_path / "retom.json", json.dumps(data))
    if config is not None:
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
@settings(RELAXED, max_examples=100)
def test_any_bytes_are_a_configuration_or_a_sentence(tmp_path, data):
    (tmp_path / "retom.json").write_bytes(data)
    with pytest.raises(RetomError):
        Config.load(tmp_path / "retom.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "\ufeff{}", "NaN"])
def test_json_that_is_hard_to_read(tmp_path, text):
    assert loaded(tmp_path / "retom.json", text) is None


@pytest.fixture(scope="module")
def model():
    return tiny.unet(attention=(True, False))


@given(files())
@settings(RELAXED, max_examples=40)
def test_a_configuration_that_loads_runs_or_is_refused(tmp_path, model, data):
    config = loaded(tmp_path / "retom.json", json.dumps(data))
    if config is None:
        return
    try:
        with retom.applied(model, config):
            output = tiny.call(model, tiny.inputs(size=(6, 5)))
    except RetomError:
        return
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("method", [retom.ReToM, SiTo, SDTM, WindowCorner])
def test_windows_and_reach_of_millions_cost_no_more_than_the_grid(method):
    """They are the whole grid, as if it had been named, and no table has millions of entries."""
    grid = retom.Grid(6, 5)
    x = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(0))
    endless = {"reach": 10**9} if issubclass(method, LocalMethod) else {}
    none = {"reach": 0} if issubclass(method, LocalMethod) else {}
    huge = method(window=(10**9, 10**9), **endless).plan(x, grid)
    whole = method(window=(6, 5), **none).plan(x, grid)
    assert torch.equal(huge.kept, whole.kept)
    assert torch.equal(huge.slot, whole.slot)


def test_windows_that_take_turns_are_the_grid_both_times():
    grid = retom.Grid(6, 5)
    x = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(0))
    method = retom.ReToM(window=(10**9, 10**9), alternate=True)
    one, other = (method.plan(x, grid, Hints(turn=turn)) for turn in (0, 1))
    assert torch.equal(one.slot, other.slot)


class Dangerous:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (Path(self.path).write_text, ("executed",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline folder that works."""
    place = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny.sd_pipeline().save_pretrained(place)
    return place


def generate(folder, output, *words, prompt="red"):
    options = ["--steps", "1", "--size", "32x32", "--quiet", "-o", str(output)]
    return main(["generate", *options, "--model", str(folder), *words, "--", prompt])


def test_weights_that_are_pickles_do_not_run(folder, tmp_path, capsys):
    """A file that would run code when it is loaded is refused, and runs nothing."""
    broken, sign = tmp_path / "model", tmp_path / "sign"
    shutil.copytree(folder, broken)
    for weights in broken.rglob("*.safetensors"):
        pickled = weights.with_suffix(".bin")
        with pickled.open("wb") as file:
            pickle.dump(Dangerous(sign), file)
        weights.unlink()
    assert generate(broken, tmp_path / "out.png") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not sign.exists()
    assert not (tmp_path / "out.png").exists()


def test_code_in_a_model_folder_does_not_run(folder, tmp_path, capsys):
    broken, sign = tmp_path / "model", tmp_path / "sign"
    shutil.copytree(folder, broken)
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "pipeline.py").write_text(f"open({str(sign)!r}, 'w')")
    (broken / "unet" / "evil.py").write_text(f"open({str(sign)!r}, 'w')\nclass Evil: pass")
    index["unet"] = ["evil", "Evil"]
    (broken / "model_index.json").write_text(json.dumps(index))
    assert generate(broken, tmp_path / "out.png") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not sign.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_size", [8, 8, 8]),
        ("sample_size", "8"),
        ("sample_size", -8),
        ("attention_head_dim", 0),
        ("block_out_channels", [7, 7]),
        ("norm_num_groups", None),
        ("down_block_types", [[]]),
    ],
)
def test_a_folder_that_cannot_be_explained_is_refused(folder, tmp_path, capsys, name, value):
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    file = place / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    assert main(["explain", str(place), "--size", "32x32", "--text-tokens", "5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("retom: ")
    assert error.count("\n") == 1


@given(st.text(max_size=40))
@settings(RELAXED, max_examples=20)
@pytest.mark.filterwarnings("ignore")
def test_any_prompt_is_drawn_or_refused(folder, tmp_path, capsys, prompt):
    status = generate(folder, tmp_path / "out.png", prompt=prompt)
    error = capsys.readouterr().err
    assert status in (0, 2)
    assert "Traceback" not in error
    assert set(os.listdir(tmp_path)) <= {"out.png"}


@pytest.mark.parametrize("name", ["../out.png", "..", "folder/../../out.png", "\0.png", "a" * 300])
def test_paths_that_cannot_be_written_are_refused(folder, tmp_path, capsys, name):
    (tmp_path / "here").mkdir()
    missing = tmp_path / "here" / "nowhere" / name
    assert generate(folder, missing) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == ["here"]
