"""How plan, merge and un-merge grow: the slope, the grids, and who stops early."""

import json

import pytest

pytest.importorskip("diffusers")

import torch

import retom
from retom.benchmarking import scaling
from retom.benchmarking.files import write_files
from retom.benchmarking.scaling import grid_of, scale, slope_of
from retom.benchmarking.scaling_result import ScalingSettings
from retom.plan import Plan


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_of_a_power_law_is_its_power(power):
    times = {n: [3e-6 * n**power] * 2 for n in (1024, 2048, 8192)}
    found = slope_of(times, 0)
    assert (found.low, found.value, found.high) == pytest.approx((power,) * 3)


def test_slope_has_an_interval_over_rounds():
    times = {1024: [1.0, 1.0, 1.0], 2048: [2.0, 1.9, 2.2], 4096: [4.0, 4.4, 3.8]}
    found = slope_of(times, 0)
    assert found.low < found.value < found.high
    assert slope_of({1024: [1.0, 1.0]}, 0) is None


def test_grids_have_as_many_tokens_as_asked():
    for power in range(10, 19):
        grid = grid_of(2**power)
        assert grid.num_tokens == 2**power
        assert grid.width in (grid.height, 2 * grid.height)


def test_a_run_has_all_sizes_and_says_who_stops_early(monkeypatch, tmp_path):
    pytest.importorskip("tomesd")
    monkeypatch.setattr(scaling, "available_bytes", lambda _: 8 * 2**20)
    settings = ScalingSettings(
        methods=["retom:reach=0", "todo", "tomesd"], most_tokens=4096, channels=8, rounds=2
    )
    found = scale(settings, device="cpu")
    own, todo, tomesd = found.lines
    assert [point.tokens for point in own.points] == [1024, 2048, 4096]
    assert [point.tokens for point in todo.points] == [1024, 2048, 4096]
    # 2 x 3/4 N x 1/4 N x 4 bytes are 1.5 MiB at 1024 tokens and 6 MiB, over half of 8, at 2048
    assert [point.tokens for point in tomesd.points] == [1024]
    assert "stops before 2048 tokens" in tomesd.note
    assert "8.0 GiB" not in tomesd.note
    assert own.note == ""
    assert own.slope is not None
    assert own.slope_large is None
    assert tomesd.slope is None
    paths = write_files(found, tmp_path)
    assert [path.name for path in paths] == [f"scaling.{e}" for e in ("json", "csv", "md", "svg")]
    data = json.loads(paths[0].read_text("utf-8"))
    assert data["lines"][0]["points"][2]["tokens"] == 4096
    assert len(paths[1].read_text("utf-8").splitlines()) == 1 + 3 + 3 + 1
    assert "tomesd: stops before" in paths[2].read_text("utf-8")
    assert "4096" in paths[3].read_text("utf-8")


def test_keys_that_merge_apart_are_merged_and_timed(monkeypatch):
    merged = []
    merge = Plan.merge
    monkeypatch.setattr(Plan, "merge", lambda plan, x: merged.append(plan) or merge(plan, x))
    x = torch.randn(1, 64, 8)
    settings = ScalingSettings(most_tokens=2048, rounds=2)
    for kv_lean, merges in ((0.6, 2), (0.0, 1)):
        merged.clear()
        method = retom.Config(method=retom.ReToM(kv_lean=kv_lean))
        scaling._call(method, x, retom.Grid(8, 8), settings)()
        assert len(merged) == merges


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"most_tokens": 1024}, "most_tokens is a whole number of at least 2048"),
        ({"ratio": 1.0}, "ratio is above 0 and below 1"),
        ({"rounds": 1}, "rounds is a whole number of at least 2"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(retom.ConfigError, match=words):
        ScalingSettings(**options)
