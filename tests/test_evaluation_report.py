"""The report is one valid HTML file that needs nothing from elsewhere, and says what was found."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retom.evaluation.report import page, write_report
from retom.evaluation.report.axes import Axis, Frame
from retom.evaluation.report.gallery import _spread
from retom.evaluation.results import FLOOR, UNMERGED, Results, Row, SampleValue
from retom.evaluation.settings import Sample
from retom.evaluation.tables import markdown
from retom.metrics import Estimate

VOID = {"meta", "img", "wbr", "br", "circle", "line", "polyline", "link"}
HOSTILE = '<script>alert("x")</script> & "red"'


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.texts, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def estimate(value, spread=0.5):
    return Estimate("x", value, value - spread, value + spread, 4)


def contender(method, ratio, psnr, speed):
    row = Row(f"{method} · {ratio:g} · attention", method, method, ratio, "attention")
    row.values = {
        "speedup": estimate(speed, 0.01),
        "error": estimate(0.1, 0.01),
        "psnr": estimate(psnr),
    }
    row.by_level = [0.1, 0.2]
    return row


@pytest.fixture
def results(tmp_path):
    """Two ratios of two methods, with pictures of two prompts, one of them hostile."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "picture.png"
    image.new("RGB", (20, 16), (200, 30, 60)).save(path)
    rows = [
        contender(method, ratio, psnr, speed)
        for ratio in (0.3, 0.5)
        for method, psnr, speed in (("retom", 30 - ratio, 1.2 + ratio), ("tome", 27.0, 1.1))
    ]
    for row in rows[::2]:
        row.differences = {"psnr": estimate(3.0, 1.0), "error": estimate(0.0, 1.0)}
    unmerged, floor = Row(UNMERGED, UNMERGED, UNMERGED), Row(FLOOR, FLOOR, UNMERGED)
    floor.values["psnr"] = estimate(13.0)
    samples = [Sample(HOSTILE, 0, 0), Sample("blue", 1, 1)]
    for row in (*rows, unmerged, floor):
        row.pictures = [str(path)] * 2
    source = {
        "command": "retom eval --methods retom tome",
        "time_utc": "2026-01-01T00:00:00+00:00",
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "versions": {"retom": "0.1.0", "tomesd": None},
        "hardware": {
            "cpu": "A processor", "cores": 2, "threads": 1, "device": "cpu",
            "load_average_at_start": 0.5,
        },
    }  # fmt: skip
    return Results(
        rows=[*rows, unmerged, floor],
        model="tiny",
        content={
            "model": "abc", "steps": 2, "guidance": 4.0, "height": 16, "width": 20,
            "dtype": "float32", "device": "cpu",
        },
        settings={"prompts": [HOSTILE, "blue"], "seeds": [0], "levels": [0]},
        samples=samples,
        timesteps=[250, 750],
        baseline="tome",
        left_out={"retom:window=1x2 · 0.75 · attention": "ratio 0.75 is out of reach."},
        notes=["2 prompts are few."],
        floors={},
        sample_values=[SampleValue(rows[0].name, "psnr", "blue", 1, None, 31.4)],
        sources=[source, source],
        extractor="EfficientNet-Lite0",
    )  # fmt: skip


def test_is_valid_html_whose_charts_are_valid_xml(results):
    text = page(results)
    assert text.startswith("<!doctype html>")
    found = Page(text)
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        ET.fromstring(chart)
    assert found.tags.count("h1") == 1


def test_needs_nothing_from_elsewhere(results):
    text = page(results)
    for tag, name, value in Page(text).attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith("data:"), (tag, name)
    outside = re.findall(r"(?:https?:)?//\w+[^\s\"']*", re.sub(r"base64,[\w+/=]+", "", text))
    assert outside == []
    assert "@import" not in text
    assert re.findall(r"url\((?!'data:)", text) == []
    assert "default-src 'none'" in text


def test_what_users_wrote_is_text_and_no_markup(results):
    text = page(results)
    found = Page(text)
    assert found.tags.count("script") == 1
    assert any(HOSTILE in piece for piece in found.texts)


def test_says_where_numbers_come_from(results):
    text = " ".join(Page(page(results)).texts)
    for words in (
        "retom eval --methods retom tome", "0123456789ab", "A processor", "retom 0.1.0",
        "2 prompts are few.", "out of reach", "EfficientNet-Lite0", "1 earlier run",
        "2026-01-01T00:00:00+00:00", "95 % bootstrap intervals",
    ):  # fmt: skip
        assert words in text, words


def test_the_finding_is_the_closest_and_says_how_sure_it_is(results):
    text = page(results)
    card = text[text.index('class="card"') : text.index("</article>")]
    assert "29.70 dB" in card
    assert "<code>retom</code> is closest to un-merged of 2" in card
    assert "PSNR (dB) minus tome: +3.00 [+2.00, +4.00]." in card
    results.rows[0].differences["psnr"] = estimate(0.1, 1.0)
    text = page(results)
    assert "no difference shown" in text[: text.index("</article>")]


def test_differences_are_coloured_where_their_interval_misses_zero(results):
    text = page(results)
    assert '<td class="other good" data-value="3.0">' in text
    assert '<td class="other" data-value="0.0">' in text


def test_pictures_are_inside_once_a_cell(results):
    text = page(results)
    # Two prompts: the un-merged one, two of each ratio, another seed; and once a row to flip to.
    assert text.count("data:image/webp;base64,") == 2 * (6 + 1)
    assert "31.4" in text


def test_without_pictures_and_timings_the_rest_is_there(results):
    for row in results.rows:
        row.pictures = []
        row.values.pop("psnr", None)
        row.values.pop("speedup", None)
    results.rows = results.rows[:4]
    text = page(results)
    Page(text)
    assert "least in denoiser error of 2" in text
    assert "data:image" not in text
    assert text.count("<svg") == 1  # by noise level


def test_nothing_measured_is_still_a_page(results):
    for row in results.rows:
        row.values, row.by_level, row.pictures, row.differences = {}, [], [], {}
    Page(page(results))
    markdown(results)


def test_is_written_whole(results, tmp_path):
    path = write_report(results, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page(results)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6),
    st.floats(1e-3, 1e3),
)
def test_axes_hold_their_values_between_a_few_round_ticks(values, scale):
    values = [round(value, 3) * scale for value in values]
    axis = Axis.around(values, "x")
    assert axis.low < min(values) <= max(values) < axis.high
    assert 1 <= len(axis.ticks) <= 8
    frame = Frame(axis, axis)
    for value in values:
        x, y = frame.place(value, value)
        assert Frame.LEFT <= x <= Frame.WIDTH - Frame.RIGHT
        assert Frame.TOP <= y <= Frame.HEIGHT - Frame.BOTTOM


def test_ticks_are_written_with_the_digits_they_need():
    axis = Axis.around([0.0, 0.25], "x")
    assert [axis.text(tick) for tick in axis.ticks] == [
        "0.00",
        "0.05",
        "0.10",
        "0.15",
        "0.20",
        "0.25",
    ]
    assert Axis.around([0.0, 1000.0], "x").text(200.0) == "200"


def test_rows_of_the_gallery_are_spread_evenly():
    assert _spread(3, 8) == [0, 1, 2]
    assert _spread(64, 4) == [0, 16, 32, 48]
