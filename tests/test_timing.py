"""Interleaved timing: who runs when, medians of ratios, and efficiency against the oracle."""

import pytest
import torch

from retom.errors import MetricError
from retom.evaluation.timing import (
    efficiency_estimate,
    ratio_estimate,
    resampled_rounds,
)
from retom.rounds import interleave


class TestInterleave:
    def test_every_call_once_a_round_and_the_first_one_rotates(self):
        order, told = [], []
        calls = {name: lambda name=name: order.append(name) for name in "abc"}
        interleave(calls, 3, warmup=0, on_round=told.append)
        assert "".join(order) == "abcbcacab"
        assert told == [1, 2, 3]

    def test_seconds_are_between_two_readings_and_warm_up_is_left_out(self):
        now = [0.0]

        def take(seconds):
            now[0] += seconds

        calls = {"slow": lambda: take(3.0), "fast": lambda: take(1.0)}
        found = interleave(calls, 2, warmup=1, clock=lambda: now[0])
        assert found == {"slow": [3.0, 3.0], "fast": [1.0, 1.0]}
        assert now[0] == 12.0

    def test_it_synchronises_before_each_reading(self):
        log = []
        interleave(
            {"a": lambda: log.append("run")},
            1,
            warmup=0,
            synchronise=lambda: log.append("wait"),
            clock=lambda: log.append("read") or 0.0,
        )
        assert log == ["wait", "read", "run", "wait", "read"]


class TestRatio:
    def test_is_the_median_of_ratios_not_the_ratio_of_medians(self):
        # ratios 2, 2, 0.5: median 2; medians 2 and 2: ratio 1
        assert ratio_estimate([2.0, 4.0, 1.0], [1.0, 2.0, 2.0], "x").value == 2.0

    def test_of_equal_rounds_is_a_point_and_of_two_covers_both(self):
        found = ratio_estimate([3.0, 6.0], [1.0, 2.0], "x")
        assert (found.low, found.value, found.high) == (3.0, 3.0, 3.0)
        found = ratio_estimate([1.0, 3.0], [1.0, 1.0], "x")
        assert (found.low, found.value, found.high) == (1.0, 2.0, 3.0)

    def test_is_the_same_twice(self):
        one, other = [1.0, 5.0, 2.0, 8.0], [1.0, 2.0, 3.0, 4.0]
        assert ratio_estimate(one, other, "x") == ratio_estimate(one, other, "x")

    def test_of_one_round_is_refused(self):
        with pytest.raises(MetricError, match="at least 2 rounds"):
            ratio_estimate([1.0], [1.0], "x")


class TestEfficiency:
    def test_is_the_share_of_what_the_oracle_gains_of_medians(self):
        # un-merged 10, method 7, oracle 6: 3 of 4; one bad round of three does not move medians
        assert efficiency_estimate([10.0] * 3, [7.0, 7.0, 99.0], [6.0] * 3).value == 0.75

    def test_rounds_are_drawn_together(self):
        # a slow round is slow for all: every resample says 3/4
        found = efficiency_estimate([10.0, 20.0], [7.0, 14.0], [6.0, 12.0])
        assert (found.low, found.high) == (0.75, 0.75)

    def test_of_an_oracle_that_gains_nothing_is_none(self):
        assert efficiency_estimate([1.0, 1.0], [1.0, 1.0], [0.995, 0.995]) is None
        assert efficiency_estimate([1.0, 1.0], [1.0, 1.0], [0.98, 0.98]).value == 0.0

    def test_may_be_negative_and_above_one(self):
        assert efficiency_estimate([10.0] * 2, [12.0] * 2, [6.0] * 2).value == -0.5
        assert efficiency_estimate([10.0] * 2, [4.0] * 2, [6.0] * 2).value == 1.5


def test_resamples_draw_as_many_rounds_as_there_are():
    draws = resampled_rounds(5, 100, seed=0)
    assert draws.shape == (100, 5)
    assert sorted(set(draws.flatten().tolist())) == [0, 1, 2, 3, 4]
    assert not torch.equal(draws, torch.arange(5).expand(100, -1))
