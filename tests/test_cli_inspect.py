"""``retom inspect`` and ``retom grid``: files, words and refusals."""

from xml.etree import ElementTree

import pytest
from PIL import Image
from tiny import sd_pipeline

from retom.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    sd_pipeline().save_pretrained(path)
    return str(path)


def run(command, folder, output, *more):
    return main([command, "red", "--steps", "2", "--model", folder, "-o", str(output), *more])


@pytest.mark.parametrize(
    ("suffix", "more"), [(".png", ()), (".png", ("--show", "error")), (".svg", ())]
)
def test_one_look_is_saved(folder, tmp_path, capsys, suffix, more):
    output = tmp_path / f"look{suffix}"
    assert run("inspect", folder, output, "--list", "--layer", "0", *more) == 0
    printed = capsys.readouterr().out
    assert "call 1 of 2: 256 tokens to 166" in printed
    assert "  0  down_blocks.0" in printed
    if suffix == ".svg":
        assert ElementTree.parse(output).getroot().tag.endswith("svg")
    else:
        with Image.open(output) as image:
            assert image.width == (192 if more else image.width)
    assert [file.name for file in tmp_path.iterdir()] == [output.name]


def test_an_animation_has_a_frame_for_each_call(folder, tmp_path):
    output = tmp_path / "steps.gif"
    assert run("inspect", folder, output, "--quiet") == 0
    with Image.open(output) as image:
        assert image.n_frames == 2


def test_a_grid_of_methods_ratios_and_seeds(folder, tmp_path):
    output = tmp_path / "grid.png"
    options = "--methods", "retom:reach=0/1", "tome", "--ratios", "0.3", "0.5", "--seeds", "1", "2"
    assert run("grid", folder, output, *options, "--quiet") == 0
    with Image.open(output) as image:
        assert image.width > 7 * 384
        assert image.height > 2 * 384


@pytest.mark.parametrize(
    ("command", "name", "more", "words"),
    [
        ("inspect", "a.jpg", (), "a.jpg does not end in .png or .svg or .gif or .webp"),
        ("inspect", "a.svg", ("--show", "page"), "A page is a PNG"),
        ("inspect", "a.png", ("--layer", "x"), "no merging layer 'x'"),
        ("inspect", "a.png", ("--call", "9"), "call 9 was asked for"),
        ("inspect", "a.png", ("--ratio", "0"), "Nothing merged"),
        ("grid", "a.jpg", (), "does not end in .png"),
        ("grid", "a.png", ("--methods", "tomesd"), "tome is the one closest to tomesd"),
        ("grid", "a.png", ("--methods", "what"), "Unknown method 'what'"),
    ],
)
def test_refusals_leave_no_file(folder, tmp_path, capsys, command, name, more, words):
    assert run(command, folder, tmp_path / name, *more) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
