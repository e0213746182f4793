"""The benchmark scripts run at tiny size and write valid results; their helpers count right."""

# ruff: noqa: E402 - the scripts are no package; their folder goes on the path first

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

tomesd = pytest.importorskip("tomesd")
pytest.importorskip("diffusers")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import hook_overhead
import real_weights
import record
import sdxl_coverage
import tiny
import tiny_transformers

import retom
from retom.evaluation.prompts import prompts_of
from retom.evaluation.settings import Settings
from retom.models import layout_of


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


# ---- provenance and files


class TestRecord:
    def test_command_keeps_no_folder_of_this_machine(self, tmp_path):
        inside = "benchmarks/results/a.json"
        words = ["--json", inside, "--work", str(tmp_path / "w"), "--variants", "retom/*"]
        assert record.provenance(record.parser("").parse_args([]), words, "x")["command"] == (
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


def test_prompts_of_a_model_mix_its_splits(tmp_path):
    splits = {"trained": ["t1", "t2", "t3", "t4"], "held_out": ["h1", "h2"]}
    (tmp_path / "prompts.json").write_text(json.dumps(splits))
    found = prompts_of(tmp_path, None)
    assert sorted(found) == ["h1", "h2", "t1", "t2", "t3", "t4"]
    assert [prompt[0] for prompt in found] == ["t", "h", "t", "h", "t", "t"]
    assert len(prompts_of(None, None)) == 64


# ---- the scripts


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


def test_hook_overhead(tmp_path, capsys):
    found = smoke(hook_overhead, tmp_path)["results"]
    assert {name: model["sites"] for name, model in found.items()} == {
        "UNet of SDXL's structure": 70, "Flux": 12
    }  # fmt: skip
    rows = found["Flux"]["rows"]
    assert rows["un-merged"]["microseconds"] == 0
    assert rows["the defaults"]["microseconds"] > rows["hooked, ratio 0"]["microseconds"]
    assert "| the defaults |" in capsys.readouterr().out


def rehearse(tmp_path, *words):
    """Rehearse on a model that lies in ``tmp_path / "tiny"``, and read the result."""
    argv = ["--rehearse", "--model", str(tmp_path / "tiny"), "--work", str(tmp_path / "work")]
    file = tmp_path / "results.json"
    assert real_weights.main([*argv, "--json", str(file), *words]) == 0
    return json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("protocol", ["imagenet", "coco"])
def test_real_weights_rehearses_and_continues(protocol, tmp_path, capsys):
    from tiny import sd_pipeline

    sd_pipeline().save_pretrained(tmp_path / "tiny")
    words = ["--protocol", protocol, "--methods", "retom", "tomesd"]
    data = rehearse(tmp_path, *words)
    assert data["n"] == 4
    assert data["real"] == 16
    assert data["baseline"] == "tomesd"
    retom_row, tomesd_row = "retom · 0.5 · attention", "tomesd · 0.5 · attention"
    rows = data["rows"]
    assert list(rows) == ["un-merged", "un-merged, another seed", retom_row, tomesd_row]
    for name, row in rows.items():
        assert row["FID"]["value"] > 0
        assert row["FID"]["low"] <= row["FID"]["value"] <= row["FID"]["high"]
        assert 0 <= row["CLIP score"]["value"] <= 100
        assert ("PSNR" in row) == ("FID minus un-merged" in row) == (name != "un-merged")
        assert ("FID minus baseline" in row) == (name == retom_row)
    for measure in ("FID", "CLIP score"):
        minus = rows[retom_row][measure]["value"] - rows[tomesd_row][measure]["value"]
        found = rows[retom_row][f"{measure} minus baseline"]["value"]
        assert found == pytest.approx(minus, rel=1e-5, abs=1e-5)
    # Intervals are over prompts, of which imagenet draws each twice; another seed is another one.
    assert rows["un-merged"]["CLIP score"]["n"] == {"imagenet": 2, "coco": 4}[protocol]
    assert rows["un-merged, another seed"]["PSNR"]["value"] < rows[retom_row]["PSNR"]["value"]
    printed = capsys.readouterr().out
    assert "A rehearsal: random networks, numbers mean nothing." in printed
    assert f"| {tomesd_row} |" in printed
    assert "| FID minus tomesd |" in printed
    assert str(tmp_path) not in printed

    kept = {
        path: path.stat().st_mtime_ns
        for folder in ("records", "tensors", "pictures")
        for path in (tmp_path / "work" / folder).rglob("*")
    }
    assert rehearse(tmp_path, *words)["rows"] == rows
    assert kept == {p: p.stat().st_mtime_ns for p in kept}


@pytest.mark.parametrize("preset", ["sdxl", "flux"])
def test_real_weights_rehearses_on_the_other_models(preset, tmp_path):
    if preset == "flux" and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("T5's tokenizer without a vocabulary file came with transformers 5")
    from tiny import sdxl_pipeline
    from tiny_flux import flux_pipeline

    {"sdxl": sdxl_pipeline, "flux": flux_pipeline}[preset]().save_pretrained(tmp_path / "tiny")
    data = rehearse(tmp_path, "--preset", preset, "--protocol", "coco")
    merged = {"sdxl": ["retom · 0.5 · attention", "tomesd · 0.5 · attention"],
              "flux": ["retom · 0.5 · block"]}[preset]  # fmt: skip
    assert list(data["rows"])[2:] == merged
    assert all(0 < data["rows"][name]["PSNR"]["value"] < 100 for name in merged)


def test_real_weights_refuses_a_method_before_it_reads_any_picture(tmp_path):
    from tiny import sd_pipeline

    sd_pipeline().save_pretrained(tmp_path / "tiny")
    with pytest.raises(SystemExit, match="retomm"):
        rehearse(tmp_path, "--methods", "retomm")
    assert not list((tmp_path / "work").rglob("*.safetensors"))


def test_real_weights_rehearses_without_tomesd(monkeypatch):
    monkeypatch.setattr(real_weights, "tomesd_installed", lambda: False)
    settings = Settings(prompts=("a", "b"), ratios=(0.5,))
    _, *merged = real_weights.lineup(None, settings, ("attention",))
    assert [c.method for c in merged] == ["retom"]


def test_real_weights_asks_for_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        real_weights.main(["--protocol", "coco"])
    assert "--model, --work, --real, --captions needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "scope", "methods"),
    [("flux", "block", ["retom"]), ("unet", "attention", ["retom", "tomesd"])],
)
def test_real_weights_merges_in_the_scope_of_its_model(name, scope, methods):
    model = tiny.unet() if name == "unet" else tiny_transformers.FAMILIES[name].build()
    settings = Settings(prompts=("a", "b"), ratios=(0.5,))
    unmerged, *merged = real_weights.lineup(None, settings, layout_of(model).scopes)
    assert unmerged is None
    assert [(c.method, c.scope) for c in merged] == [(method, scope) for method in methods]
    retom.apply(model, merged[0].merging)


def test_real_weights_says_what_is_wrong_with_a_file(tmp_path):
    options = real_weights.arguments(["--rehearse", "--work", str(tmp_path)])
    options.classes = tmp_path / "missing.txt"
    with pytest.raises(SystemExit, match=r"missing.txt cannot be read as text"):
        real_weights.prompts_of(options)
    options.classes = tmp_path / "captions.json"
    options.classes.write_text('{"pictures": []}')
    with pytest.raises(SystemExit, match=r"captions.json is not what COCO has"):
        real_weights.prompts_of(options)


@pytest.mark.parametrize(
    "script",
    ["sdxl_coverage", "real_weights", "hook_overhead"],
)
def test_help_says_what_the_numbers_mean(script, capsys):
    with pytest.raises(SystemExit) as stopped:
        sys.modules[script].main(["--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 10
