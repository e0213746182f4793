"""An evaluation of a tiny pipeline: what comes out, and that a kill loses and repeats nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

import tiny
from tiny import sd_pipeline, sdxl_pipeline

import retom
from retom.drawing.loading import as_model
from retom.errors import ConfigError
from retom.evaluation.contenders import Lineup
from retom.evaluation.fingerprint import fingerprint, merging_code
from retom.evaluation.floors import FLOORS, one_by_one
from retom.evaluation.results import FLOOR, ONE_BY_ONE, UNMERGED
from retom.evaluation.settings import Settings
from retom.evaluation.store import Store
from retom.evaluation.study import Instruments, evaluate
from retom.evaluation.subject import Subject
from retom.evaluation.tables import markdown

METHODS = ["retom", "window_corner", "tome"]
SMALL = {
    "prompts": ["red", "blue"],
    "batch": 2,
    "steps": 1,
    "guidance": 1.0,
    "noise_levels": 2,
    "rounds": 2,
    "best": 1,
}


class Brightness:
    """Features that need no download: means and spreads of the channels."""

    name = "brightness"

    def __call__(self, pictures):
        flat = pictures.flatten(2)
        return torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)


def run(folder, *, pipe=None, methods=METHODS, instruments=None, baseline=None, **options):
    pieces = []
    results = evaluate(
        pipe or sd_pipeline(),
        Settings(**{**SMALL, **options}),
        folder,
        lineup=Lineup(methods=methods, baseline=baseline),
        instruments=instruments,
        on_progress=lambda stage, what, done, total: pieces.append((stage, what, done, total)),
    )
    return results, pieces


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One evaluation, its folder and its pieces."""
    folder = tmp_path_factory.mktemp("whole")
    results, pieces = run(folder, instruments=Instruments(extractor=Brightness()))
    return results, pieces, folder


def test_every_contender_is_screened_and_timed_and_the_best_is_drawn(whole):
    results, _, _ = whole
    assert [row.method for row in results.merged] == METHODS
    for row in results.merged:
        assert 0 < row.values["error"].value < 1
        assert row.values["error"].n == 2
        assert len(row.by_level) == 2
        assert row.values["speedup"].value > 0
    drawn = [row for row in results.merged if row.pictures]
    others = [row for row in results.merged if row.method != "tome"]
    best = min(others, key=lambda row: row.values["error"].value)
    assert {row.method for row in drawn} == {best.method, "tome"}  # and the baseline
    for row in drawn:
        assert 0 < row.values["psnr"].value <= 100
        assert row.values.keys() >= {"ssim", "cosine", "artefacts"}


def test_floors_are_another_seed_and_below_the_contenders(whole):
    results, _, _ = whole
    floor = results.row(FLOOR)
    assert "psnr" not in results.row(UNMERGED).values
    for row in results.merged:
        if row.pictures:
            assert row.values["psnr"].value > floor.values["psnr"].value


def test_errors_lie_between_rounding_and_another_seed(whole):
    results, _, _ = whole
    rounding, seed = (results.row(name).values["error"] for name in (ONE_BY_ONE, FLOOR))
    assert rounding.value < 1e-5
    assert len(results.row(ONE_BY_ONE).by_level) == 2
    assert not results.row(ONE_BY_ONE).pictures
    assert all(row.values["error"].value < seed.value for row in results.merged)
    assert all(row.values["error"].value > 100 * rounding.value for row in results.merged)
    assert "| un-merged, one at a time | 2 |" in markdown(results)


def test_one_at_a_time_is_a_batch_of_one(tmp_path):
    pipe = sd_pipeline()
    settings = Settings(**SMALL)
    with Store(tmp_path) as store:
        subject = Subject(as_model(pipe), settings, store)
        (samples,) = settings.screening_chunks()
        subject.latents(samples)
        batches = []
        hook = pipe.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
        found = one_by_one(subject, samples)
        hook.remove()
        call = subject.call_of(samples)
        together = subject.outputs(samples, None, call)
    assert set(batches) == {1}
    torch.testing.assert_close(found, together, rtol=1e-4, atol=1e-5)


def test_another_seeds_error_is_that_of_its_own_latents_and_noise(whole):
    results, _, folder = whole
    # Of the same prompts, each seed's own final latents, noised by its own noise.
    pipe = sd_pipeline()
    settings = Settings(**SMALL)
    model = as_model(pipe)
    with Store(folder) as store:
        subject = Subject(model, settings, store)
        (samples,), (again,) = settings.screening_chunks(), settings.screening_chunks(other=True)
        call = subject.call_of(samples)
        outputs = [
            torch.stack([call(pipe.unet, subject.noisy(drawn, t), t) for t in subject.timesteps])
            for drawn in (again, samples)
        ]
    apart, whole = ((x.flatten(2)).norm(dim=-1) for x in (outputs[0] - outputs[1], outputs[1]))
    found = results.row(FLOOR).values["error"].value
    assert found == pytest.approx(float((apart / whole).mean()), rel=1e-5)


def test_differences_are_to_the_baseline(whole):
    results, _, _ = whole
    assert results.baseline == "tome"
    tome = next(row for row in results.merged if row.method == "tome")
    assert tome.differences == {}
    for row in results.merged[:2]:
        expected = row.values["error"].value - tome.values["error"].value
        assert row.differences["error"].value == pytest.approx(expected, abs=1e-6)


def test_the_pictures_are_those_of_the_library(whole):
    results, _, _ = whole
    row = next(row for row in results.merged if row.method == "tome")
    pipe = sd_pipeline()
    retom.apply(pipe, retom.Config(method=retom.methods.ToMe()))
    expected = pipe(
        prompt=["red", "blue"],
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        num_inference_steps=1,
        guidance_scale=1.0,
        output_type="np",
    ).images
    from PIL import Image

    for path, picture in zip(row.pictures, expected, strict=True):
        with Image.open(path) as image:
            assert image.tobytes() == (255 * picture).round().astype("uint8").tobytes()


def test_nothing_is_measured_twice(whole):
    results, _, folder = whole
    before = contents(folder)
    again, pieces = run(folder, instruments=Instruments(extractor=Brightness()))
    assert contents(folder) == before
    assert {what for stage, what, done, _ in pieces if stage == "screening" and done} == {
        *FLOORS, "done before"
    }  # fmt: skip
    assert values(again) == values(results)


def test_a_changed_setting_is_measured_anew_and_the_old_one_stays(whole):
    results, _, folder = whole
    before = contents(folder)
    changed, _ = run(folder, steps=2, stages=["screening"])
    after = contents(folder)
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert values(changed) != values(results)


def test_another_method_adds_to_what_is_there(whole):
    _, _, folder = whole
    before = contents(folder)
    more, pieces = run(folder, methods=[*METHODS, "retom:reach=0"], stages=["screening"])
    assert before.items() <= contents(folder).items()
    assert [what for stage, what, done, _ in pieces if stage == "screening" and done] == [
        *FLOORS, "done before", "done before", "done before", "retom:reach=0 · 0.5 · attention"
    ]  # fmt: skip
    assert len(more.merged) == 4


def test_the_first_prompts_alone_are_screened_and_all_are_drawn(tmp_path):
    prompts = ["red", "blue", "green", "grey"]
    options = {"prompts": prompts, "screened": 2, "best": 3, "stages": ["screening", "pictures"]}
    results, pieces = run(tmp_path, **options)
    for row in results.merged:
        assert row.values["error"].n == 2
        assert len(row.pictures) == 4
    assert {total for stage, _, _, total in pieces if stage == "screening"} == {
        len(METHODS) + len(FLOORS)
    }
    assert "- screened: the first 2 prompts, at the first seed" in markdown(results)
    # Errors are those of an evaluation of these prompts alone.
    alone, _ = run(tmp_path, prompts=prompts[:2], stages=[])
    for row in results.merged:
        assert alone.row(row.name).values["error"].value == row.values["error"].value


def test_markdown_has_a_table_of_each_kind(whole):
    text = markdown(whole[0])
    assert "### Denoiser error, ratio 0.5, scope attention" in text
    assert "### Pictures, ratio 0.5, scope attention" in text
    assert "| un-merged, another seed |" in text
    assert "minus tome" in text


def test_parquet_holds_every_number(whole):
    parquet = pytest.importorskip("pyarrow.parquet")
    from retom.evaluation.parquet import write_parquet

    results, _, folder = whole
    table, samples = (parquet.read_table(path) for path in write_parquet(results, folder))
    rows = table.to_pylist()
    assert {row["name"] for row in rows} == {row.name for row in results.rows if row.values}
    one = next(r for r in rows if r["method"] == "retom" and r["measure"] == "error")
    assert one["value"] == results.row(one["name"]).values["error"].value
    assert one["difference_low"] <= one["difference"] <= one["difference_high"]
    assert json.loads(one["config"])["method"]["name"] == "retom"
    about = json.loads(table.schema.metadata[b"retom"])
    assert about["content"]["steps"] == 1
    assert about["sources"][-1]["versions"]["retom"] == retom.__version__
    errors = [s for s in samples.to_pylist() if s["measure"] == "error"]
    assert len(errors) == (3 + len(FLOORS)) * 2 * 2  # contenders and floors, prompts, noise levels
    assert samples.num_rows == len(results.sample_values)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_evaluation_study as study
from pathlib import Path
from retom.evaluation.study import evaluate
from retom.evaluation.settings import Settings
from retom.evaluation.contenders import Lineup

def tell(stage, what, done, total):
    print(stage, done, total, flush=True)

evaluate(
    study.sd_pipeline(), Settings(**study.SMALL), Path({folder!r}),
    lineup=Lineup(methods=study.METHODS), on_progress=tell,
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a kill that nothing can catch")
@pytest.mark.parametrize(
    "last", ["screening 4", pytest.param("pictures 2", marks=pytest.mark.slow)]
)
def test_killed_and_started_again_nothing_is_lost_or_done_twice(tmp_path, whole, last):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        for line in process.stdout:
            if line.startswith(last):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = contents(tmp_path)
    assert before

    results, pieces = run(tmp_path)
    after = contents(tmp_path)
    assert before.items() <= after.items()  # neither changed nor written again
    done = [what for stage, what, number, _ in pieces if stage == "screening" and number]
    assert done.count("done before") >= 2
    assert list(tmp_path.rglob("*unfinished*")) == []
    # The same numbers as of an evaluation that nobody disturbed, but for features and times.
    assert values(results) == {
        name: {k: v for k, v in found.items() if k != "cosine"}
        for name, found in values(whole[0]).items()
    }


def contents(folder):
    """Every kept piece with its time of writing: what was written again differs."""
    kept = (folder / name for name in ("records", "tensors", "pictures"))
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for place in kept
        for path in place.rglob("*")
        if path.is_file() and "unfinished" not in str(path)
    }


def values(results):
    """Numbers that do not depend on the clock."""
    return {
        row.name: {k: v.value for k, v in row.values.items() if k != "speedup"}
        for row in results.rows
    }


# ---- what is compared with what


def test_a_ratio_out_of_reach_is_left_out_with_its_reason(tmp_path):
    results, _ = run(tmp_path, methods=["retom:window=1x2/2x2"], ratios=[0.6], stages=["screening"])
    assert [row.method for row in results.merged] == ["retom:window=2x2"]
    (reason,) = results.left_out.values()
    assert "ratio 0.6 asks to remove" in reason


def test_tomesd_over_its_reach_is_refused_because_it_silently_merges_less(tmp_path):
    pytest.importorskip("tomesd")
    with pytest.raises(ConfigError, match="compute on different numbers of tokens in "):
        run(tmp_path, methods=["retom:window=4x4", "tomesd"], ratios=[0.85])


def test_tomesd_and_retom_remove_the_same_tokens_and_nothing_is_left_behind(tmp_path):
    pytest.importorskip("tomesd")
    pipe = sd_pipeline()
    before = fingerprint(pipe)
    results, _ = run(tmp_path, pipe=pipe, methods=["retom", "tomesd"], stages=["screening"])
    assert results.baseline == "tomesd"
    assert all(row.values["error"].value > 0 for row in results.merged)
    assert fingerprint(pipe) == before
    assert not any("_tome_info" in vars(module) for module in pipe.unet.modules())
    assert type(pipe.unet).__name__ == "UNet2DConditionModel"


def test_a_configuration_that_keeps_other_tokens_is_marked(tmp_path):
    from retom.rules import Rule

    rules = (Rule(method=None, noise=(0.0, 0.5)),)
    results = evaluate(
        sd_pipeline(),
        Settings(**{**SMALL, "stages": ["screening"]}),
        tmp_path,
        lineup=Lineup(methods=["retom"], configs={"late": retom.Config(rules=rules)}),
    )
    assert {row.method: row.other_tokens for row in results.merged} == {
        "retom": False, "late": True
    }  # fmt: skip
    assert any("†" in note for note in results.notes)


def test_the_speed_of_merging_by_noise_is_that_of_a_pictures_average_call(tmp_path, monkeypatch):
    """Seconds are made to be tokens: 256 whole and 128 merged, in three of four steps."""
    from retom.evaluation import timed_calls

    def tokens_of(runs, rounds, **_):
        seconds = {}
        for name, run in runs.items():
            with tiny.tokens_seen(pipe.unet) as whole, tiny.tokens_seen(copies[-1]) as merged:
                run()
            seconds[name] = [float((whole or merged)[first][0])] * rounds
        return seconds

    copies, pipe, first = [], sd_pipeline(), f"{tiny.FIRST}.attn1"

    def kept(denoiser):
        copies.append(shared_copy(denoiser))
        return copies[-1]

    shared_copy = timed_calls.shared_copy
    monkeypatch.setattr(timed_calls, "shared_copy", kept)
    monkeypatch.setattr(timed_calls, "interleave", tokens_of)
    results, _ = run(
        tmp_path,
        pipe=pipe,
        methods=["retom", "retom:noise=0.2+1", "retom:noise=0.99+1"],
        stages=["timing"],
        steps=4,  # timesteps 751, 501, 251, 1
    )
    speed = {row.method: row.values["speedup"].value for row in results.merged}
    assert speed["retom"] == 2
    assert speed["retom:noise=0.2+1"] == pytest.approx(256 / (0.75 * 128 + 0.25 * 256))
    assert speed["retom:noise=0.99+1"] == 1
    assert {row.method for row in results.merged if row.other_tokens} == set(speed) - {"retom"}


def test_sdxl_is_evaluated_too(tmp_path):
    results, _ = run(tmp_path, pipe=sdxl_pipeline(), methods=["retom"], stages=["screening"])
    assert 0 < results.merged[0].values["error"].value < 1


def test_merging_that_is_applied_already_is_refused(tmp_path):
    pipe = sd_pipeline()
    retom.apply(pipe)
    with pytest.raises(ConfigError, match=r"call handle.remove\(\) first"):
        run(tmp_path, pipe=pipe)


def test_a_fingerprint_is_that_of_the_weights():
    pipe, same = sd_pipeline(), sd_pipeline()
    assert fingerprint(pipe) == fingerprint(same)
    with torch.no_grad():
        next(same.vae.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(pipe) != fingerprint(same)
    scheduler = pipe.scheduler
    pipe.scheduler = type(scheduler).from_config(scheduler.config, beta_end=0.013)
    changed = fingerprint(pipe)
    pipe.scheduler = scheduler
    assert changed != fingerprint(pipe)


def test_code_that_merges_is_told_apart_and_sentences_about_it_are_not(tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "studio").mkdir()
    plan, page = tmp_path / "methods" / "plan.py", tmp_path / "studio" / "page.py"
    seen = []

    def digest(path, code):
        path.write_text(code)
        merging_code.cache_clear()
        seen.append(merging_code(tmp_path))

    digest(plan, "def plan(x):\n    return x + 1\n")
    digest(plan, 'def plan(x):\n    """Add one."""\n    return (x + 1)  # one\n')
    digest(page, "print(1)\n")
    digest(plan, "def plan(x):\n    return x + 2\n")
    assert seen[0] == seen[1] == seen[2] != seen[3]
    merging_code.cache_clear()
    assert merging_code(tmp_path / "absent") is None
    assert len(merging_code()) == 16


def test_what_changed_code_drew_is_drawn_anew_but_not_what_never_merged(tmp_path, monkeypatch):
    options = {"methods": ["retom"], "stages": ["screening", "pictures"]}
    run(tmp_path, **options)
    before = contents(tmp_path)
    monkeypatch.setattr("retom.evaluation.contenders.merging_code", lambda: "another")
    run(tmp_path, **options)
    added = contents(tmp_path).keys() - before.keys()
    kinds = sorted({Path(name).name.partition("-")[0] for name in added if name.endswith("json")})
    assert kinds == ["pairs", "screening", "tokens"]
    assert len({Path(name).parent.name for name in added if name.endswith("png")}) == 1


def test_a_fingerprint_does_not_depend_on_bookkeeping():
    pipe, same = sd_pipeline(), sd_pipeline()
    order = pipe.scheduler.config["_use_default_values"]
    pipe.scheduler.register_to_config(_use_default_values=order[::-1], _name_or_path="elsewhere")
    assert fingerprint(pipe) == fingerprint(same)


def test_too_few_real_pictures_are_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "real").mkdir()
    with pytest.raises(ConfigError, match="holds 0 pictures"):
        run(tmp_path, instruments=Instruments(extractor=Brightness(), real=tmp_path / "real"))
    assert os.listdir(tmp_path / "pictures") == []


def test_instruments_that_lack_something_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="need an extractor"):
        Instruments(real=tmp_path)
    with pytest.raises(ConfigError, match="comes with its text encoder"):
        Instruments(extractor=Brightness(), head=object())
