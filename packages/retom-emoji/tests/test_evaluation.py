"""The head, and the evaluation of a model, on made-up art with networks that need no download."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("safetensors")

import torch
from PIL import Image

from recipe import (
    captions,
    card,
    compose,
    concepts,
    degrade,
    evaluate,
    head,
    neighbours,
    preset,
    references,
    render,
)
from recipe.compose import Background
from recipe.concepts import Concept
from recipe.gallery import Gallery, digest_of
from recipe.head import Judges
from recipe.render import Art

SIZE = 32
TRAINED, HELD_OUT = 32, 8


class Colours:
    """Picture features: mean colours of sixteen cells."""

    name = "colours"

    def __call__(self, pictures):
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)


class Numbers:
    """Text vectors: the three numbers in a label, and whether the text has any."""

    name = "numbers"

    def __call__(self, texts):
        rows = []
        for text in texts:
            found = [int(n) / 255 for n in re.findall(r"\d+", text)[:3]]
            rows.append([*found, 1.0] if len(found) == 3 else [0.0, 0.0, 0.0, 0.0])
        return torch.tensor(rows)


def art() -> Art:
    """Discs; a label names the colour."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    inside = x**2 + y**2 < 30**2
    shown, pictures = [], []
    for i in range(TRAINED + HELD_OUT):
        colour = rng.integers(0, 256, 3)
        rgba = np.zeros((64, 64, 4), np.uint8)
        rgba[..., :3], rgba[..., 3] = colour, 255 * inside
        split: concepts.Split = "trained" if i < TRAINED else "held_out"
        label = f"disc {colour[0]} {colour[1]} {colour[2]}"
        shown.append(Concept(f"{i:04x}", label, (), split))
        pictures.append(rgba)
    return Art(tuple(shown), np.stack(pictures))


class Painter:
    """Draws what a prompt says, perfectly: the art on the background that is asked for."""

    def __init__(self) -> None:
        self.art = art()
        self.asked: list[str] = []

    def __call__(self, prompts, *, generator, **settings):
        self.asked += prompts
        return [[self.paint(text, g) for text, g in zip(prompts, generator, strict=True)]]

    def paint(self, text, generator):
        rng = np.random.default_rng(generator.initial_seed())
        colours = [c for c in compose.COLOURS if f" {c} background" in text]
        canvas = compose.paint(Background((colours or ["grey"])[-1], "flat"), SIZE, rng)
        for rgba, concept in zip(self.art.rgba, self.art.concepts, strict=True):
            if f"{concept.label}," in text:
                canvas = compose.place(rgba, canvas, scale=1.0, centre=(0.5, 0.5))
        return Image.fromarray(canvas)


@pytest.fixture(scope="module")
def settings() -> preset.Preset:
    known = preset.load("cpu")
    phase = dataclasses.replace(known.denoiser.phases[-1], size=SIZE)
    return dataclasses.replace(known, denoiser=dataclasses.replace(known.denoiser, phases=(phase,)))


JUDGED = Judges(Colours(), Numbers())


@pytest.fixture(scope="module")
def trained():
    return head.train(head.examples(art(), JUDGED, 10, 0), JUDGED, steps=300, seed=0)


def test_the_head_learns_what_words_mean_for_concepts_it_never_saw(trained, settings) -> None:
    assert trained.held_out.n == 10 * HELD_OUT
    assert trained.held_out.num_texts == HELD_OUT
    assert trained.held_out.top1 > 2 / HELD_OUT  # chance is 1
    for split, count in (("trained", TRAINED), ("held_out", HELD_OUT)):
        again = head.found_again(trained, art(), settings, JUDGED, split)
        assert (again.n, again.num_texts) == (count, count)
        assert again.top1 > 2 / count  # chance is 1


def test_examples_are_degraded_art_with_its_own_words() -> None:
    made = head.examples(art(), JUDGED, 2, 0)
    again = head.examples(art(), JUDGED, 2, 0)
    assert torch.equal(made.features.values, again.features.values)
    assert len(made.features) == len(made.texts) == 2 * (TRAINED + HELD_OUT)
    assert made.held_out.sum() == 2 * HELD_OUT
    assert made.families.bincount().tolist() == [2] * (TRAINED + HELD_OUT)
    first = art().concepts[0].label
    assert torch.equal(made.texts[0], Numbers()([first])[0])


@pytest.mark.parametrize("way", [way for way, _ in degrade.WAYS], ids=lambda way: way.__name__)
def test_every_way_to_degrade_changes_a_picture_and_keeps_it_one(way) -> None:
    behind = Background("green", "checker")
    rng = np.random.default_rng(0)
    clean = compose.compose(art().rgba[0], behind, SIZE, rng, scales=head.SCALES)
    spoilt = way(clean, np.random.default_rng(1))
    assert (spoilt.shape, spoilt.dtype) == (clean.shape, np.uint8)
    assert not np.array_equal(spoilt, clean)
    assert np.array_equal(spoilt, way(clean, np.random.default_rng(1)))
    assert np.abs(spoilt.astype(float) - clean).mean() < 60  # it is still that picture


def test_the_stage_writes_a_small_head_and_its_validation(tmp_path, settings, monkeypatch) -> None:
    from retom.metrics import load_head

    one_style = art()
    second = [dataclasses.replace(c, style="twemoji") for c in one_style.concepts]
    concepts.store(one_style.concepts, tmp_path)
    np.save(tmp_path / render.PICTURES, one_style.rgba)
    with pytest.raises(ValueError, match="has one: download and render with --preset gpu"):
        head.run(settings, argparse.Namespace(work=tmp_path, out=None))
    concepts.store((*one_style.concepts, *second), tmp_path)
    np.save(tmp_path / render.PICTURES, np.concatenate([one_style.rgba] * 2))
    monkeypatch.setattr(head, "judges", lambda work: JUDGED)
    monkeypatch.setattr(head, "EACH", 2)
    monkeypatch.setattr(head, "STEPS", 3)
    head.run(settings, argparse.Namespace(work=tmp_path, out=None))
    assert load_head(tmp_path / head.FILE).held_out is not None
    assert (tmp_path / head.FILE).stat().st_size < 2 * 10**6
    report = json.loads((tmp_path / head.REPORT).read_text("utf-8"))
    assert report["pictures"] == 4 * (TRAINED + HELD_OUT)
    assert report["new_composites"]["trained"]["num_texts"] == TRAINED
    assert head.load(tmp_path).sizes["texts"] == "numbers"


def study_of(folder: Path, trained, settings, painter: Painter) -> evaluate.Study:
    gallery = Gallery(painter, "digest", folder / "pictures", 2, 4.0)  # type: ignore[arg-type]
    return evaluate.Study(art(), settings, JUDGED, trained, gallery)


@pytest.fixture(scope="module")
def written(tmp_path_factory, trained, settings):
    folder = tmp_path_factory.mktemp("evaluation")
    report = evaluate.write(study_of(folder, trained, settings, Painter()), folder)
    return folder, report, json.loads((folder / "evaluation.json").read_text("utf-8"))


def test_a_perfect_model_is_at_the_floor_and_a_copy(written) -> None:
    folder, report, found = written
    kid = found["kid"]
    own, floor = kid["drawn, trained prompts"]["trained"], kid["real, trained concepts"]["trained"]
    assert own["low"] < floor["high"]
    assert kid["real, trained concepts"]["held_out"]["reference_n"] >= 64
    drawn, real = (found["retrieval"][name] for name in ("drawn", "real"))
    assert drawn.keys() == real.keys() == {str(TRAINED)}
    assert drawn[str(TRAINED)]["top5"] == pytest.approx(real[str(TRAINED)]["top5"], abs=0.2)
    near = found["neighbours"]
    assert near["drawn, trained prompts"]["near copies"] == evaluate.NEAR
    assert near["drawn, trained prompts"]["own concept"] == evaluate.NEAR
    assert near["drawn, held_out prompts"]["own concept"] == 0
    assert near["drawn, held_out prompts"]["median PSNR"] < 40
    assert near["real, held_out concepts"]["n"] == HELD_OUT
    assert (folder / "evaluation.md").read_text("utf-8") == report
    for name in ("sheet64.png", "neighbours.png"):
        with Image.open(folder / name) as image:
            assert image.width > 300


def test_started_again_nothing_is_drawn_twice(written, trained, settings) -> None:
    folder, report, _ = written
    painter = Painter()
    assert evaluate.write(study_of(folder, trained, settings, painter), folder) == report
    assert painter.asked == []
    lost = next((folder / "pictures").glob("trained-*/005.png"))
    lost.unlink()
    assert evaluate.write(study_of(folder, trained, settings, painter), folder) == report
    assert len(painter.asked) == 4  # the batch it was in


def test_another_model_or_setting_draws_anew(tmp_path) -> None:
    painter = Painter()
    for model, steps in (("a", 2), ("b", 2), ("a", 3), ("a", 2)):
        Gallery(painter, model, tmp_path, steps, 4.0).drawn("one", ["x"])  # type: ignore[arg-type]
    assert len(painter.asked) == 3


def test_the_digest_of_a_model_is_that_of_its_files(tmp_path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights").write_bytes(b"1")
    before = digest_of(tmp_path)
    assert digest_of(tmp_path) == before
    (tmp_path / "unet" / "weights").write_bytes(b"2")
    assert digest_of(tmp_path) != before


def test_the_nearest_by_features_and_by_pixels_may_differ() -> None:
    flat = [np.full((2, 2, 3), value, np.uint8) for value in (10, 200)]
    near = neighbours.nearest(
        [np.full((2, 2, 3), 20, np.uint8)],
        np.array([[0.0, 1.0]], np.float32),
        flat,
        np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),
    )
    assert (near.by_features[0], near.by_pixels[0]) == (1, 0)
    assert near.cosine[0] == pytest.approx(1)
    assert near.psnr[0] == pytest.approx(10 * np.log10(255**2 / 10**2))


def test_the_sheet_is_sixty_four_prompts_of_concepts_as_they_are_split() -> None:
    fixed = concepts.wanted(preset.FOLDER / "sheet64.txt")
    assert len(set(fixed)) == 64
    known = preset.load("cpu").concepts
    assert known is not None
    labels = {captions.with_article(label.lower()) for label in concepts.wanted(known)}
    assert {text.split(",")[0] for text in fixed[:40]} <= labels


def test_reference_pictures_lie_by_split(tmp_path, settings) -> None:
    made = art()
    concepts.store(made.concepts, tmp_path)
    np.save(tmp_path / render.PICTURES, made.rgba)
    references.run(settings, argparse.Namespace(work=tmp_path, out=tmp_path / "real"))
    assert len(list((tmp_path / "real" / "trained").glob("*.png"))) == 4 * TRAINED
    assert len(list((tmp_path / "real" / "held_out").glob("*.png"))) == 4 * HELD_OUT
    prompts = (tmp_path / "real" / "trained.txt").read_text(encoding="utf-8").splitlines()
    assert len(prompts) == 4 * TRAINED
    objects = [prompt.split(",")[0] for prompt in prompts]
    assert len(set(objects[:TRAINED])) == TRAINED
    assert objects[:TRAINED] == objects[TRAINED : 2 * TRAINED]


def test_the_card_names_every_number(written) -> None:
    _, report, found = written
    assert report == card.markdown(found)
    for text in ("KID to training pictures", "top-5", "near copies", "sheet64.png"):
        assert text in report
