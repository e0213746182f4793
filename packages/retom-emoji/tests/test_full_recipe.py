"""The recipe for all styles on an accelerator: its pure parts, and a rehearsal of the whole."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from recipe import captions, concepts, curves, pack, parcels, preset, render, styles
from recipe.compose import COLOURS, Background
from recipe.concepts import Concept

APPLE = Concept("1f34e", "red apple", ("fruit",), "trained", "noto emoji")
BANANA = Concept("1f34c", "banana", ("fruit",), "trained", "noto emoji")
LABELS = {"1f34e": "red apple", "1f34c": "banana", "1f9d1-200d-1f33e": "farmer"}


def drawing(colour: str) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">'
        f'<rect x="2" y="2" width="4" height="4" fill="{colour}"/></svg>'
    ).encode()


def raster(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (256, 256), colour).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with made-up art in two styles, as after the render stage."""
    chosen: list[Concept] = []
    sources: list[bytes] = []
    for style in (styles.STYLES[0], styles.STYLES[2]):
        for i in range(8):
            code = list(LABELS)[i] if i < len(LABELS) else f"1f40{i}"
            split = "held_out" if i % 4 == 3 else "trained"
            label = LABELS.get(code, f"animal {i}")
            chosen.append(Concept(code, label, ("thing",), split, style.words))
            sources.append(raster((30 * i, 99, 0)) if style.is_raster else drawing(f"#{i}0a040"))
    names = [render.member(concept) for concept in chosen]
    render._write_sources(tmp_path / render.SOURCES, names, sources)
    concepts.store(tuple(chosen), tmp_path)
    return tmp_path


def scenes_of(folder: Path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("resvg_py")
    from recipe.scenes import Scenes

    render.draw(concepts.load(folder), folder / render.SOURCES, folder, workers=1)
    return Scenes(render.load(folder), "trained", torch.device("cpu"), 0)


def test_codepoints_are_compared_without_variation_selectors() -> None:
    assert concepts.bare("2764-FE0F") == "2764"
    assert concepts.bare("1f441-fe0f-200d-1f5e8-fe0f") == "1f441-200d-1f5e8"


@pytest.mark.parametrize(
    "code",
    [
        "1f468-200d-1f33e",  # man farmer
        "1f469-200d-1f33e",  # woman farmer
        "1f469-1f3fd-200d-1f33e",  # woman farmer, medium skin tone
        "1f9d1-200d-1f33e",
    ],
)
def test_genders_and_skin_tones_share_a_split(code: str) -> None:
    assert concepts.family(code) == "1f9d1-200d-1f33e"
    assert concepts.split_of(code) == concepts.split_of("1f9d1-200d-1f33e")


def test_families_keep_signs_that_stand_alone() -> None:
    assert concepts.family("2642") == "2642"
    assert concepts.family("1f3fb") == "1f3fb"
    assert concepts.family("1f3c3-200d-2642-fe0f") == "1f3c3"


def test_every_style_has_words_and_a_licence_of_its_own() -> None:
    assert len({style.words for style in styles.STYLES}) == len(styles.STYLES) == 5
    assert {style.licence for style in styles.STYLES} == {"MIT", "Apache-2.0", "CC-BY-4.0"}
    with pytest.raises(ValueError, match="unknown styles openmoji; there are fluent-3d"):
        styles.by_keys(("openmoji",))


def test_icons_follow_aliases_and_are_centred() -> None:
    icons = {
        "prefix": "set",
        "width": 32,
        "icons": {"cup": {"body": "<path/>", "width": 16, "height": 32}},
        "aliases": {"mug": {"parent": "cup"}},
    }
    assert 'viewBox="-8 0 32 32"' in styles.svg(icons, "mug")
    with pytest.raises(KeyError, match="set has no icon plate"):
        styles.svg(icons, "plate")


def test_sources_come_back_in_order_and_with_equal_bytes(work: Path) -> None:
    names = [name for name, _ in render.read_sources(work / render.SOURCES)]
    assert names == [render.member(concept) for concept in concepts.load(work)]
    first = (work / render.SOURCES).read_bytes()
    render._write_sources(
        work / "again",
        names,
        [source for _, source in render.read_sources(work / render.SOURCES)],
    )
    assert (work / "again").read_bytes() == first


def test_verifying_finds_a_changed_picture(work: Path) -> None:
    pytest.importorskip("resvg_py")
    settings = preset.load("dry")
    chosen = concepts.load(work)
    digest = render.draw(chosen, work / render.SOURCES, work, workers=1)
    assert digest == render.draw(chosen, work / render.SOURCES, work, workers=1)
    render.verify(settings, work)
    with pytest.raises(render.ArtError, match="the preset expects"):
        render.check(digest, dataclasses.replace(settings, art="another"))
    pictures = np.load(work / render.PICTURES, mmap_mode="r+")
    pictures[3, 0, 0] ^= 1
    pictures.flush()
    with pytest.raises(render.ArtError, match=render.member(chosen[3])):
        render.verify(settings, work)


def test_thinning_spreads_over_the_list(work: Path) -> None:
    chosen = concepts.load(work)
    assert render.thin(chosen, 0) == chosen
    few = render.thin(chosen, 4)
    assert len(few) == 4
    assert {concept.style for concept in few} == {"fluent 3d emoji", "noto emoji"}


def test_varied_captions_use_synonyms_and_leave_out_styles() -> None:
    rng = np.random.default_rng(0)
    background = Background("blue", "flat")
    texts = [captions.varied(APPLE, background, rng) for _ in range(400)]
    assert 0.05 < sum(text.startswith("a fruit") for text in texts) / 400 < 0.3
    assert 0.1 < sum("noto emoji" not in text for text in texts) / 400 < 0.3
    assert not any(text.endswith(",") or ", ," in text for text in texts)


def test_pair_captions_name_both_objects_in_order() -> None:
    rng = np.random.default_rng(0)
    background = Background("blue", "flat")
    texts = {captions.varied_pair((APPLE, BANANA), "above", background, rng) for _ in range(50)}
    assert "a red apple above a banana, noto emoji, on a blue background" in texts
    assert all(text.startswith("a red apple above a banana") for text in texts)


def test_pairs_share_a_style_and_lie_as_their_caption_says(work: Path) -> None:
    scenes = scenes_of(work)
    layout = scenes.pairs(64)
    shown = [[scenes.concepts[row] for row in rows] for rows in layout.rows]
    assert all(first.style == second.style for first, second in shown)
    assert all(concept.split == "trained" for pair in shown for concept in pair)
    apart = layout.centres[:, 1] - layout.centres[:, 0]
    for words, (down, right) in zip(layout.relations, apart, strict=True):
        expected = {"above": down, "below": -down}.get(words, right)
        assert expected > 0.4


def test_scenes_put_art_on_the_asked_background(work: Path) -> None:
    scenes = scenes_of(work)
    layout = scenes.singles(32, (0.5, 0.5))
    pictures = scenes.compose(layout, 32)
    assert pictures.shape == (32, 3, 32, 32)
    assert float(pictures.abs().max()) <= 1
    for i, background in enumerate(layout.backgrounds):
        if background.pattern != "flat" or scenes.concepts[layout.rows[i, 0]].style[0] == "f":
            continue
        corner = (pictures[i, :, 0, 0].numpy() + 1) * 127.5
        assert np.abs(corner - COLOURS[background.colour]).max() < 30
        row, column = (int(c * 32) for c in layout.centres[i, 0])
        middle = (pictures[i, :, row, column].numpy() + 1) * 127.5
        assert np.abs(middle[1:] - (160, 64)).max() < 3, "the drawing's own colour"


def test_scenes_agree_with_composing_one_picture(work: Path) -> None:
    torch = pytest.importorskip("torch")
    from recipe import compose, scenes

    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[64:192, 64:192] = (200, 30, 60, 255)
    canvas = np.full((64, 64, 3), 90, np.uint8)
    one = compose.place(rgba, canvas, scale=0.75, centre=(0.4, 0.6))
    art = torch.from_numpy(rgba).permute(2, 0, 1)[None].float() / 255
    art = torch.cat([art[:, :3] * art[:, 3:], art[:, 3:]], dim=1)
    many = scenes.place(
        torch.full((1, 3, 256, 256), 90 / 255),
        art,
        torch.tensor([0.75]),
        torch.tensor([[0.4, 0.6]]),
    )
    small = torch.nn.functional.avg_pool2d(many, 4)[0].permute(1, 2, 0).numpy() * 255
    # the one resizes to whole pixels, so edges may differ by a pixel's share
    assert np.abs(small - one).mean() < 1.5


def test_layouts_repeat_with_the_seed_and_differ_without(work: Path) -> None:
    first, again = scenes_of(work).singles(8, (0.7, 1.0)), scenes_of(work).singles(8, (0.7, 1.0))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.centres, again.centres)


def test_a_pack_too_large_to_travel_is_refused() -> None:
    pack.check_size(64 * 2**20)
    with pytest.raises(ValueError, match="67108865 bytes, 1 more than"):
        pack.check_size(64 * 2**20 + 1)


def test_parcels_are_small_enough_and_restore_the_folder(tmp_path: Path) -> None:
    folder, out, back = (tmp_path / name for name in ("model", "out", "back"))
    (folder / "unet").mkdir(parents=True)
    out.mkdir()
    for i, size in enumerate((9, 9, 3)):
        (folder / "unet" / f"{i}.safetensors").write_bytes(bytes([i]) * (size * 2**20))
    parcels.write(folder, out)
    parcels.check(out)
    tars = sorted(out.glob("*.tar"))
    assert len(tars) == 2
    for tar in tars:
        with tarfile.open(tar) as stream:
            stream.extractall(back, filter="data")
    for file in folder.rglob("*.safetensors"):
        assert (back / file.relative_to(tmp_path)).read_bytes() == file.read_bytes()


def test_a_file_too_large_to_leave_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a parcel takes 10"):
        parcels.bins({"unet": 11}, room=10)
    for i in range(parcels.MOST + 1):
        (tmp_path / str(i)).touch()
    with pytest.raises(ValueError, match="9 files"):
        parcels.check(tmp_path)


def test_curves_draw_every_stage(tmp_path: Path) -> None:
    rows = [{"step": i, "loss": 1 / (i + 1), "seconds": float(i)} for i in range(5)]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    out = tmp_path / "out"
    out.mkdir()
    curves.write(tmp_path, out)
    assert "text: loss 1.0000 to 0.2000, 4 s" in (out / "curves.svg").read_text("utf-8")
    assert len(json.loads((out / "log.json").read_text("utf-8"))["text"]) == 5


@pytest.mark.parametrize("name", ["cpu", "cpu-256", "cpu-full", "dry", "gpu"])
def test_presets_load(name: str) -> None:
    settings = preset.load(name)
    styles.by_keys(settings.styles)
    assert settings.denoiser.phases[-1].minutes > 0


def test_the_gpu_preset_fits_its_minutes_and_grid() -> None:
    settings = preset.load("gpu")
    phases = settings.denoiser.phases
    total = settings.text.minutes + settings.autoencoder.minutes + sum(p.minutes for p in phases)
    assert total <= 21
    assert phases[-1].size == 256
    assert preset.shortened(settings, 0.5).autoencoder.minutes == settings.autoencoder.minutes / 2


@pytest.mark.slow
# warnings of the libraries are not what is tested here
@pytest.mark.filterwarnings("default")
def test_a_dry_run_goes_through_every_stage(work: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("resvg_py")
    from recipe import sentences
    from recipe.__main__ import main

    render.draw(concepts.load(work), work / render.SOURCES, work, workers=1)
    texts = [captions.prompt(label) for label in LABELS.values()] * 20
    vectors = torch.nn.functional.normalize(torch.randn(len(texts), 384), dim=-1)
    sentences.store(sentences.Sentences(texts, 20, vectors), work / sentences.FILE, small=True)
    out = tmp_path / "out"
    assert main(["gpu", "--work", str(work), "--out", str(out), "--dry-run"]) == 0
    assert {"curves.svg", "log.json", "samples.png", "samples-more.png"} <= {
        file.name for file in out.iterdir()
    }
    logs = json.loads((out / "log.json").read_text("utf-8"))
    assert set(logs) == {"autoencoder", "text", "denoiser-grid8", "denoiser-grid16"}
    back = tmp_path / "back"
    for tar in out.glob("model-*.tar"):
        with tarfile.open(tar) as stream:
            stream.extractall(back, filter="data")
    pipe = diffusers.DiffusionPipeline.from_pretrained(back / "model")
    assert pipe("a red apple", num_inference_steps=1).images[0].size == (64, 64)
