"""The pure parts of the recipe, on made-up art."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from recipe import captions, compose, concepts, download, preset
from recipe.compose import Background
from recipe.concepts import Concept

APPLE = Concept("1f34e", "red apple", ("fruit", "apple tree", "health"), "trained")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("red apple", "a red apple"),
        ("octopus", "an octopus"),
        ("cactus", "a cactus"),
        ("grapes", "grapes"),
        ("french fries", "french fries"),
        ("unicorn", "a unicorn"),
        ("envelope", "an envelope"),
        ("wine glass", "a wine glass"),
        ("face with tears", "a face with tears"),
    ],
)
def test_articles(label: str, expected: str) -> None:
    assert captions.with_article(label) == expected


def test_prompt_names_concept_style_and_background() -> None:
    text = captions.prompt("red apple", tags=("fruit",), background="orange")
    assert text == "a red apple, fruit, fluent 3d emoji, on an orange background"


def test_captions_never_repeat_the_label_as_a_tag() -> None:
    rng = np.random.default_rng(0)
    texts = {captions.caption(APPLE, Background("blue", "flat"), rng) for _ in range(200)}
    assert "a red apple, fluent 3d emoji" in texts
    assert not any("apple tree" in text for text in texts)
    assert any("fruit" in text for text in texts)
    named = sum("blue background" in text for text in texts)
    assert 0 < named < len(texts)


def test_split_depends_on_the_codepoint_alone_and_holds_out_a_tenth() -> None:
    codes = [f"{n:x}" for n in range(0x1F300, 0x1F300 + 2000)]
    splits = [concepts.split_of(code) for code in codes]
    assert splits == [concepts.split_of(code) for code in codes]
    assert 0.07 < splits.count("held_out") / len(codes) < 0.13
    assert concepts.split_of("1f34e") == "trained"


def test_the_sheet_shows_concepts_of_the_list() -> None:
    listed = set(concepts.wanted(preset.load("cpu").concepts))
    sheet = set(concepts.wanted(preset.FOLDER / "sheet.txt"))
    assert sheet <= listed
    assert len(sheet) == 40


@pytest.mark.parametrize("pattern", [name for name, _ in compose.PATTERNS])
def test_backgrounds_have_the_asked_colour(pattern: compose.Pattern) -> None:
    picture = compose.paint(Background("blue", pattern), 32, np.random.default_rng(0))
    red, green, blue = picture.reshape(-1, 3).mean(axis=0)
    assert picture.shape == (32, 32, 3)
    assert blue > green > red


def test_white_is_a_minority() -> None:
    rng = np.random.default_rng(0)
    drawn = [compose.random_background(rng).colour for _ in range(1000)]
    assert drawn.count("white") < 150


def test_placing_respects_alpha_and_the_canvas() -> None:
    art = np.zeros((8, 8, 4), np.uint8)
    art[..., 0] = 255
    art[:, :4, 3] = 255
    canvas = np.full((16, 16, 3), 40, np.uint8)
    out = compose.place(art, canvas, scale=0.5, centre=(0.5, 0.5))
    assert (canvas == 40).all(), "the canvas must not be modified"
    assert tuple(out[8, 5]) == (255, 0, 0)
    assert tuple(out[8, 11]) == (40, 40, 40)
    assert tuple(out[0, 0]) == (40, 40, 40)


def test_composites_repeat_with_the_seed() -> None:
    art = np.full((8, 8, 4), 200, np.uint8)

    def one() -> np.ndarray:
        rng = np.random.default_rng(3)
        background = compose.random_background(rng)
        return compose.compose(art, background, 24, rng, scales=(0.5, 1.0))

    assert np.array_equal(one(), one())


def test_a_wrong_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "art.tgz"
    file.write_bytes(b"something else")
    archive = download.Archive("npm", "art", "1", "art.tgz", hashlib.sha256(b"art").hexdigest())
    with pytest.raises(download.DigestError, match="delete it"):
        download.check(archive, file)


def test_presets_are_complete() -> None:
    settings = preset.load("cpu")
    assert settings.denoiser.phases[-1].size >= 128
    assert settings.concepts.exists()


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        preset.load("nope")


def test_velocity_agrees_with_the_scheduler() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from recipe import noise

    torch.manual_seed(0)
    latents, epsilon = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    steps = torch.tensor([0, 500, noise.STEPS - 1])
    schedule = noise.scheduler()
    noisy, velocity = noise.noisy_and_velocity(latents, epsilon, steps, schedule.alphas_cumprod)
    assert torch.allclose(noisy, schedule.add_noise(latents, epsilon, steps))
    assert torch.allclose(velocity, schedule.get_velocity(latents, epsilon, steps))
    assert torch.allclose(velocity[2], -latents[2]), "zero terminal SNR: all noise at the end"


def test_average_follows_and_swaps_back() -> None:
    torch = pytest.importorskip("torch")
    from recipe.ema import Ema

    module = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(module.weight)
    ema = Ema({"module": module}, 0.5)
    torch.nn.init.ones_(module.weight)
    for _ in range(20):
        ema.update()
    with ema.swapped():
        average = module.weight.clone()
    assert torch.allclose(module.weight, torch.ones(2, 2))
    assert (average > 0.9).all()
    assert (average < 1).all()


def test_a_stage_resumes_where_it_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recipe.ema import Ema
    from recipe.loop import Loop

    def loop() -> tuple[Loop, torch.nn.Linear]:
        module = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(module.parameters())
        ema = Ema({"m": module}, 0.9)
        parts = {"modules": {"m": module}, "optimizer": optimizer, "ema": ema}
        return Loop("stage", tmp_path, minutes=1.0, **parts), module

    first, module = loop()
    first.tick(0.5, 4)
    first.save()
    second, other = loop()
    assert second.restore()
    assert (second.step, second.samples) == (1, 4)
    assert torch.equal(module.weight, other.weight)
    assert not (tmp_path / "stage.partial").exists()


def test_a_deadline_stops_a_stage_without_finishing_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recipe.ema import Ema
    from recipe.loop import Loop

    optimizer = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())
    parts = {"modules": {}, "optimizer": optimizer, "ema": Ema({}, 0.0)}
    stage = Loop("s", tmp_path, minutes=1, deadline=0.0, **parts)
    assert stage.done
    assert not stage.finished
    assert Loop("s", tmp_path, minutes=0, **parts).finished


def test_a_broken_loss_stops_the_stage(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recipe.ema import Ema
    from recipe.loop import Loop

    optimizer = torch.optim.AdamW(torch.nn.Linear(1, 1).parameters())
    stage = Loop("s", tmp_path, minutes=1, modules={}, optimizer=optimizer, ema=Ema({}, 0.0))
    with pytest.raises(FloatingPointError, match="step 0"):
        stage.tick(float("nan"), 1)
