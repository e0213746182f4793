"""``retom explain``: a folder without weights, the table, the JSON and the refusals."""

import json

import pytest
import tiny

from retom.cli import main

KEYS = {
    "format",
    "name",
    "denoiser",
    "source",
    "height",
    "width",
    "text_tokens",
    "text_tokens_from",
    "config",
    "scope",
    "balance",
    "flops",
    "parts",
    "layers",
    "ceilings",
    "unsupported",
    "advice",
}
LAYER_KEYS = {
    "name",
    "level",
    "grid",
    "noise",
    "tokens",
    "kept",
    "merges",
    "flops",
    "flops_kept",
    "flops_merged",
    "moved_bytes",
    "pays",
    "pays_in",
    "saved",
}


@pytest.fixture
def folder(tmp_path):
    """A pipeline folder with configurations only: what is there before weights are downloaded."""
    folder = tmp_path / "tiny-sd"
    tiny.unet(attention=(True, False)).save_config(folder / "unet")
    write = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "U"]},
        "vae/config.json": {"block_out_channels": [8, 8, 8]},
        "tokenizer/tokenizer_config.json": {"model_max_length": 5},
    }
    for name, data in write.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_a_folder_without_weights_is_explained(folder, capsys):
    """The autoencoder halves twice, so the latent of 16x16 is a picture of 64x64."""
    assert main(["explain", str(folder), "--ratio", "0.5", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == KEYS
    assert all(set(layer) == LAYER_KEYS for layer in data["layers"])
    assert (data["format"], data["name"], data["height"], data["width"]) == (1, "tiny-sd", 64, 64)
    assert (data["text_tokens"], data["scope"], data["unsupported"]) == (5, "attention", "")
    top = [layer for layer in data["layers"] if layer["level"] == 0]
    assert {(x["tokens"], x["kept"], x["merges"]) for x in top} == {(256, 128, True)}
    assert top[0]["grid"] == {"height": 16, "width": 16}
    assert top[0]["flops"]["total"] > top[0]["flops_kept"]["total"]
    gains = {(x["scope"], x["levels"]): x["speedup"] for x in data["ceilings"]}
    assert set(gains) == {
        (scope, levels)
        for scope in ("attention", "attention+mlp", "block", "kv")
        for levels in ("configured", "all")
    }
    assert gains["kv", "configured"] < gains["attention", "configured"] < gains["block", "all"]


def test_the_table_shows_layers_ceilings_and_advice(folder, capsys):
    command = ["explain", str(folder), "--size", "64x128", "--text-tokens", "7", "--balance", "1e9"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "tiny-sd · UNet2DConditionModel" in shown
    assert "64x128 px · 7 text tokens (given)" in shown
    assert "3 x level 0, 16x32" in shown
    assert "scope attention+mlp" in shown
    assert "cannot win on hardware of 1e+09 FLOPs a byte" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flux-9"], "flux-9 is neither a diffusers folder nor a model"),
        (["FOLDER", "--height", "30"], "multiples of 4 pixels"),
        (["FOLDER", "--ratio", "0.9", "--window", "2x2"], "asks to remove"),
        (["FOLDER", "--levels", "5"], "level 5 was given"),
        (["FOLDER", "--balance", "0"], "--balance: a number above 0 is needed, '0' was given"),
        ([], "the following arguments are required: MODEL"),
    ],
)
def test_refusals_are_one_sentence(arguments, message, folder, capsys):
    given = [str(folder) if argument == "FOLDER" else argument for argument in arguments]
    assert main(["explain", *given]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert shown.err.startswith("retom: ")
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("text", ["{", "[" * 100_000], ids=["open", "deep"])
@pytest.mark.parametrize("broken", ["model_index.json", "unet/config.json"])
def test_a_broken_folder_is_named(broken, text, folder, capsys):
    (folder / broken).write_text(text, encoding="utf-8")
    assert main(["explain", str(folder)]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_a_pipeline_without_a_denoiser_is_named(folder, capsys):
    (folder / "model_index.json").write_text("{}", encoding="utf-8")
    assert main(["explain", str(folder)]) == 2
    assert "without unet or transformer" in capsys.readouterr().err
