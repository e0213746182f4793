"""Steps cut into plateaus, candidates, costs from rounds, and choices as a configuration."""

import math
from itertools import pairwise

import pytest

pytest.importorskip("diffusers")

import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import retom
from retom import Config, Grid, ReToM
from retom.errors import ConfigError
from retom.evaluation.steps import Steps
from retom.models import layout_of
from retom.tuning.between import dense
from retom.tuning.candidates import candidates_of, families
from retom.tuning.choosing import Chooser
from retom.tuning.costs import Costs
from retom.tuning.plateaus import Plateau, plateaus
from retom.tuning.schedule import Cell, alone, cells_of, schedule
from retom.tuning.settings import Settings
from retom.tuning.uniform import _between
from retom.tuning.work import Work

PROMPTS = [f"prompt {number}" for number in range(12)]
GRIDS = {0: Grid(16, 16), 1: Grid(8, 8), 2: Grid(4, 4)}
STEPS = Steps((0.999, 0.874, 0.749, 0.624, 0.499, 0.374, 0.249, 0.124), 2, GRIDS)
PLATEAUS = plateaus(STEPS.noise, 4, 1000)


def settings_of(**options):
    return Settings(**{"prompts": PROMPTS, "target_speedup": 1.2, **options})


def candidates(**options):
    return candidates_of(settings_of(**options), layout_of(tiny.unet()), GRIDS)


class TestPlateaus:
    def test_as_many_steps_in_each_and_edges_between_steps(self):
        assert (
            Plateau((0.8115, 1.0), 2, (874, 999)),
            Plateau((0.5615, 0.8115), 2, (624, 749)),
            Plateau((0.3115, 0.5615), 2, (374, 499)),
            Plateau((0.0, 0.3115), 2, (124, 249)),
        ) == PLATEAUS

    def test_a_step_of_two_calls_is_one_step(self):
        calls = (0.9, 0.9, 0.5, 0.5, 0.1, 0.1)
        assert [p.calls for p in plateaus(calls, 3, 1000)] == [2, 2, 2]
        assert [p.calls for p in plateaus(calls, 2, 1000)] == [4, 2]

    def test_there_are_no_more_than_steps(self):
        found = plateaus((0.9, 0.4), 4, 1000)
        assert [p.noise for p in found] == [(0.65, 1.0), (0.0, 0.65)]

    def test_pure_noise_stays_inside_of_the_schedule(self):
        assert plateaus((1.0,), 1, 1000)[0].timesteps == (999,)

    @given(st.integers(1, 30), st.integers(1, 8))
    @settings(max_examples=60, deadline=None)
    def test_every_call_is_in_one_of_them(self, steps, count):
        noise = tuple(round((i + 1) / steps, 6) for i in range(steps))
        found = plateaus(noise, count, 1000)
        assert sum(p.calls for p in found) == steps
        assert max(p.calls for p in found) - min(p.calls for p in found) <= 1
        for level in noise:
            assert sum(p.noise[0] <= level <= p.noise[1] for p in found) == 1
        assert all(a.noise[0] == b.noise[1] for a, b in pairwise(found))


class TestCandidates:
    def test_levels_that_cannot_reach_a_ratio_are_left_out_with_the_reason(self):
        found, left_out = candidates(methods=["retom:window=2x2"], ratios=[0.5, 0.85])
        assert [c.name for c in found] == ["retom:window=2x2 · 0.5"]
        assert found[0].levels == (0, 1, 2)
        reason = left_out["retom:window=2x2 · 0.85 on level 1"]
        assert "windows of 2x2 can give up" in reason

    def test_of_levels_that_are_asked_for_alone(self):
        found, _ = candidates(methods=["retom"], ratios=[0.5], levels=(1,))
        assert found[0].config.levels == (1,)

    def test_what_holds_for_a_whole_configuration_makes_families(self):
        specs = ["retom", "retom:reach=0", "tome", "retom:share=level", "tome:size_weighted=true"]
        found, _ = candidates(methods=specs, ratios=[0.5])
        # tome does without weights by size, unless it is told to: then it could stand beside retom,
        # were it not for the option itself.
        assert [[c.spec for c in family] for family in families(found)] == [
            ["retom", "retom:reach=0"], ["tome"], ["retom:share=level"], ["tome:size_weighted=true"]
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("retom:refresh=4", "retom:refresh=4 depends on earlier calls"),
            ("retom:noise=0.2+1", "that is what tuning finds out"),
            ("retom:alternate=true", "depends on earlier calls"),
            ("importance", "depends on earlier calls"),
            ("magic", "Unknown method 'magic'"),
        ],
    )
    def test_what_cannot_be_scheduled(self, spec, words):
        with pytest.raises(ConfigError, match=words):
            candidates(methods=[spec])

    def test_nobody_is_left(self):
        with pytest.raises(ConfigError, match="No candidate can merge on this model at this size"):
            candidates(methods=["retom:window=2x2"], ratios=[0.95])

    def test_a_level_that_does_not_exist(self):
        with pytest.raises(ConfigError, match="level 7 was given"):
            candidates(levels=(0, 7))


class TestSchedule:
    CANDIDATES, _ = candidates(methods=["retom", "retom:reach=0"], ratios=[0.3, 0.5])
    CELLS = cells_of((0, 1, 2), len(PLATEAUS))

    @given(st.lists(st.integers(-1, 3), min_size=12, max_size=12).filter(lambda x: max(x) >= 0))
    @settings(max_examples=100, deadline=None)
    def test_every_cell_merges_as_chosen_also_from_a_file(self, picks):
        chosen = {
            cell: None if pick < 0 else self.CANDIDATES[pick]
            for cell, pick in zip(self.CELLS, picks, strict=True)
        }
        config = schedule(chosen, PLATEAUS)
        again = Config.from_dict(config.to_dict())
        assert again == config
        for noise in STEPS.noise:
            place = next(i for i, p in enumerate(PLATEAUS) if p.noise[0] <= noise <= p.noise[1])
            for level in (0, 1, 2):
                candidate = chosen[Cell(level, place)]
                expected = None if candidate is None else candidate.method
                assert again.method_at(level, noise) == expected

    def test_the_same_everywhere_needs_no_rules(self):
        chosen = dict.fromkeys(self.CELLS, self.CANDIDATES[1])
        config = schedule(chosen, PLATEAUS)
        assert config == Config(method=ReToM(ratio=0.5), levels=(0, 1, 2), scope="attention")
        assert not config.needs_timestep

    def test_equal_neighbours_become_one_rule(self):
        low, high = self.CANDIDATES[:2]
        chosen = dict(zip(cells_of((0,), 4), [high, high, high, low], strict=True))
        assert schedule(chosen, PLATEAUS).rules == (
            retom.Rule(method=low.method, levels=(0,), noise=(0.0, 0.3115)),
        )
        chosen = dict(zip(cells_of((0,), 4), [None, None, high, high], strict=True))
        assert schedule(chosen, PLATEAUS).rules == (
            retom.Rule(method=None, levels=(0,), noise=(0.5615, 1.0)),
        )

    def test_alone(self):
        config = alone(self.CANDIDATES[0], Cell(1, 2), PLATEAUS)
        merging = {
            (level, noise)
            for level in (0, 1, 2)
            for noise in STEPS.noise
            if config.method_at(level, noise) is not None
        }
        assert merging == {(1, 0.499), (1, 0.374)}

    def test_a_model_takes_it(self):
        model, arguments = tiny.unet(), tiny.inputs(size=(16, 16))
        chosen = dict.fromkeys(self.CELLS) | {Cell(0, 1): self.CANDIDATES[1]}
        with retom.applied(model, schedule(chosen, PLATEAUS)) as handle:
            for timestep, kept in ((999, 256), (749, 128), (374, 256)):
                with tiny.tokens_seen(model) as seen:
                    tiny.call(model, {**arguments, "timestep": timestep})
                assert max(counts[0] for counts in seen.values()) == kept
            assert handle.config.rules


class TestCosts:
    def test_savings_are_medians_of_differences_within_a_round(self):
        def entry(call, *levels):
            return {"call": call, "levels": {str(i): value for i, value in enumerate(levels)}}

        # A slow second round is slow for both: saved are 2, 3, 2 on level 0.
        rounds = [
            {"un-merged": entry(10.0, 5.0, 2.0), "a": entry(8.0, 3.0, 2.5)},
            {"un-merged": entry(20.0, 9.0, 3.0), "a": entry(17.0, 6.0, 3.5)},
            {"un-merged": entry(11.0, 5.5, 2.1), "a": entry(9.0, 3.5, 2.6)},
        ]
        costs = Costs.of(rounds)
        assert costs.call == 11.0
        assert costs.levels == {0: 5.5, 1: 2.1}
        assert costs.merged == {"a": {0: pytest.approx(3.5), 1: pytest.approx(2.6)}}

    def test_between_measured_ratios_is_a_line(self):
        points = [(0.0, 10.0), (0.5, 6.0), (0.7, 5.0)]
        assert [_between(points, at) for at in (0.0, 0.25, 0.5, 0.6, 0.7)] == pytest.approx(
            [10.0, 8.0, 6.0, 5.5, 5.0]
        )
        with pytest.raises(ConfigError, match=r"nothing measured at 0.8, beyond 0.7"):
            _between(points, 0.8)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"target_speedup": None}, "Tuning has one target.*neither was given"),
            ({"target_psnr": 30.0}, "both were given"),
            ({"target_speedup": 1.0}, "target_speedup is a number above 1; 1.0 was given"),
            ({"target_speedup": None, "target_psnr": 70}, "above 0 and below 60"),
            ({"plateaus": 0}, "plateaus is a whole number of at least 1; 0"),
            ({"rounds": 2}, "rounds is a whole number of at least 3; 2"),
            ({"tuning": 8}, "judging 8 others, 16 in all; 12 different ones were given"),
            ({"batch": 3}, "batch is even"),
            ({"methods": []}, "methods are at least one and each once"),
            ({"scope": "everything"}, "scope"),
            ({"ratios": (1.5,)}, "ratios are above 0 and below 1"),
        ],
    )
    def test_what_is_refused(self, options, words):
        with pytest.raises(ConfigError, match=words):
            settings_of(**options)

    def test_nobody_is_judged_on_what_was_tuned_on(self):
        made = settings_of()
        assert made.measured.prompts == tuple(PROMPTS[:4])
        assert made.judged == tuple(PROMPTS[4:])


class TestBetween:
    def test_ratios_between_measured_ones_lie_on_lines(self):
        found, _ = candidates(methods=["retom"], ratios=[0.4, 0.5], levels=(0,))
        work = Work(settings_of(), None, STEPS, PLATEAUS, found, print)
        costs = Costs(10.0, {0: 8.0}, {found[0].name: {0: 6.0}, found[1].name: {0: 4.0}})
        ends = torch.tensor([0.01, 0.0]), torch.tensor([0.04, 0.0])
        damage = {
            (candidate.name, cell): end
            for candidate, end in zip(found, ends, strict=True)
            for cell in cells_of((0,), 4)
        }
        finer = dense(work, costs, damage)
        names = [candidate.name for candidate in finer.work.candidates]
        assert names == [
            "retom · 0.4", "retom · 0.5", "retom · 0.425", "retom · 0.45", "retom · 0.475"
        ]  # fmt: skip
        assert finer.costs.merged["retom · 0.45"] == {0: pytest.approx(5.0)}
        # damage as the power of the ratio that goes through both ends: log 4 / log 1.25
        power = math.log(4) / math.log(1.25)
        middle = finer.damage["retom · 0.45", Cell(0, 1)]
        assert float(middle[0]) == pytest.approx(0.01 * (0.45 / 0.4) ** power, rel=1e-5)
        assert float(middle[1]) < 1e-11
        assert finer.work.candidates[3].method.ratio == 0.45

    def test_where_all_stretches_mind_alike_the_schedule_is_a_uniform_setting(self):
        # Convex damage, equal plateaus: spending unevenly loses.
        found, _ = candidates(methods=["retom"], ratios=[0.25, 0.5, 0.7], levels=(0,))
        work = Work(settings_of(tuning=2), Alike(), STEPS, PLATEAUS, found, print)
        costs = Costs(10.0, {0: 8.0}, {c.name: {0: 8 - 8 * c.method.ratio} for c in found})
        damage = {
            (c.name, cell): torch.full((2,), c.method.ratio**4, dtype=torch.float64)
            for c in found
            for cell in cells_of((0,), 4)
        }
        finer = dense(work, costs, damage)
        choice = Chooser(finer.work, finer.costs, finer.damage).at_speedup(1 / (1 - 0.8 * 0.4))
        assert {candidate.method.ratio for candidate in choice.chosen.values()} == {0.4}
        assert choice.config.rules == ()


class Alike:
    """As much of a subject as a table of two pictures asks for."""

    settings = settings_of(tuning=2).measured
