"""The shipped folders load and draw; nothing here downloads or trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import retom_emoji

MEGABYTE = 10**6


@pytest.fixture(scope="module", params=retom_emoji.SIZES)
def size(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def model(size) -> Path:
    return retom_emoji.folder(size)


@pytest.fixture(scope="module")
def pipe(model) -> Iterator[object]:
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, *, seed: int, steps: int = 2) -> np.ndarray:
    import torch

    generator = torch.Generator().manual_seed(seed)
    prompt = "a red apple, fluent 3d emoji"
    out = pipe(prompt, num_inference_steps=steps, generator=generator, output_type="np")
    return out.images[0]


def test_files_are_small_enough_for_git(model) -> None:
    sizes = [file.stat().st_size for file in model.rglob("*") if file.is_file()]
    assert max(sizes) <= 14 * MEGABYTE
    assert sum(sizes) <= 44 * MEGABYTE


def test_only_data_files_ship(model) -> None:
    kinds = {file.suffix for file in model.rglob("*") if file.is_file()}
    assert kinds <= {".json", ".safetensors", ".txt"}


def test_folder_names_only_stock_classes(model) -> None:
    index = json.loads((model / "model_index.json").read_text("utf-8"))
    libraries = {value[0] for value in index.values() if isinstance(value, list)}
    assert libraries <= {"diffusers", "transformers", None}


def test_loads_as_float32_without_arguments(pipe) -> None:
    import torch

    dtypes = {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)}
    assert dtypes == {torch.float32}


def test_draws_at_the_default_size(pipe, size) -> None:
    assert pipe.unet.config.sample_size * pipe.vae_scale_factor == size
    picture = draw(pipe, seed=0)
    assert picture.shape == (size, size, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.02, "the picture is blank"


def test_the_default_model_has_tokens_worth_merging() -> None:
    config = json.loads((retom_emoji.folder() / "unet" / "config.json").read_text("utf-8"))
    assert config["sample_size"] >= 64


def test_same_seed_gives_the_same_picture(pipe) -> None:
    first, again, other = draw(pipe, seed=1), draw(pipe, seed=1), draw(pipe, seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_example_prompt_is_mostly_red(pipe) -> None:
    picture = draw(pipe, seed=0, steps=10)
    height, width, _ = picture.shape
    middle = picture[height // 3 : -height // 3, width // 3 : -width // 3].mean(axis=(0, 1))
    red, green, blue = middle
    assert red > green
    assert red > blue


def test_splits_hold_prompts_and_do_not_overlap() -> None:
    trained, held_out = retom_emoji.prompts("trained"), retom_emoji.prompts("held_out")
    assert "a red apple, fluent 3d emoji" in trained
    assert len(trained) > 50
    assert held_out
    assert not set(trained) & set(held_out)


def test_further_words_are_tokens_that_no_other_prompt_has() -> None:
    transformers = pytest.importorskip("transformers")
    known: dict[str, str] = json.loads((retom_emoji.folder() / "words.json").read_text("utf-8"))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(retom_emoji.folder() / "tokenizer")
    first = len(tokenizer) - len(known)
    assert len(known) > 400
    labels = {
        text.removeprefix("a ").removeprefix("an ") for text in retom_emoji.prompts("trained")
    }
    assert {f"{label}, fluent 3d emoji" for label in known.values()} <= labels
    assert all(
        sum(i >= first for i in tokenizer(f"a {word}, fluent 3d emoji")["input_ids"]) == 1
        for word in known
    )
    for split in ("trained", "held_out"):
        every = tokenizer(list(retom_emoji.prompts(split)))["input_ids"]
        assert all(i < first for ids in every for i in ids)


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="held_out, trained"):
        retom_emoji.prompts("test")  # type: ignore[arg-type]


def test_the_alignment_head_is_small_and_says_what_it_is_worth() -> None:
    metrics = pytest.importorskip("retom.metrics")
    pytest.importorskip("safetensors")
    file = retom_emoji.alignment_head()
    assert file.stat().st_size < 2 * MEGABYTE
    head = metrics.load_head(file)
    assert (head.sizes["features"], head.sizes["texts"]) == (
        "EfficientNet-Lite0",
        "all-MiniLM-L6-v2",
    )
    assert head.held_out.num_texts > len(retom_emoji.prompts("held_out"))  # of all five styles
    assert head.held_out.top5 > 8 * 5 / head.held_out.num_texts  # chance is an eighth of it


def test_both_models_know_the_same_concepts() -> None:
    first, *others = (
        (retom_emoji.folder(s) / "prompts.json").read_bytes() for s in retom_emoji.SIZES
    )
    assert all(other == first for other in others)


def test_the_default_model_is_the_first_size() -> None:
    assert retom_emoji.folder() == retom_emoji.folder(retom_emoji.SIZES[0])


def test_a_preset_is_exported_to_the_model_that_ships_of_it() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from recipe import export

    assert export.shipped(None) == export.shipped("cpu") == retom_emoji.folder(128)
    assert export.shipped("cpu-256") == retom_emoji.folder(256)
    with pytest.raises(ValueError, match=r"no model of preset gpu ships.*--out"):
        export.shipped("gpu")


def test_an_unknown_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="256, 128, not 512"):
        retom_emoji.folder(512)  # type: ignore[arg-type]
