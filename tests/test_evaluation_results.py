"""Estimates over prompts, the Pareto front, picks, token counts, timings: the plain parts."""

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import retom
from retom.errors import ConfigError, MetricError
from retom.evaluation.contenders import Contender
from retom.evaluation.noise import flow_noised, noiser_of
from retom.evaluation.picks import pick
from retom.evaluation.results import Row, difference, over_prompts, pareto
from retom.evaluation.settings import Sample
from retom.evaluation.timing import ratio_estimate
from retom.evaluation.tokens import check_equal, in_all, tokens_in_layers, unequal
from retom.metrics import Estimate, noised


def samples(*groups):
    return [Sample(f"prompt {group}", place, group) for place, group in enumerate(groups)]


def test_seeds_of_a_prompt_are_averaged_before_the_interval():
    # Two prompts with means 1 and 3, however many seeds each has.
    found = over_prompts([0.0, 2.0, 3.0], samples(0, 0, 1), "x")
    assert (found.value, found.low, found.high, found.n) == (2.0, 1.0, 3.0, 2)


def test_a_difference_is_paired():
    found = difference([5.0, 7.0], [4.0, 6.0], samples(0, 1), "x")
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_prompt_has_no_interval():
    with pytest.raises(MetricError):
        over_prompts([1.0, 2.0], samples(0, 0), "x")


def row(name, speed, quality):
    values = {"s": Estimate("s", speed, speed, speed, 2), "q": Estimate("q", quality, 0, 0, 2)}
    return Row(name, name, name, 0.5, "attention", values=values)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    points=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9),
    higher=st.booleans(),
)
def test_the_front_is_what_nothing_beats(points, higher):
    rows = [row(str(place), *point) for place, point in enumerate(points)]
    front = pareto(rows, "s", "q", higher_is_better=higher)
    sign = 1 if higher else -1

    def beats(a, b):
        (s, q), (t, r) = a, b
        return s >= t and sign * q >= sign * r and (s, q) != (t, r)

    kept = {points[int(r.name)] for r in front}
    assert kept == {p for p in points if not any(beats(q, p) for q in points)}
    assert [r.values["s"].value for r in front] == sorted({s for s, _ in kept})


def test_rows_without_a_measure_are_not_on_the_front():
    assert pareto([Row("a", "a", "a")], "s", "q", higher_is_better=True) == []


def contender(method, *, own=False):
    return Contender(method, 0.5, "attention", retom.Config(), own=own)


# By the mean a, b, c, d; by the noisier half d, c, b, a.
ERRORS = {"a": [0.0, 0.4], "b": [0.2, 0.3], "c": [0.4, 0.2], "d": [0.9, 0.1]}


class TestPick:
    def picked(self, best, *always):
        given = [contender(name) for name in ERRORS]
        errors = {f"{k} · 0.5 · attention": v for k, v in ERRORS.items()}
        return [c.method for c in pick(given, errors, best, always)]

    def test_both_rankings_take_turns(self):
        assert self.picked(1) == ["a"]
        assert self.picked(2) == ["a", "d"]
        assert self.picked(3) == ["a", "b", "d"]

    def test_patterns_are_taken_too(self):
        assert self.picked(1, "c*") == ["a", "c"]
        assert self.picked(1, "a") == ["a", "b"]  # beside the best, not among them
        assert self.picked(0, "*") == ["a", "b", "c", "d"]

    def test_a_pattern_without_a_method_is_refused(self):
        with pytest.raises(ConfigError, match="No method fits 'tomesd'; there are a, b, c, d"):
            self.picked(1, "tomesd")

    def test_what_was_not_screened_and_configurations_are_taken(self):
        given = [contender("a"), contender("mine", own=True)]
        assert pick(given, {"mine · 0.5 · attention": [9.0]}, 0) == given


class TestTokens:
    def test_counts_what_enters_each_linear_layer(self):
        net = nn.ModuleDict({"to_q": nn.Linear(2, 2), "time": nn.Linear(2, 2)})

        def call():
            net["to_q"](torch.zeros(1, 6, 2))
            net["to_q"](torch.zeros(1, 3, 2))
            net["time"](torch.zeros(1, 2))

        assert tokens_in_layers(net, call) == {"to_q": [6, 3]}
        assert not net["to_q"]._forward_pre_hooks

    def test_names_the_layers_that_differ(self):
        ours, theirs = {"a": [4], "b": [2]}, {"a": [4], "b": [3], "c": [1]}
        assert unequal(ours, theirs) == ["b", "c"]
        with pytest.raises(
            ConfigError,
            match=r"first and mine compute on different numbers of tokens in b \(\[3\], \[2\]\), c",
        ):
            check_equal("mine", ours, "first", theirs)
        check_equal("mine", ours, "first", dict(ours))


def test_a_ratio_is_the_median_of_ratios_with_its_interval():
    found = ratio_estimate([2.0, 4.0, 1.0], [1.0, 2.0, 2.0], "speed-up")
    assert (found.value, found.low, found.high, found.n) == (2.0, 0.5, 2.0, 3)
    with pytest.raises(MetricError, match="at least 2 rounds"):
        ratio_estimate([1.0], [1.0], "speed-up")


class TestNoise:
    def test_flow_matching_goes_straight_from_picture_to_noise(self):
        x = torch.randn(2, 3, 4, 4)
        assert torch.equal(flow_noised(x, 0, [1, 2]), x)
        noise = flow_noised(x, 1000, [1, 2])
        assert noise.std().item() == pytest.approx(1.0, abs=0.2)
        middle = flow_noised(x, 500, [1, 2]) - 0.5 * x
        again = flow_noised(torch.zeros_like(x), 500, [1, 2])
        torch.testing.assert_close(middle, again)

    def test_the_scheduler_says_which_noise(self):
        diffusers = pytest.importorskip("diffusers")
        x = torch.randn(1, 3, 4, 4)
        ddim = diffusers.DDIMScheduler()
        expected = noised(x, 300, ddim.alphas_cumprod, seeds=[5])
        assert torch.equal(noiser_of(ddim)(x, 300, [5]), expected)
        flow = diffusers.FlowMatchEulerDiscreteScheduler()
        assert torch.equal(noiser_of(flow)(x, 300, [5]), flow_noised(x, 300, [5]))

    def test_other_schedulers_are_refused(self):
        with pytest.raises(MetricError, match="leave the screening out"):
            noiser_of(object())


def test_projections_are_added_up_without_those_of_a_plan():
    seen = {
        "attn.to_q": [6, 6],
        "attn.to_k": [10, 2, 10, 2],
        "attn.to_v": [2, 2],
        "ff.net": [10, 10],
    }
    assert in_all(seen) == {"attn": [10, 10], "ff.net": [10, 10]}


def test_keys_as_the_score_compute_on_as_many_tokens():
    def counted(score):
        unet = tiny.unet(attention=(True, False))
        retom.apply(unet, score=score)
        return in_all(tokens_in_layers(unet, lambda: tiny.call(unet, tiny.inputs(size=(8, 8)))))

    assert counted("keys") == counted("input")
