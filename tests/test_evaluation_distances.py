"""Sets of pictures in an evaluation: distances to a reference, floors, and the margin."""

import pytest
import torch

pytest.importorskip("diffusers")

from hypothesis import given
from hypothesis import strategies as st
from test_evaluation_study import Brightness, run

from retom.evaluation.against import Against
from retom.evaluation.equivalence import judge, judgements, margin_of, margins
from retom.evaluation.report import page
from retom.evaluation.results import FLOOR, UNMERGED
from retom.evaluation.sets import Reference, real_pictures
from retom.evaluation.store import Store
from retom.evaluation.study import Instruments
from retom.evaluation.tables import markdown
from retom.metrics import AlignmentHead, Estimate, Features, kid_difference

NINE = [f"{a}{b}" for a in "abc" for b in "abc"]
RETOM = "retom · 0.5 · attention"
DRAWN = {"methods": ["retom"], "prompts": NINE, "batch": 4, "stages": ["pictures"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen pictures that nobody's model drew."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path_factory.mktemp("real")
    for place in range(16):
        image.new("RGB", (40, 30), (place * 9, 90, 200 - place * 5)).save(path / f"{place:02}.png")
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def against_real(folder, work):
    return run(work, instruments=Instruments(extractor=Brightness(), real=folder), **DRAWN)[0]


@pytest.fixture(scope="module")
def against_seed(against_real, work):
    """The same pictures, without real ones."""
    return run(work, instruments=Instruments(extractor=Brightness()), **DRAWN)[0]


def test_real_pictures_give_distances_and_halves_as_their_floor(against_real):
    results = against_real
    for name in (RETOM, UNMERGED, FLOOR):
        found = results.row(name).values["kid"]
        assert (found.n, found.reference_n) == (9, 16)
    assert (results.floors["kid"].n, results.floors["kid"].reference_n) == (8, 8)
    assert results.reference == "16 real pictures"
    assert results.floors["frechet"].n == 8
    assert any("The Fréchet distance is at n = 9 pictures" in note for note in results.notes)
    assert any("real pictures have 8 each: their Fréchet" in note for note in results.notes)


def test_few_pictures_of_many_features_have_no_frechet_distance(tmp_path):
    real = Reference(Features(torch.rand(64, 100), "x"), "digest")
    with Store(tmp_path) as store:
        against = Against(store, real)
        assert against.values((["a"], Features(torch.rand(64, 100), "x"))).keys() == {"kid"}
        assert against.floors(64).keys() == {"kid"}
        (note,) = against.notes(64)
    assert "The Fréchet distance needs more than 64 drawn and 64 real pictures" in note


def test_floors_stand_in_every_table_of_pictures(against_real):
    text = markdown(against_real)
    for row in (UNMERGED, FLOOR, "half of the real pictures against the other half"):
        assert text.count(f"| {row} |") >= 1
    report = page(against_real)
    assert report.count("half of the real pictures against the other half") == 2
    assert "<tfoot>" in report


def test_differences_to_unmerged_are_the_paired_ones(against_real):
    results = against_real
    found = results.row(RETOM).from_unmerged["kid"]
    values = {name: results.row(name).values["kid"].value for name in (RETOM, UNMERGED)}
    assert found.value == pytest.approx(values[RETOM] - values[UNMERGED], abs=1e-9)
    assert results.row(UNMERGED).from_unmerged == {}
    seeds = results.row(FLOOR).from_unmerged["kid"]
    assert margins(results)["kid"] == margin_of(seeds)
    one = judgements(results, results.row(RETOM))["kid"]
    assert (one.difference, one.margin) == (found, margin_of(seeds))
    assert "### Against un-merged, ratio 0.5" in markdown(results)
    assert f">{one.word}</td>" in page(results)


def test_without_real_pictures_another_seed_is_the_reference(against_seed):
    results = against_seed
    assert results.reference == "9 un-merged pictures of another seed"
    assert results.row(RETOM).values["kid"].reference_n == 9
    assert "kid" in results.row(UNMERGED).values  # the floor
    assert "kid" not in results.row(FLOOR).values  # to itself
    assert results.floors == {}
    assert margins(results) == {}
    assert "### Against un-merged" not in markdown(results)
    assert any("for want of real pictures" in note for note in results.notes)


def test_a_head_gives_alignment_with_a_margin_of_its_own(folder, work):
    class Letters:
        """How often each of four letters is in a text."""

        name = "letters"

        def __call__(self, texts):
            return torch.tensor([[float(text.count(x)) for x in "abcd"] for text in texts])

    torch.manual_seed(0)
    sizes = {"feature_dim": 6, "text_dim": 4, "width": 3}
    head = AlignmentHead(features="brightness", texts="letters", **sizes).eval()
    instruments = Instruments(extractor=Brightness(), real=folder, head=head, encoder=Letters())
    results, _ = run(work, instruments=instruments, **DRAWN)
    own, whole = (results.row(name).values["alignment"] for name in (RETOM, UNMERGED))
    assert -1 <= own.value <= 1
    found = results.row(RETOM).from_unmerged["alignment"]
    assert found.value == pytest.approx(own.value - whole.value, abs=1e-6)
    assert margins(results).keys() == {"kid", "frechet", "alignment"}
    assert "alignment minus un-merged" in markdown(results)


def test_too_few_pictures_for_another_seed_say_nothing(tmp_path):
    results, _ = run(
        tmp_path,
        methods=["retom"],
        stages=["pictures"],
        instruments=Instruments(extractor=Brightness()),
    )
    assert all("kid" not in row.values for row in results.rows)
    assert not any("KID" in note for note in results.notes)


def test_real_pictures_are_shuffled_always_alike(folder, tmp_path):
    with Store(tmp_path) as store:
        found = real_pictures(store, folder, Brightness(), (8, 8))
        assert torch.equal(
            real_pictures(store, folder, Brightness(), (8, 8)).features.values,
            found.features.values,
        )
    red = found.features.values[:, 0]
    assert not torch.equal(red, red.sort().values)
    assert torch.allclose(red.sort().values, torch.arange(16) * 9 / 255, atol=1e-3)


def test_halves_share_no_picture():
    values = torch.arange(18.0).reshape(9, 2)
    a, b = Reference(Features(values, "x"), "digest").halves()
    assert sorted([*a.values[:, 0].tolist(), *b.values[:, 0].tolist()]) == values[:, 0].tolist()
    assert (len(a), len(b)) == (5, 4)


# ---- the verdict


def estimate(low, high):
    return Estimate("KID", (low + high) / 2, low, high, 9)


ends = st.floats(-10, 10)


@given(ends, ends, st.floats(0.01, 10))
def test_the_verdict_is_that_of_the_interval(one, other, margin):
    low, high = sorted((one, other))
    word = judge(estimate(low, high), margin, higher_is_better=False)
    expected = {
        "equivalent": -margin < low and high < margin,
        "not worse": low <= -margin and high < margin,
        "worse": high >= margin and low > margin,
        "open": high >= margin and low <= margin,
    }
    assert [name for name, holds in expected.items() if holds] == [word]


@given(ends, ends, st.floats(0.01, 10))
def test_what_is_good_may_be_either_way(one, other, margin):
    low, high = sorted((one, other))
    assert judge(estimate(low, high), margin, higher_is_better=False) == judge(
        estimate(-high, -low), margin, higher_is_better=True
    )


def test_the_margin_calls_two_seeds_of_one_model_equivalent():
    """Of sets from one distribution nearly all pairs are; of a shifted one none is."""
    generator = torch.Generator().manual_seed(0)

    def draw(count, shift=0.0):
        return Features(torch.randn(count, 8, generator=generator) + shift, "made up")

    words = {0.0: [], 2.0: []}
    for _ in range(12):
        real, whole, again = draw(200), draw(100, 0.3), draw(100, 0.3)
        margin = margin_of(kid_difference(again, whole, real, resamples=200))
        for shift, said in words.items():
            noise = 0.05 * draw(100).values  # a paired change, smaller than that of a seed
            merged = Features(whole.values + noise + shift, "made up")
            difference = kid_difference(merged, whole, real, resamples=200)
            said.append(judge(difference, margin, higher_is_better=False))
    assert words[0.0].count("equivalent") >= 10
    assert set(words[2.0]) == {"worse"}
