"""``retom bench`` on a tiny model: its files, its table, and what it refuses."""

import json

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("rich")

from tiny import sd_pipeline

from retom.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    sd_pipeline().save_pretrained(path)
    return path


def test_bench_writes_its_files_and_prints_its_table(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["bench", "--model", str(folder), "-o", str(out), "--rounds", "2", "--methods", "retom"]
    assert main([*words, "--sizes", "64", "64x128"]) == 0
    captured = capsys.readouterr()
    assert "denoiser call, 64x64 px, batch 2" in captured.out
    assert "denoiser call, 64x128 px, batch 2" in captured.out
    assert "oracle · 0.5 · attention" in captured.out
    assert "Timed: the whole denoiser" in captured.out
    assert "px, batch 2 2/2" in captured.err  # a log where stderr is no terminal
    for ending in ("json", "csv", "md", "svg"):
        text = (out / f"bench.{ending}").read_text("utf-8")
        assert text
        assert str(tmp_path) not in text.replace(str(folder), "")
    assert json.loads((out / "bench.json").read_text("utf-8"))["part"] == "denoiser"


def test_scaling_as_json(tmp_path, capsys):
    words = ["bench", "--scaling", "--max-tokens", "2048", "--channels", "8", "--methods", "todo"]
    words += ["--rounds", "2", "-o", str(tmp_path), "--json", "--quiet", "--device", "cpu"]
    status = main(words)
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    data = json.loads(captured.out)
    assert [point["tokens"] for point in data["lines"][0]["points"]] == [1024, 2048]
    assert (tmp_path / "scaling.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "flux-9"], "no configuration of that name is shipped; those are"),
        (["--model", "/nowhere/at/all"], "There is no folder /nowhere/at/all"),
        (["--model", "FOLDER", "--sizes", "33"], "multiples of 8 pixels"),
        (["--model", "FOLDER", "--sizes", "big"], "--sizes: height x width is needed"),
        (["--model", "FOLDER", "--methods", "magic"], "Unknown method 'magic'"),
        (["--model", "FOLDER", "--ratios", "1"], "--ratios: a number above 0 and below 1"),
        (["--model", "FOLDER", "--part", "half"], "--part: invalid choice: 'half'"),
        (["--model", "FOLDER", "-o", "FILE/out"], "cannot hold results"),
        (["--model", "FOLDER", "--device", "tpu"], "The device tpu is not available"),
        (["--model", "FOLDER", "--channels", "8"], "--channels would do nothing"),
        (["--model", "FOLDER", "--steps", "8"], "--steps would do nothing: without --part picture"),
        (["--scaling", "--part", "layer"], "--part would do nothing: --scaling times"),
        (["--scaling", "--methods", "magic"], "Unknown method 'magic'"),
    ],
)
def test_refusals_are_one_sentence(arguments, words, folder, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    given = [a.replace("FOLDER", str(folder)).replace("FILE", str(file)) for a in arguments]
    output = [] if "-o" in given else ["-o", str(tmp_path / "out")]
    assert main(["bench", "--rounds", "2", "--quiet", *given, *output]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert not list((tmp_path / "out").glob("bench*")) if (tmp_path / "out").exists() else True
