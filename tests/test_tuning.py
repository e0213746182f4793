"""A tiny pipeline tuned from beginning to end, killed, continued, and out of reach."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("rich")

from tiny import sd_pipeline, unet, vae

import retom
from retom.cli import main
from retom.errors import ConfigError
from retom.evaluation.contenders import Contender
from retom.metrics import psnr
from retom.tuning.result import SCHEDULE

SIZE = 96
SMALL = {
    "prompts": ["red", "blue", "apple", "a"],
    "tuning": 2,
    "verification": 2,
    "batch": 2,
    "steps": 2,
    "guidance": 1.0,
    "height": SIZE,
    "width": SIZE,
    "plateaus": 2,
    "rounds": 3,
    "methods": ["retom:reach=0"],
    "ratios": [0.5, 0.7],
    "levels": (0,),
}


def pipeline():
    """A pipeline whose autoencoder scales by 2: attention on 48x48 tokens is most of its time."""
    pipe = sd_pipeline(model=unet(attention=(True, False)))
    small = vae(stages=2)
    pipe.register_modules(vae=small)
    pipe.vae_scale_factor = 2
    pipe.image_processor.config.vae_scale_factor = 2
    return pipe


def run(folder, **options):
    pieces = []
    given = {**SMALL, **({} if "target_psnr" in options else {"target_speedup": 1.2}), **options}
    tuned = retom.tune(
        pipeline(),
        folder=folder,
        on_progress=lambda stage, what, done, total: pieces.append((stage, what, done, total)),
        **given,
    )
    return tuned, pieces


def contents(folder):
    """Every kept piece with its time of writing: what was written again differs."""
    kept = (folder / name for name in ("records", "tensors", "pictures"))
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for place in kept
        for path in place.rglob("*")
        if path.is_file() and "unfinished" not in str(path)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One tuning, its pieces and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return *run(folder), folder


def test_a_schedule_comes_out_with_what_it_beat(whole):
    tuned, _, _ = whole
    assert tuned.ceiling > 1.2  # 2304 tokens to 692 in all the layers that there are
    assert [(step.level, step.calls) for step in tuned.schedule] == [(0, 1), (0, 1)]
    assert tuned.schedule[0].grid == (48, 48)
    assert tuned.schedule[0].noise[0] == tuned.schedule[1].noise[1]
    merging = [step for step in tuned.schedule if step.merges]
    assert merging
    assert all(step.saved > 0 for step in merging)
    own = tuned.judged[0]
    assert own.name == SCHEDULE
    assert own.psnr.n == 2
    assert tuned.predictions[-1].psnr > 0
    if len(tuned.judged) == 2:
        first, second = (one.pictures for one in tuned.judged)
        expected = sum(a - b for a, b in zip(first, second, strict=True)) / 2
        assert own.more_psnr.value == pytest.approx(expected)
    assert "prompts that nothing was tuned on" in tuned.verdict
    text = str(tuned)
    for title in ("## Schedule", "## On other prompts", "## Predicted and measured"):
        assert title in text


def test_the_configuration_is_what_a_pipeline_takes_from_a_file(whole, tmp_path):
    tuned, _, _ = whole
    tuned.save(tmp_path / "config.json")
    pipe = pipeline()
    handle = retom.apply(pipe, retom.Config.load(tmp_path / "config.json"))
    assert handle.config == tuned.config
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "height": SIZE, "width": SIZE}

    def draw():
        generator = torch.Generator().manual_seed(2)  # the third prompt's, the first judged on
        return pipe("apple", generator=generator, output_type="pt", **options).images

    merged = draw()
    handle.remove()
    rounded = [(255 * x.clamp(0, 1)).round() / 255 for x in (merged, draw())]
    assert float(psnr(*rounded)) == pytest.approx(tuned.judged[0].pictures[0], abs=1e-3)


def test_nothing_is_measured_twice_and_the_same_comes_out(whole):
    tuned, _, folder = whole
    before = contents(folder)
    again, _ = run(folder)
    assert contents(folder) == before
    left, right = tuned.to_dict(), again.to_dict()
    assert left.pop("source")
    right.pop("source")
    assert left == right
    assert json.loads(json.dumps(right, allow_nan=False)) == json.loads(json.dumps(left))


def test_another_target_measures_what_is_missing_alone(whole):
    tuned, _, folder = whole
    before = contents(folder)
    goal = tuned.predictions[-1].psnr - 1
    other, pieces = run(folder, target_psnr=min(goal, 59.0))
    assert before.items() <= contents(folder).items()
    assert other.predictions[-1].psnr >= min(goal, 59.0) - 0.05
    assert other.target.endswith("dB PSNR")
    assert any(stage == "judging" for stage, *_ in pieces)


def test_a_speed_that_is_out_of_reach_says_the_most_and_what_would_raise_it(whole):
    _, _, folder = whole
    before = contents(folder)
    with pytest.raises(ConfigError) as caught:
        run(folder, target_speedup=99.0)
    message = str(caught.value)
    assert "A denoiser 99 times as fast is out of reach on this machine at 96x96 px" in message
    assert "The most that these candidates reach is " in message
    assert "level 0 (48x48 tokens)" in message
    assert "ratios above 0.7" in message
    assert contents(folder) == before  # by times alone: nothing is drawn


CLOSE = {"target_psnr": 59.9, "plateaus": 1, "ratios": [0.7]}
"""Out of reach, which takes all measurements to find out, and no schedule is tried."""


def test_a_closeness_that_no_candidate_keeps_says_what_there_is(whole):
    folder = whole[2]
    with pytest.raises(ConfigError) as caught:
        run(folder, **CLOSE)
    message = str(caught.value)
    assert "No candidate that saves time keeps pictures at 59.9 dB" in message
    assert "ratios below 0.7" in message


def test_a_grid_too_small_to_gain_anything_is_said(tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, height=16, width=16, target_speedup=None, target_psnr=30.0)
    assert "No candidate makes the denoiser faster on this machine at 16x16 px" in str(caught.value)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import retom
import test_tuning

def tell(stage, what, done, total):
    print(stage, done, total, flush=True)

retom.tune(
    test_tuning.pipeline(), folder={folder!r}, on_progress=tell,
    **{{**test_tuning.SMALL, **test_tuning.CLOSE}},
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a kill that nothing can catch")
def test_killed_and_started_again_nothing_is_lost_or_done_twice(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        for line in process.stdout:
            if line.startswith("screening 1"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = contents(tmp_path)
    assert sum("round-" in name for name in before) == SMALL["rounds"]

    with pytest.raises(ConfigError, match="No candidate that saves time"):
        run(tmp_path, **CLOSE)
    after = contents(tmp_path)
    assert before.items() <= after.items()  # neither changed nor written again
    assert sum("round-" in name for name in after) == SMALL["rounds"]
    assert list(tmp_path.rglob("*unfinished*")) == []


class TestRefusals:
    def test_merging_is_applied(self):
        pipe = pipeline()
        retom.apply(pipe, ratio=0.5)
        with pytest.raises(ConfigError, match=r"call handle.remove\(\) first: tuning applies"):
            retom.tune(pipe, target_speedup=1.2, **SMALL)

    def test_no_target_and_two(self):
        with pytest.raises(ConfigError, match="neither was given"):
            retom.tune(pipeline())
        with pytest.raises(ConfigError, match="both were given"):
            retom.tune(pipeline(), target_speedup=1.2, target_psnr=30)

    def test_an_unknown_option(self):
        with pytest.raises(ConfigError, match="Tuning has no option speed; there are prompts"):
            retom.tune(pipeline(), target_speedup=1.2, speed=3)

    def test_tomesd(self, tmp_path):
        pytest.importorskip("tomesd")
        with pytest.raises(ConfigError, match="tomesd is another package and cannot stand in a"):
            run(tmp_path, methods=["tomesd"])

    def test_a_compiled_denoiser(self):
        pipe = pipeline()
        pipe.unet = torch.compile(pipe.unet)
        with pytest.raises(ConfigError, match="denoiser is compiled"):
            retom.tune(pipe, target_speedup=1.2, **SMALL)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "Tuning has one target"),
            (("--target", "30"), "--target: psnr=DB is needed, such as psnr=30, '30' was given"),
            (("--target", "psnr=x"), "psnr=DB is needed"),
            (("--target-speedup", "fast"), "--target-speedup: a number is needed, 'fast'"),
            (("--target-speedup", "0.9"), "target_speedup is a number above 1; 0.9 was given"),
            (("--target-speedup", "1.2", "--model", "/nowhere"), "There is no folder /nowhere"),
        ],
    )
    def test_words(self, capsys, tmp_path, words, message):
        assert main(["tune", "-o", str(tmp_path), *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""


def test_the_command_writes_a_configuration(tmp_path, capsys):
    model = tmp_path / "model"
    sd_pipeline(model=unet(attention=(True, False))).save_pretrained(model)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red\nblue\napple\na\n")
    words = ["tune", "--model", str(model), "-o", str(tmp_path / "out"), "--size", "256"]
    words += ["--target", "psnr=20", "--prompts-file", str(prompts), "--steps", "2"]
    words += ["--prompts", "2", "--judge", "2", "--batch", "2", "--rounds", "3", "--plateaus", "1"]
    words += ["--guidance", "1", "--methods", "retom:reach=0", "--ratios", "0.7"]
    status = main([*words, "--levels", "0"])
    captured = capsys.readouterr()
    if status:  # 1024 tokens of a tiny model need not gain
        assert "No candidate makes the denoiser faster" in captured.err
        return
    assert "On other prompts" in captured.out
    assert "[judging 2/2" in captured.err
    config = retom.Config.load(tmp_path / "out" / "config.json")
    assert main([*words, "--levels", "0", "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    record = json.loads(captured.out)
    assert retom.Config.from_dict(record["config"]) == config
    assert record == json.loads((tmp_path / "out" / "tune.json").read_text())


def test_the_names_of_measurements_do_not_depend_on_those_of_candidates():
    # Pictures are kept by what they were drawn with: two names of one setting share them.
    config = retom.Config(scope="attention")
    one, other = (Contender(name, 0.5, "attention", config, own=True) for name in "ab")
    assert one.content() == other.content()
