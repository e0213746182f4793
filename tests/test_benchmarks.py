"""The benchmark scripts run at tiny size and write valid results; their helpers count right."""

# ruff: noqa: E402 - the scripts are no package; their folder goes on the path first

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

tomesd = pytest.importorskip("tomesd")
pytest.importorskip("diffusers")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import generation_speed
import layer_overhead
import measure
import real_weights
import record
import sdxl_coverage
import sources
import variants

import retom
from retom.evaluation.prompts import prompts_of


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def smoke(script, tmp_path, *options):
    file = tmp_path / "results.json"
    argv = ["--smoke", "--json", str(file), *options]
    assert script.main(argv) == 0
    text = file.read_text("utf-8")
    assert str(tmp_path) not in text  # no path of the machine
    return json.loads(text)


# ---- timing and intervals


class TestInterleave:
    def test_every_call_once_a_round_and_the_first_one_rotates(self):
        order = []
        calls = {name: lambda name=name: order.append(name) for name in "abc"}
        measure.interleave(calls, 3, warmup=0)
        assert "".join(order) == "abcbcacab"

    def test_seconds_are_between_two_readings_and_warm_up_is_left_out(self):
        now = [0.0]

        def take(seconds):
            now[0] += seconds

        calls = {"slow": lambda: take(3.0), "fast": lambda: take(1.0)}
        found = measure.interleave(calls, 2, warmup=1, clock=lambda: now[0])
        assert found == {"slow": [3.0, 3.0], "fast": [1.0, 1.0]}
        assert now[0] == 12.0

    def test_it_synchronises_before_each_reading(self):
        log = []
        measure.interleave(
            {"a": lambda: log.append("run")},
            1,
            warmup=0,
            synchronise=lambda: log.append("wait"),
            clock=lambda: log.append("read") or 0.0,
        )
        assert log == ["wait", "read", "run", "wait", "read"]

    def test_milliseconds_are_a_median(self):
        assert measure.milliseconds([0.001, 0.002, 1.0]) == pytest.approx(2.0)

    def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians(self):
        # ratios 2, 2, 0.5: median 2; medians 2 and 2: ratio 1
        assert measure.ratio_of_pairs([2.0, 4.0, 1.0], [1.0, 2.0, 2.0])["value"] == 2.0


class TestBootstrap:
    def test_of_equal_samples_is_a_point(self):
        assert measure.bootstrap([3.0, 3.0, 3.0]) == (3.0, 3.0)

    def test_of_two_samples_covers_both(self):
        # resamples have mean 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4
        assert measure.bootstrap([0.0, 1.0]) == (0.0, 1.0)

    def test_of_many_samples_is_that_of_the_normal_law(self):
        samples = np.random.default_rng(1).standard_normal(400)
        low, high = measure.bootstrap(samples, resamples=4000)
        half = 1.96 * samples.std() / 20
        assert (low, high) == pytest.approx(
            (samples.mean() - half, samples.mean() + half), abs=0.01
        )

    def test_rows_are_drawn_together(self):
        rows = np.stack([np.arange(5.0), np.arange(5.0) + 2], axis=1)
        low, high = measure.bootstrap(rows, lambda r: float(np.mean(r[:, 1] - r[:, 0])))
        assert (low, high) == (2.0, 2.0)

    def test_is_the_same_twice(self):
        samples = [1.0, 5.0, 2.0, 8.0]
        assert measure.bootstrap(samples) == measure.bootstrap(samples)

    def test_interval_names_its_parts(self):
        assert measure.interval([0.0, 1.0]) == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_efficiency_is_the_share_of_what_the_oracle_gains():
    # un-merged 10, method 7, oracle 6: 3 of 4
    rounds = np.array([[10.0, 7.0, 6.0], [10.0, 7.0, 6.0], [10.0, 99.0, 6.0]])
    assert generation_speed.efficiency(rounds[:2]) == 0.75
    assert generation_speed.efficiency(rounds) == 0.75


# ---- provenance and files


class TestRecord:
    def test_command_keeps_no_folder_of_this_machine(self, tmp_path):
        inside = str(record.ROOT / "benchmarks" / "results" / "a.json")
        words = ["--json", inside, "--work", str(tmp_path / "w"), "--variants", "retom/*"]
        assert record.command_line("x", words) == (
            "python benchmarks/x.py --json benchmarks/results/a.json --work '…/w' "
            "--variants 'retom/*'"
        )

    def test_provenance_names_versions_hardware_commit_and_seed(self):
        options = record.parser("").parse_args(["--seed", "7"])
        source = record.provenance(options, ["--seed", "7"], "x")
        assert source["seed"] == 7
        assert source["command"] == "python benchmarks/x.py --seed 7"
        assert source["versions"]["torch"] == torch.__version__
        assert source["versions"]["retom"] == retom.__version__
        assert source["hardware"]["cpu"]
        assert source["hardware"]["threads"] == torch.get_num_threads()
        assert source.keys() >= {"commit", "uncommitted_changes", "time_utc"}
        caption = record.caption(source)
        assert "seed 7" in caption
        assert retom.__version__ in caption

    def test_json_refuses_what_json_cannot_hold_and_leaves_no_half_file(self, tmp_path):
        with pytest.raises(ValueError, match="JSON"):
            record.write_json(tmp_path / "a.json", "x", {}, {"psnr": float("inf")})
        assert list(tmp_path.iterdir()) == []

    def test_table(self):
        assert record.table(["a", "b"], [["x", 1], ["y", 2.5]]) == (
            "| a | b |\n| :-- | --: |\n| x | 1 |\n| y | 2.5 |"
        )

    def test_between(self):
        assert record.between({"value": 1.234, "low": 1.0, "high": 2.0}) == "1.23 [1.00, 2.00]"


# ---- contenders


class TestVariants:
    def test_matrix_is_complete_and_names_are_unique(self):
        names = [variant.name for variant in variants.all_variants()]
        assert len(set(names)) == len(names)
        assert sum(name.startswith("retom/") for name in names) == (3 * 3 + 1) * 2 * 3 * 3 + 2 * 5
        peers = {"tome", "sito", "toma", "sdtm", "importance"}
        assert peers <= {name.split("/")[0] for name in names}
        assert {variants.DEFAULT, variants.TOMESD, "tomesd/corner"} <= set(names)
        assert next(v for v in variants.all_variants() if v.name == variants.DEFAULT).method == (
            retom.ReToM(window=(2, 2), allocation="similarity", reach=1, merge="mean")
        )

    def test_a_glob_without_a_match_is_refused(self):
        with pytest.raises(SystemExit, match="nothing/like/it"):
            variants.select(["retom/*", "nothing/like/it"])

    @pytest.mark.parametrize("name", [variants.TOMESD, variants.DEFAULT])
    def test_merging_leaves_no_trace(self, name):
        unet = sources.random_unet("sd15-narrow")
        given = sources.unet_inputs(unet, batch=2, height=16, width=16)
        before = sources.call(unet, given)
        classes = [type(module) for module in unet.modules()]
        (variant,) = variants.select([name])
        remove = variants.apply(unet, variant, ratio=0.5)
        merged = sources.call(unet, given)
        remove()
        assert not torch.equal(merged, before)
        assert torch.equal(sources.call(unet, given), before)
        assert [type(module) for module in unet.modules()] == classes
        assert not any(hasattr(module, "_tome_info") for module in unet.modules())

    @pytest.mark.parametrize(
        "glob", [f"{variants.DEFAULT}/*", "tome/*", "sito/*", "toma/*", "sdtm/*", "importance/*"]
    )
    def test_options_and_peers_merge_as_many_tokens_as_the_default(self, glob):
        unet = sources.random_unet("sd15-narrow")
        alone = sources.unet_inputs(unet, batch=1, height=8, width=8)
        # Both halves of guidance: importance compares them.
        given = {
            name: torch.cat([value, value]) if value.ndim else value
            for name, value in alone.items()
            if isinstance(value, torch.Tensor)
        }
        counts, outputs = [], []
        for variant in [*variants.select([variants.DEFAULT]), *variants.select([glob])]:
            twin = variants.merged_copy(unet, variant, ratio=0.5)
            call = lambda twin=twin: outputs.append(sources.call(twin, given))  # noqa: E731
            counts.append(variants.tokens_in_self_attention(twin, call))
        assert all(count == counts[0] for count in counts)
        assert not any(torch.equal(output, outputs[0]) for output in outputs[1:])

    def test_tomesd_draws_the_same_every_time_it_is_applied(self):
        unet = sources.random_unet("sd15-narrow")
        given = sources.unet_inputs(unet, batch=2, height=16, width=16)
        (variant,) = variants.select([variants.TOMESD])
        outputs = []
        for noise in range(2):
            torch.manual_seed(noise)
            remove = variants.apply(unet, variant, ratio=0.5, seed=3)
            outputs.append(sources.call(unet, given))
            remove()
        assert torch.equal(*outputs)

    def test_copies_share_weights_and_merge_the_same_layers(self):
        unet = sources.random_unet("sdxl-narrow")
        given = sources.unet_inputs(unet, batch=2, height=16, width=16)
        oracle = variants.Variant("oracle", variants.Oracle())
        counts = []
        for variant in [oracle, *variants.select([variants.TOMESD, variants.DEFAULT])]:
            twin = variants.merged_copy(unet, variant, ratio=0.5)
            pairs = zip(unet.parameters(), twin.parameters(), strict=True)
            assert all(a is b for a, b in pairs)
            call = lambda twin=twin: sources.call(twin, given)  # noqa: E731
            counts.append(variants.tokens_in_self_attention(twin, call))
        assert counts[0] == counts[1] == counts[2]
        assert sorted(set(counts[0].values())) == [16, 32]
        whole = variants.tokens_in_self_attention(unet, lambda: sources.call(unet, given))
        assert sorted(set(whole.values())) == [16, 64]

    @pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
    def test_oracle_slices_and_repeats(self, ratio):
        x = torch.arange(20.0).reshape(1, 20, 1)
        plan = variants.Oracle(ratio=ratio).plan(x, retom.Grid(4, 5))
        kept = 20 - int(20 * ratio)
        assert plan.merge(x).flatten().tolist() == list(range(kept))
        assert plan.unmerge(plan.merge(x)).flatten().tolist() == [i % kept for i in range(20)]


def test_prompts_of_a_model_mix_its_splits(tmp_path):
    splits = {"trained": ["t1", "t2", "t3", "t4"], "held_out": ["h1", "h2"]}
    (tmp_path / "prompts.json").write_text(json.dumps(splits))
    found = prompts_of(tmp_path, None)
    assert sorted(found) == ["h1", "h2", "t1", "t2", "t3", "t4"]
    assert [prompt[0] for prompt in found] == ["t", "h", "t", "h", "t", "t"]
    assert len(prompts_of(None, None)) == 64


# ---- the scripts


def test_layer_overhead(tmp_path, capsys):
    data = smoke(layer_overhead, tmp_path, "--threads", "1")
    (found,) = data["results"].values()
    assert found["methods"].keys() >= {"retom", "retom reach 1", "retom window 4x4", "tomesd"}
    assert found["methods"]["tomesd"]["to tomesd"]["value"] == 1.0
    assert "target" in capsys.readouterr().out


def test_sdxl_coverage(tmp_path, capsys):
    found = smoke(sdxl_coverage, tmp_path)["results"]
    sdxl, sd15 = (found[name]["cases"] for name in ("sdxl-narrow", "sd15-narrow"))
    assert sdxl["tomesd, defaults"]["matchings"] == 0
    assert sdxl["tomesd, defaults"]["layers merged"] == 0
    assert sdxl["tomesd, max_downsample=2"]["matchings"] == 10
    assert sdxl["retom, defaults"]["layers merged"] == 10
    assert sdxl["retom, defaults"]["plans"] == 10
    assert sdxl["retom, defaults"]["by grid"][0] == {
        "tokens before": 64, "tokens after": 32, "layers": 10
    }  # fmt: skip
    assert sd15["tomesd, defaults"]["matchings"] == 5
    assert sd15["retom, defaults"]["layers merged"] == 5
    assert "merges nothing on SDXL" in capsys.readouterr().out


def test_generation_speed_of_a_pipeline(tmp_path):
    data = smoke(generation_speed, tmp_path, "--threads", "1")
    assert len(data["timings"]) == 2
    for found in data["timings"].values():
        assert found.keys() >= {"un-merged", "oracle", variants.DEFAULT, variants.TOMESD}
        assert found["oracle"]["speed-up"]["value"] > 0


def test_generation_speed_of_random_weights(tmp_path):
    data = smoke(generation_speed, tmp_path, "--random-weights", "sd15", "--threads", "1")
    assert data["model"] == "sd15-narrow, random weights"
    assert len(data["timings"]) == 1


@pytest.mark.parametrize("protocol", ["imagenet", "coco"])
def test_real_weights_rehearses_and_continues(protocol, tmp_path, capsys):
    pytest.importorskip("torchmetrics")
    from tiny import sd_pipeline

    sd_pipeline().save_pretrained(tmp_path / "tiny")
    file = tmp_path / "results.json"
    argv = ["--rehearse", "--protocol", protocol, "--model", str(tmp_path / "tiny")]
    argv += ["--work", str(tmp_path / "work"), "--json", str(file), "--methods", "retom", "tomesd"]
    assert real_weights.main(argv) == 0
    data = json.loads(file.read_text("utf-8"))
    assert data["n"] == 4
    assert data["real"] == 8
    assert list(data["rows"]) == [
        "un-merged", "retom · 0.5 · attention", "tomesd · 0.5 · attention"
    ]  # fmt: skip
    for name, row in data["rows"].items():
        assert row["FID"] > 0
        assert 0 <= row["CLIP score"] <= 100
        assert ("PSNR" in row) == (name != "un-merged")
    printed = capsys.readouterr().out
    assert "A rehearsal: random networks, numbers mean nothing." in printed
    assert "| tomesd · 0.5 · attention |" in printed
    assert str(tmp_path) not in printed

    pictures = {p: p.stat().st_mtime_ns for p in (tmp_path / "work" / "pictures").rglob("*.png")}
    assert real_weights.main(argv) == 0
    assert json.loads(file.read_text("utf-8"))["rows"] == data["rows"]
    assert pictures == {p: p.stat().st_mtime_ns for p in pictures}


def test_real_weights_asks_for_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        real_weights.main(["--protocol", "coco"])
    assert "--model, --work, --real, --captions needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script",
    ["layer_overhead", "sdxl_coverage", "generation_speed", "real_weights"],
)
def test_help_says_what_the_numbers_mean(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        sys.modules[script].main(["--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 10
