"""Any file of a model folder damaged in any way: it draws, or one sentence says what is wrong."""

import json
import os
import shutil
import struct

import pytest
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_fuzz import WORDS, generate

from retom.drawing.loading import quiet_libraries

pytestmark = pytest.mark.filterwarnings("ignore")
RELAXED = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a case is small as it is
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# A whole number between these two may be a size that a machine has the memory for, and takes it.
NUMBERS = st.integers(-3, 40) | st.sampled_from([10**9, 10**30]) | st.floats()
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), WORDS)
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=4),
    st.dictionaries(st.text(max_size=4), LEAVES, max_size=2),
    st.sampled_from(["../out", "float16", "silu", [[1]], "\ud800", "x" * 300]),
)
KINDS = ["entry", "entry", "entry", "without", "json", "bytes", "nested", "gone", "folder"]
WEIGHTS = ["cut", "length", "garbage", "entry", "without", "more", "flipped", "json", "gone"]
LENGTHS = [0, 1, 10**8, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline folder that works, its weights in several shards."""
    place = tmp_path_factory.mktemp("models") / "tiny-sd"
    with quiet_libraries():
        tiny.sd_pipeline().save_pretrained(place, max_shard_size="100KB")
    assert len(list(place.glob("unet/*-of-*.safetensors"))) > 1
    return place


def names(folder, suffix):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files if path.suffix == suffix]


def entries(data, path=()):
    """Where each value of some JSON lies."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in pairs if isinstance(data, (dict, list)) else ():
        yield (*path, key)
        yield from entries(value, (*path, key)) if isinstance(value, (dict, list)) else ()


def changed(data, kind, number, value):
    """The same JSON with one of its values replaced or taken out."""
    paths = list(entries(data))
    *above, last = paths[number % len(paths)]
    inside = data
    for key in above:
        inside = inside[key]
    if kind == "entry":
        inside[last] = value
    else:
        del inside[last]
    return data


def damage_json(file, kind, number, value, noise):
    """Do what ``kind`` says to a file of JSON."""
    if kind in ("entry", "without"):
        file.write_text(json.dumps(changed(json.loads(file.read_text()), kind, number, value)))
        return
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind != "gone":
        new = {"json": json.dumps(value).encode(), "bytes": noise, "nested": b"[" * 100_000}
        file.write_bytes(new[kind])


def damage_weights(file, kind, number, value, noise):
    """Do what ``kind`` says to a safetensors file: eight bytes of length, a JSON header, bytes."""
    data = file.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    if kind == "cut":
        data = data[: number % len(data)]
    elif kind == "length":
        data = struct.pack("<Q", LENGTHS[number % len(LENGTHS)]) + data[8:]
    elif kind in ("garbage", "flipped"):
        begin, end = (8, start) if kind == "garbage" else (start, len(data) - len(noise))
        place = begin + number % max(1, end - begin)
        data = data[:place] + noise + data[place + len(noise) :]
    elif kind == "gone":
        file.unlink()
        return
    else:
        more = {**header, "more": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        new = {"json": value, "more": more}
        text = new[kind] if kind in new else changed(header, kind, number, value)
        header = json.dumps(text).encode()
        data = struct.pack("<Q", len(header)) + header + data[start:]
    file.write_bytes(data)


def drawn_or_refused(folder, tmp_path, capsys, damage, name, case):
    """The exit status and what was said, after the damage was done."""
    place = tmp_path / "model"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    damage(place / name, *case)
    before = set(os.listdir(tmp_path))
    status = generate(place, tmp_path / "out.png")
    error = capsys.readouterr().err
    assert set(os.listdir(tmp_path)) - before <= {"out.png"}
    assert "Traceback" not in error
    if status:
        assert status == 2
        assert error.startswith("retom: ")
        assert error.endswith(".\n")
        assert error.count("\n") == 1
    return status, error


CASES = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 10**6), VALUES, st.binary(min_size=1, max_size=40)
)
CASES_OF_WEIGHTS = st.tuples(
    st.sampled_from(WEIGHTS), st.integers(0, 10**6), VALUES, st.binary(min_size=1, max_size=40)
)


@given(st.data(), CASES)
@settings(RELAXED, max_examples=30)
def test_any_damage_to_a_file_of_json(folder, tmp_path, capsys, data, case):
    """Of the pipeline, the UNet, VAE, text encoder, scheduler and tokenizer, and of the shards."""
    name = data.draw(st.sampled_from(names(folder, ".json")))
    drawn_or_refused(folder, tmp_path, capsys, damage_json, name, case)


@given(st.data(), CASES_OF_WEIGHTS)
@settings(RELAXED, max_examples=25)
def test_any_damage_to_weights(folder, tmp_path, capsys, data, case):
    name = data.draw(st.sampled_from(names(folder, ".safetensors")))
    status, _ = drawn_or_refused(folder, tmp_path, capsys, damage_weights, name, case)
    # Other numbers draw another picture, and not all of a header is needed; a file that is not
    # whole must not draw any.
    assert status or case[0] in ("flipped", "garbage", "entry", "without")


SHARD = "unet/diffusion_pytorch_model-00001-of-00003.safetensors"


@pytest.mark.parametrize("length", LENGTHS)
def test_headers_of_any_length_are_refused(folder, tmp_path, capsys, length):
    case = ("length", LENGTHS.index(length), None, b"")
    assert drawn_or_refused(folder, tmp_path, capsys, damage_weights, SHARD, case)[0] == 2


def put(file, name, value):
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))


@pytest.mark.parametrize(
    ("file", "name", "value", "words"),
    [
        ("scheduler/scheduler_config.json", "timestep_spacing", None, "failed while it drew"),
        ("unet/config.json", "dual_cross_attention", True, "asks for the weight unet."),
        ("unet/config.json", "transformer_layers_per_block", 10**30, "beyond 1000; no model"),
        ("unet/config.json", "sample_size", "x", "sample_size in a model's configuration is"),
        ("unet/config.json", "sample_size", [], "sample_size in a model's configuration is"),
        ("unet/config.json", "downsample_padding", ["x"], "Downsample2D with one padding"),
        ("vae/config.json", "layers_per_block", 10**9, "asks for 'layers_per_block' beyond 1000"),
        ("text_encoder/config.json", "num_hidden_layers", 10**9, "beyond 1000; no model"),
        ("text_encoder/config.json", "max_position_embeddings", 10**12, "beyond 134217728"),
        ("tokenizer/tokenizer_config.json", "model_max_length", [2, 2], "The tokenizer of "),
        ("model_index.json", "vae", {}, "KeyError: 0."),
    ],
)
def test_what_the_fuzz_found(folder, tmp_path, capsys, file, name, value, words):
    case = (name, value)
    status, error = drawn_or_refused(folder, tmp_path, capsys, put, file, case)
    assert status == 2
    assert words in error


def leave_out(file, number):
    weights = load_file(file)
    del weights[sorted(weights)[number]]
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_weight_that_a_file_lacks_is_named(folder, tmp_path, capsys, part):
    """transformers would fill it with random numbers, diffusers leave it without any."""
    name = next(name for name in names(folder, ".safetensors") if name.startswith(part))
    status, error = drawn_or_refused(folder, tmp_path, capsys, leave_out, name, (5,))
    assert status == 2
    assert f"asks for the weight {part}." in error


def test_weights_that_are_not_there_are_one_sentence(folder, tmp_path, capfd):
    """Diffusers writes a line of its own to the stream that it found when it was imported."""
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    for weights in place.glob("vae/*.safetensors*"):
        weights.unlink()
    assert generate(place, tmp_path / "out.png") == 2
    assert capfd.readouterr().err.count("\n") == 1
