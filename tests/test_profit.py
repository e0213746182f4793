"""What ``skip="unprofitable"`` goes by: the doubt about a median, a plan's share, the option."""

import itertools
import json

import pytest

from retom import Config, ConfigError, Grid, ReToM
from retom.hosts import HostCall
from retom.profit import DOUBT, LEAST, MOST, Shape, surely, time_pays

SHAPE = Shape(Grid(8, 8), 2, 4, "float32", "cpu", ReToM())


@pytest.mark.parametrize("count", range(LEAST, 13))
def test_a_layer_that_gains_nothing_is_rarely_taken_for_one_that_pays(count):
    """All patterns of faster and slower are equally likely then; with one rank more, too many."""
    patterns = list(itertools.product((0.9, 1.1), repeat=count))
    wrong = sum(surely(pattern) > 1 for pattern in patterns) / len(patterns)
    rank = sorted(range(count)).index(surely(range(count)))
    next_rank = sum(sorted(pattern)[rank + 1] > 1 for pattern in patterns) / len(patterns)
    assert wrong <= DOUBT < next_rank


def timed(costs, share=1):
    """Calls that take so many seconds by a clock of their own."""
    now = [0.0]
    order = []

    def call(name):
        order.append(name)
        now[0] += costs[name][order.count(name) % len(costs[name])]

    calls = {name: lambda name=name: call(name) for name in costs}
    return time_pays(SHAPE, calls, share, clock=lambda: now[0]), order


def test_a_plan_is_counted_by_its_share():
    costs = {"unmerged": [10.0], "merged": [12.0], "reused": [8.0]}
    alone, _ = timed(costs, share=1)
    shared, _ = timed(costs, share=4)
    assert (alone.unmerged_ms, alone.merged_ms) == (10_000, 12_000)
    assert not alone.pays
    # a quarter of the plan's 4 seconds, and the rest of each call
    assert shared.merged_ms == pytest.approx(9_000)
    assert shared.speedup == pytest.approx(10 / 9)
    assert shared.pays


def test_noise_of_one_round_does_not_hide_a_gain_but_is_no_gain_either():
    never, _ = timed({"unmerged": [1.0], "merged": [1.0]})
    assert (never.speedup, never.pays) == (1.0, False)
    # faster by a fifth, but for one slow round in eight
    slow_once = [0.001] * 7 + [0.005]
    found, _ = timed({"unmerged": [0.0012], "merged": slow_once})
    assert found.rounds == MOST
    assert found.speedup == pytest.approx(1.2)
    assert found.pays
    # as often slower as faster
    even, _ = timed({"unmerged": [0.001], "merged": [0.0005, 0.0015]})
    assert not even.pays
    assert even.surely < 1


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, MOST), (0.025, 10), (9.0, LEAST)])
def test_slow_layers_get_fewer_rounds(seconds, rounds):
    found, order = timed({"unmerged": [seconds], "merged": [seconds + 1e-6]})
    assert found.rounds in (rounds, rounds - 1)  # a sum of floats may fall short of a whole number
    assert len(order) == 2 * (found.rounds + 2)


def test_why_tells_the_numbers():
    slower, _ = timed({"unmerged": [1.0], "merged": [2.0]})
    assert slower.why == (
        "merged it takes 2.00 times as long (medians over 5 rounds: of the ratio within a round "
        "0.50x, of the times 1e+03 ms un-merged and 2e+03 ms merged)"
    )
    unsure, _ = timed({"unmerged": [1.0, 1.0, 1.0, 0.5], "merged": [0.9]})
    assert "merged it is 1.11 times as fast, which is not told from 1" in unsure.why
    assert "at least 0.56x with 95 % confidence" in unsure.why


@pytest.mark.parametrize("skip", [None, "unprofitable", ("a.attn1", "b.attn1"), ()])
def test_option_survives_json(skip, tmp_path):
    config = Config(skip=skip)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path / "retom.json")
    assert Config.load(tmp_path / "retom.json").skip == skip


def test_names_are_kept_once():
    assert Config(skip=["b", "a", "b"]).skip == ("b", "a")


@pytest.mark.parametrize("skip", ["never", "slow", True, 3, ("a", 1), {"a"}])
def test_anything_else_is_refused_with_what_is_allowed(skip):
    with pytest.raises(ConfigError, match=r"skip is None .* 'unprofitable' .* or the names of"):
        Config(skip=skip)


def test_a_host_of_its_own_cannot_skip():
    with pytest.raises(ConfigError, match="skip='unprofitable' belongs to retom's own hooks"):
        HostCall(Config(skip="unprofitable"))
