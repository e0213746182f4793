import json
import os
import re
import shutil
import sys

import pytest
import torch
from PIL import Image
from tiny import sd_pipeline, sdxl_pipeline

import retom
from retom.cli import main
from retom.drawing.generation import Comparison, Series
from retom.drawing.png import read_record

PROMPT = "a red apple, fluent 3d emoji"
SHORT = "--steps", "2"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A Stable Diffusion pipeline of 128 px: a 16x16 grid on level 0."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    sd_pipeline().save_pretrained(path)
    return path


@pytest.fixture
def generate(folder, tmp_path):
    """Run ``retom generate`` with the tiny model; (exit status, output path)."""

    def run(*arguments, prompt="red", model=folder, output=tmp_path / "out.png"):
        options = [*SHORT, "--model", str(model), "-o", str(output), *map(str, arguments)]
        return main(["generate", prompt, *options]), output

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def refused(capsys, status, *words):
    """Exactly one line on stderr, nothing on stdout, and a status that says so."""
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.startswith("retom: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err


def test_draws_a_picture_and_says_so(generate, capsys):
    status, output = generate()
    captured = capsys.readouterr()
    assert status == 0
    with Image.open(output) as image:
        assert image.size == (128, 128)
        assert image.mode == "RGB"
    assert captured.err == ""
    assert "tokens on 16x16" in captured.out
    assert "50% fewer" in captured.out
    assert str(output) in captured.out
    assert os.listdir(output.parent) == [output.name]


def test_the_picture_is_that_of_the_library(generate, folder):
    options = ("--ratio", 0.4, "--window", "2x4", "--share", "level", "--no-size-weighted")
    _, output = generate("--seed", 7, "--guidance", 3, *options)
    pipe = sd_pipeline()
    retom.apply(pipe, ratio=0.4, window=(2, 4), share="level", size_weighted=False)
    image = pipe(
        "red", num_inference_steps=2, guidance_scale=3.0, generator=torch.Generator().manual_seed(7)
    ).images[0]
    assert pixels(output) == image.tobytes()


def test_windows_can_follow_the_ratio(generate, tmp_path):
    auto, tall, small = (
        generate("--ratio", 0.7, "--window", window, output=tmp_path / f"{window}.png")[1]
        for window in ("auto", "4x2", "2x2")
    )
    assert pixels(auto) == pixels(tall) != pixels(small)


def test_ratio_zero_is_the_plain_pipeline(generate):
    _, output = generate("--ratio", 0)
    image = sd_pipeline()("red", num_inference_steps=2, generator=torch.manual_seed(0)).images[0]
    assert pixels(output) == image.tobytes()
    assert read_record(output)["levels"] == []


def test_the_same_command_gives_the_same_pixels(generate, tmp_path):
    for extra in ((), ("--compare",)):
        _, first = generate(*extra, output=tmp_path / "a.png")
        _, second = generate(*extra, output=tmp_path / "b.png")
        assert pixels(first) == pixels(second)


def test_seeds_steps_guidance_and_prompts_matter(generate, tmp_path):
    drawn = [
        pixels(generate(*extra, output=tmp_path / f"{number}.png")[1])
        for number, extra in enumerate(
            [
                (),
                ("--seed", 1),
                ("--steps", 3),
                ("--guidance", 1),
                ("--negative-prompt", "green"),
                ("--ratio", 0.75),
                ("--method", "window_corner"),
                ("--merge", "representative"),
                ("--levels", "all"),
            ]
        )
    ]
    assert len(set(drawn)) == len(drawn)


def test_height_comes_before_width(generate):
    _, output = generate("--size", "128x64")
    with Image.open(output) as image:
        assert (image.height, image.width) == (128, 64)
    assert read_record(output)["levels"][0]["grid"] == {"height": 16, "width": 8}
    _, output = generate("--size", 64, "--width", 96)
    with Image.open(output) as image:
        assert (image.height, image.width) == (64, 96)


def test_json_is_all_of_stdout(generate, capsys):
    status, output = generate("--compare", "--json", "--repeat", 2, "--negative-prompt", "blue")
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert status == 0
    assert captured.err == ""
    assert record == read_record(output)
    environment = record.pop("environment")
    assert environment["retom"] == retom.__version__
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["dtype"] == "float32"
    config = retom.Config.from_dict(record["config"])
    assert config == retom.Config()
    for side in (record["merged"], record["comparison"]["unmerged"]):
        assert len(side["runs"]["seconds"]) == len(side["runs"]["denoiser_seconds"]) == 2
        assert 0 < side["denoiser_seconds"] < side["seconds"]
    assert [(level["tokens"], level["kept"]) for level in record["levels"]] == [
        (256, 128),
        (64, 64),
        (16, 16),
    ]
    comparison = record["comparison"]
    assert 10 < comparison["psnr"] < 100
    assert 0 < comparison["ssim"] < 1
    assert comparison["speedup"] == pytest.approx(
        comparison["unmerged"]["seconds"] / record["merged"]["seconds"]
    )
    assert {key: record[key] for key in ("prompt", "negative_prompt", "seed", "steps")} == {
        "prompt": "red",
        "negative_prompt": "blue",
        "seed": 0,
        "steps": 2,
    }
    assert (record["guidance"], record["height"], record["width"]) == (7.5, 128, 128)


def test_the_config_inside_a_picture_draws_it_again(generate, tmp_path):
    _, first = generate("--ratio", 0.3, "--reach", 2, "--allocation", "coherence")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(read_record(first)["config"]))
    _, second = generate("--config", file, output=tmp_path / "again.png")
    assert pixels(first) == pixels(second)
    _, third = generate("--config", file, "--ratio", 0.6, output=tmp_path / "third.png")
    method = read_record(third)["config"]["method"]
    assert (method["ratio"], method["reach"]) == (0.6, 2)


def test_a_comparison_holds_both_pictures(generate, tmp_path, capsys):
    _, sheet = generate("--compare")
    printed = capsys.readouterr().out
    _, merged = generate(output=tmp_path / "merged.png")
    _, plain = generate("--ratio", 0, output=tmp_path / "plain.png")
    with Image.open(sheet) as image:
        assert image.width > 3 * 384
        panels = image.convert("RGB").tobytes()
    for path in (plain, merged):
        with Image.open(path) as small:
            enlarged = small.convert("RGB").resize((384, 384), Image.Resampling.LANCZOS)
        # A panel begins somewhere in the sheet: its first row of pixels is found as it is.
        assert enlarged.tobytes()[: 3 * 384] in panels
    for words in ("un-merged", "merged", "as fast", "PSNR", "SSIM", "256", "128"):
        assert words in printed


def test_a_comparison_without_merging_finds_nothing(generate, capsys):
    _, output = generate("--compare", "--ratio", 0)
    comparison = read_record(output)["comparison"]
    assert comparison["psnr"] is None
    assert comparison["ssim"] == pytest.approx(1)
    assert "PSNR infinite" in capsys.readouterr().out


def test_merging_by_noise_says_where_it_merged_and_when_it_did_not(generate, capsys):
    """DDIM with four steps: timesteps 751, 501, 251, 1; the two of the warm-up: 501, 1."""
    generate("--noise", "0.7,1", "--compare", "--steps", 4)
    printed = capsys.readouterr().out
    assert "retom, ratio 0.5, noise 0.7 to 1 · seed 0" in printed
    assert re.search(r"tokens on 16x16, noise 0.7 to 1 +256 +128 +50% fewer", printed)
    assert "Nothing merged" not in printed
    generate("--noise", "0.8,1", "--compare", "--steps", 4)
    printed = capsys.readouterr().out
    assert "Nothing merged: no step of this picture is at a noise that merges." in printed
    assert re.search(r"SSIM 1\.0000", printed)


def test_medians_and_speedups():
    black, white = (Image.new("RGB", (16, 16), colour) for colour in ("black", "white"))
    slow = Series.of([Series(black, (s,), (s / 2,)) for s in (9.0, 4.0, 6.0)])
    fast = Series.of([Series(white, (s,), (s / 3,)) for s in (3.0, 2.0, 3.0)])
    comparison = Comparison.of(slow, fast)
    assert (comparison.speedup, comparison.denoiser_speedup) == (2.0, 3.0)
    assert comparison.psnr == 0.0
    # Two flat pictures: the luminance term, C1 / (1 + C1).
    assert comparison.ssim == pytest.approx(1e-4 / (1 + 1e-4), abs=1e-4)


def test_nothing_of_retom_is_left_on_the_pipeline(folder):
    from retom.drawing.generation import Settings, compare
    from retom.drawing.loading import load_model

    model = load_model(str(folder), device="cpu")
    settings = Settings(prompt="red", steps=1, guidance=1.0, height=64, width=64)
    told = []
    compare(model, settings, retom.Config(), repeat=1, on_step=lambda *step: told.append(step))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.pipe.unet.modules())
    assert [step for step in told if step[0] == "merged"] == [("merged", 0, 1), ("merged", 1, 1)]


def test_the_bar_shows_the_steps_on_a_terminal(generate, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    generate("--compare", "--quiet")
    assert capsys.readouterr().err == ""
    generate("--compare")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "2/2" in shown
    assert "merged" in shown


def test_quiet_says_nothing_but_json(generate, capsys):
    status, output = generate("--quiet", prompt=PROMPT)
    assert (status, *capsys.readouterr()) == (0, "", "")
    generate("--quiet", "--json")
    assert json.loads(capsys.readouterr().out)["output"] == str(output)


def test_a_prompt_that_is_cut_off_is_noted(generate, capsys):
    status, _ = generate("--json", prompt=PROMPT)
    captured = capsys.readouterr()
    assert status == 0
    assert re.fullmatch(
        r"retom: note: the prompt is \d+ tokens long; the model reads the first 8\.\n", captured.err
    )
    assert json.loads(captured.out)["prompt"] == PROMPT


def test_sdxl_draws_too(generate, tmp_path):
    model = tmp_path / "sdxl"
    sdxl_pipeline().save_pretrained(model)
    status, output = generate("--compare", "--size", 128, model=model)
    assert status == 0
    record = read_record(output)
    assert record["environment"]["pipeline"] == "StableDiffusionXLPipeline"
    assert record["levels"][0]["grid"] == {"height": 8, "width": 8}


def test_half_precision_folders_load_in_float32(generate, tmp_path):
    model = tmp_path / "half"
    sd_pipeline().to(dtype=torch.float16).save_pretrained(model)
    status, output = generate(model=model)
    assert status == 0
    assert read_record(output)["environment"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--size", 100),
            "multiple of 8 px and at least 16 with this model; 100 was given, use 96",
        ),
        (("--size", 8), "8 was given, use 16"),
        (
            ("--ratio", 0.8, "--window", "2x2"),
            "windows of 2x2 can give up 192 at most (ratio 0.75)",
        ),
        # 17x17 latents: the default size reaches this ratio, the size asked for does not.
        (("--ratio", 0.74, "--window", "2x2", "--size", 136), "of a 17x17 grid"),
        (
            ("--ratio", 0.74, "--window", "2x2", "--size", 136, "--compare"),
            "of a 17x17 grid",
        ),
        (("--levels", "0,7"), "level 7 was given"),
        (("--device", "abacus"), "The device abacus is not available"),
    ],
)
def test_what_a_model_cannot_do_is_refused(generate, capsys, arguments, words):
    status, output = generate(*arguments)
    refused(capsys, status, words)
    assert os.listdir(output.parent) == []


def spoil_index(folder):
    (folder / "model_index.json").write_text("{")


def spoil_weights(folder):
    shutil.rmtree(folder / "unet")


def make_inpainter(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionInpaintPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_index, "cannot be loaded as a diffusers pipeline"),
        (spoil_weights, "cannot be loaded as a diffusers pipeline"),
        (make_inpainter, "StableDiffusionInpaintPipeline, which does not draw"),
    ],
)
def test_a_folder_that_is_no_text_to_image_pipeline_is_refused(
    generate, folder, tmp_path, capsys, spoil, words
):
    model = tmp_path / "models" / "spoiled"
    shutil.copytree(folder, model)
    spoil(model)
    status, output = generate(model=model)
    refused(capsys, status, words)
    assert not output.exists()


def test_a_refusal_leaves_the_file_that_was_there(generate, tmp_path, capsys):
    output = tmp_path / "out.png"
    output.write_bytes(b"precious")
    status, _ = generate("--size", 100)
    refused(capsys, status)
    assert output.read_bytes() == b"precious"


def test_an_interruption_leaves_nothing(generate, tmp_path, capsys):
    output = tmp_path / "out.png"
    output.write_bytes(b"precious")
    calls = []

    def press_ctrl_c(module, *_):
        if type(module).__name__ == "UNet2DConditionModel":
            calls.append(module)
            if len(calls) == 4:
                raise KeyboardInterrupt

    with torch.nn.modules.module.register_module_forward_hook(press_ctrl_c):
        status, _ = generate("--compare", "--steps", 20)
    assert status == 130
    assert len(calls) == 4
    assert capsys.readouterr() == ("", "retom: interrupted.\n")
    assert output.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_reader_that_left_is_no_traceback(generate, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        status, output = generate("--json")
    assert status == 141
    assert capfd.readouterr().err == ""
    assert output.exists()


def test_layers_that_do_not_pay_are_skipped_and_told(generate, capsys):
    """A 16x16 grid of 8 channels: both pictures are the same, and it is decided but once."""
    assert generate("--skip", "unprofitable", "--compare", "--json")[0] == 0
    record = json.loads(capsys.readouterr().out)
    assert record["config"]["skip"] == "unprofitable"
    assert "3 layers run un-merged (level 0, grid 16x16, batch 2, ratio 0.5" in record["skipped"][0]
    assert record["comparison"]["psnr"] is None  # infinite
    assert generate("--skip", "unprofitable")[0] == 0
    assert "3 layers run un-merged" in capsys.readouterr().out
