"""Methods as words, contenders from them, and what is refused."""

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import retom
from retom.errors import ConfigError
from retom.evaluation.contenders import Lineup, contenders
from retom.evaluation.settings import Settings
from retom.evaluation.specs import describe, expand
from retom.methods import METHODS, ReToM, ToDo


def settings(**options):
    return Settings(**{"prompts": ["a", "b"], **options})


def test_a_name_alone_is_the_method_at_its_defaults():
    assert [config.method for config in expand("retom")] == [ReToM()]


def test_options_of_the_method_and_of_the_configuration():
    (config,) = expand("retom:window=4x2,reach=1,alternate=true,refresh=0.9+0.5,share=layer")
    assert config.method == ReToM(window=(4, 2), reach=1, alternate=True)
    assert config.refresh == (0.9, 0.5)
    assert config.share == "layer"


def test_noise_is_two_levels():
    (config,) = expand("retom:noise=0.2+1")
    assert config.noise == (0.2, 1.0)
    assert describe(config) == "retom:noise=0.2+1"


def test_slashes_are_alternatives_and_all_combinations_come_out():
    found = expand("retom:allocation=uniform/coherence,reach=0/1/2")
    assert [(c.method.allocation, c.method.reach) for c in found] == [
        (allocation, reach) for allocation in ("uniform", "coherence") for reach in (0, 1, 2)
    ]


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    reach=st.integers(0, 3),
    merge=st.sampled_from(["mean", "representative", "norm_mean"]),
    allocation=st.sampled_from(["similarity", "coherence", "uniform"]),
    refresh=st.none()
    | st.integers(1, 9)
    | st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
)
def test_a_description_is_read_back(window, reach, merge, allocation, refresh):
    if isinstance(refresh, list):
        refresh = tuple(level / 100 for level in refresh)
    method = ReToM(window=window, reach=reach, merge=merge, allocation=allocation)
    config = retom.Config(method=method, refresh=refresh)
    assert expand(describe(config)) == [config]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_name_that_is_read_back(name):
    (config,) = expand(name)
    assert describe(config) == name


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("magic", "Unknown method 'magic'; the methods are retom"),
        ("retom:reach", "Options are written name=value"),
        ("retom:noise=0.2", "noise is .low, high."),
        ("retom:ratio=0.3", "ratios, scopes and levels are those of the whole evaluation"),
        ("retom:speed=9", "Unknown option speed"),
        ("retom:reach=-1", "reach is a number of windows"),
    ],
)
def test_bad_specifications(spec, words):
    with pytest.raises(ConfigError, match=words):
        expand(spec)


def test_every_method_at_every_ratio_and_scope():
    found = contenders(["retom", "tome"], settings(ratios=[0.3, 0.5], scopes=["attention", "kv"]))
    assert len({contender.name for contender in found}) == 8
    assert {c.merging.method.ratio for c in found} == {0.3, 0.5}
    assert {c.merging.scope for c in found} == {"attention", "kv"}


def test_a_method_whose_window_fixes_the_ratio_runs_at_that_alone():
    (found,) = contenders(["todo"], settings(ratios=[0.3, 0.5], scopes=["kv"]))
    assert found.ratio == 0.75
    assert found.merging.method == ToDo()


def test_configurations_stand_beside_methods_as_they_are():
    config = retom.Config(method=ReToM(ratio=0.2), scope="block", levels="all")
    found = contenders(["retom"], settings(), {"mine": config})
    assert [c.name for c in found] == ["retom · 0.5 · attention", "mine · 0.2 · block"]
    assert found[1].merging is config
    assert found[1].own


def test_nothing_is_compared_with_itself():
    with pytest.raises(ConfigError, match="named twice"):
        contenders(["retom", "retom:reach=1"], settings())


def test_tomesd_takes_turns_with_an_even_number_of_prompts():
    pytest.importorskip("tomesd")
    with pytest.raises(ConfigError, match="use an even number"):
        contenders(["tomesd"], settings(prompts=["a", "b", "c"]))
    (found,) = contenders(["tomesd:use_rand=false"], settings(prompts=["a", "b", "c"]))
    assert found.method == "tomesd:use_rand=false"


def test_tomesd_cannot_leave_out_the_largest_grid():
    pytest.importorskip("tomesd")
    with pytest.raises(ConfigError, match="without a gap"):
        contenders(["tomesd"], settings(levels=(1,)))


def test_tomesd_takes_no_part_in_other_scopes():
    pytest.importorskip("tomesd")
    found = contenders(["tomesd", "retom"], settings(scopes=["block"]))
    assert [c.method for c in found] == ["retom"]


def test_a_baseline_that_does_not_take_part():
    lineup = Lineup(methods=["retom"], baseline="tome")
    with pytest.raises(ConfigError, match="The baseline tome is not among the methods: retom"):
        lineup.baseline_of(lineup.contenders(settings()))
    assert Lineup(methods=["retom"]).baseline_of(lineup.contenders(settings())) is None


class TestSettings:
    def test_batches_go_seed_by_seed_so_that_a_seed_more_changes_none(self):
        one = settings(prompts=list("abcd"), batch=2)
        two = settings(prompts=list("abcd"), batch=2, seeds=[0, 1])
        assert two.chunks()[:2] == one.chunks()
        assert [s.prompt for chunk in two.chunks() for s in chunk] == list("abcdabcd")

    def test_no_two_samples_share_their_noise_nor_does_the_floor(self):
        chosen = settings(prompts=list("abcd"), seeds=[0, 7])
        seeds = [s.seed for other in (False, True) for c in chosen.chunks(other=other) for s in c]
        assert len(set(seeds)) == len(seeds) == 16

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"prompts": ["a"]}, "at least 2 prompts"),
            ({"prompts": ["a", "a"]}, "prompts are at least one and each once"),
            ({"ratios": [0.0]}, "ratios are above 0 and below 1"),
            ({"scopes": ["mlp"]}, "scope"),
            ({"stages": ["magic"]}, "stage"),
            ({"batch": 3}, "batch is even"),
            ({"rounds": 1}, "rounds is a whole number of at least 2"),
            ({"seeds": [-1]}, "seeds are whole numbers"),
            ({"guidance": -1.0}, "guidance is a number of at least 0"),
            ({"levels": ()}, "levels is"),
        ],
    )
    def test_refuses(self, options, words):
        with pytest.raises(ConfigError, match=words):
            settings(**options)


def test_a_stopwatch_decides_no_pictures_of_an_evaluation():
    with pytest.raises(ConfigError, match="decides by a stopwatch what merges"):
        contenders(["retom", "retom:skip=unprofitable"], settings())
