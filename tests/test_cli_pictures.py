"""The comparison sheet and the PNG file."""

import errno
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from retom import OutputError
from retom.drawing.files import check_output
from retom.drawing.png import read_record, save_png
from retom.drawing.sheet import Panel, difference_map, sheet

RECORD = {"prompt": "ein Äpfel 🍎", "environment": {"retom": "0"}, "nested": {"list": [1, None]}}


def noise(height=40, width=60, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@contextmanager
def files_of_at_most(size):
    """A disk that is full after ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_saved_picture_holds_its_pixels_and_its_record(tmp_path):
    path = tmp_path / "a.PNG"
    save_png(noise(), path, RECORD)
    assert read_record(path) == RECORD
    with Image.open(path) as image:
        assert image.tobytes() == noise().tobytes()
        assert image.info["Description"] == RECORD["prompt"]
        assert image.info["Software"] == "retom 0"
    assert [file.name for file in tmp_path.iterdir()] == ["a.PNG"]


def test_a_picture_replaces_another_and_follows_a_link(tmp_path):
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    save_png(noise(seed=1), real, RECORD)
    link.symlink_to(real)
    save_png(noise(seed=2), link, RECORD)
    assert link.is_symlink()
    with Image.open(real) as image:
        assert image.tobytes() == noise(seed=2).tobytes()


def test_a_full_disk_leaves_no_half_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with files_of_at_most(2000), pytest.raises(OutputError, match=r"a\.png cannot be written") as e:
        save_png(noise(200, 200), path, RECORD)
    assert e.value.__cause__.errno == errno.EFBIG
    assert path.read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_file_without_a_record(tmp_path):
    noise().save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("plain.png", "text.png", "missing.png"):
        with pytest.raises(OutputError, match="not a picture that retom saved"):
            read_record(tmp_path / name)


def test_checking_an_output_changes_nothing(tmp_path):
    path = tmp_path / "a.png"
    check_output(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"precious")
    check_output(path)
    assert path.read_bytes() == b"precious"


def test_the_difference_map_runs_from_black_to_pale_yellow():
    grey = Image.new("RGB", (2, 1), (100, 100, 100))
    other = Image.new("RGB", (2, 1), (100, 100, 100))
    other.putpixel((1, 0), (200, 200, 200))
    drawn = difference_map(other, grey)
    assert drawn.getpixel((0, 0)) == (0, 0, 4)
    assert drawn.getpixel((1, 0)) == (252, 253, 191)  # amplified beyond 255
    # A quarter of full brightness is the third of nine colours.
    other.putpixel((1, 0), (116, 116, 116))
    quarter = difference_map(other, grey, gain=4).getpixel((1, 0))
    assert np.allclose(quarter, (0x51, 0x12, 0x7C), atol=1)
    assert difference_map(other, grey).tobytes() == difference_map(grey, other).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (192, 192), (512, 384)])
@pytest.mark.parametrize("words", [1, 200])
def test_nothing_of_a_sheet_touches_its_edge(size, words):
    panels = [Panel(noise(*size, seed=n), "label " * words, "detail " * words) for n in range(3)]
    page = sheet(panels, title="prompt " * words, caption="settings " * words)
    values = np.asarray(page)
    paper = values[0, 0]
    edge = 20
    for strip in (values[:edge], values[-edge:], values[:, :edge], values[:, -edge:]):
        assert (strip == paper).all()
    scale = -(-384 // min(size)) if min(size) < 384 else 1
    assert page.width > 3 * size[1] * scale


def test_letters_that_no_line_can_hold_are_broken():
    panels = [Panel(noise(), "a", "b")] * 3
    short, long = (sheet(panels, title="w" * count, caption="") for count in (10, 1000))
    assert short.width == long.width
    assert long.height > short.height
