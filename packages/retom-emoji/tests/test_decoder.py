"""The decoder stage: it changes what latents are turned into, and nothing else of a model."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("PIL")

import torch
from diffusers import AutoencoderTiny

import retom_emoji
from recipe import concepts, decoder, preset, render
from recipe.concepts import Concept

SETTINGS = preset.load("cpu-256")
MODEL = retom_emoji.folder(256)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with made-up art, as after the render stage."""
    art = np.zeros((4, 256, 256, 4), np.uint8)
    for i in range(4):
        art[i, 40 : 150 + 20 * i, 60:200] = (250 - 60 * i, 60 * i, 120, 255)
    np.save(tmp_path / render.PICTURES, art)
    chosen = [
        Concept(f"1f40{i}", f"thing {i}", (), "held_out" if i == 3 else "trained", "noto emoji")
        for i in range(4)
    ]
    concepts.store(tuple(chosen), tmp_path)
    return tmp_path


def loaded() -> AutoencoderTiny:
    return AutoencoderTiny.from_pretrained(MODEL, subfolder="vae").eval()


def test_a_spoiled_decoder_is_mended_and_the_encoder_stays(work: Path) -> None:
    art = render.load(work)
    model = loaded()
    encoder = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    before = decoder.reconstruction(model, art, SETTINGS)
    assert SETTINGS.decoder is not None
    decoder.train(model, art, SETTINGS.decoder, work, seed=SETTINGS.seed, minutes=0.1)
    after = decoder.reconstruction(model, art, SETTINGS)
    assert after["trained"] > before["trained"] + 1
    assert after["held_out"] > before["held_out"]
    assert all(torch.equal(v, encoder[k]) for k, v in model.encoder.state_dict().items())


def test_a_model_is_written_with_nothing_but_another_decoder(work: Path) -> None:
    out = work / "model"
    options = argparse.Namespace(
        init=MODEL, out=out, work=work, preset="cpu-256", device="cpu", minutes=0.02
    )
    decoder.run(SETTINGS, options)
    written = {f.relative_to(out) for f in out.rglob("*") if f.is_file()}
    assert written == {f.relative_to(MODEL) for f in MODEL.rglob("*") if f.is_file()}
    changed = {f for f in written if (out / f).read_bytes() != (MODEL / f).read_bytes()}
    assert changed == {Path("vae/diffusion_pytorch_model.safetensors")}
    new, old = AutoencoderTiny.from_pretrained(out, subfolder="vae"), loaded()
    same = [
        torch.equal(v, old.state_dict()[k])
        for k, v in new.encoder.state_dict(prefix="encoder.").items()
    ]
    assert all(same)
    assert not torch.equal(new.decoder.layers[0].weight, old.decoder.layers[0].weight)


def test_a_preset_without_settings_is_refused(work: Path) -> None:
    without = dataclasses.replace(SETTINGS, decoder=None)
    options = argparse.Namespace(
        init=MODEL, out=work / "model", work=work, preset="cpu", device="cpu", minutes=0.1
    )
    with pytest.raises(ValueError, match=r"no \[decoder\] settings: take cpu-256"):
        decoder.run(without, options)
    assert preset.shortened(without, 0.5).decoder is None


def test_a_shortened_preset_shortens_the_stage() -> None:
    assert SETTINGS.decoder is not None
    half = dataclasses.replace(SETTINGS.decoder, minutes=SETTINGS.decoder.minutes / 2)
    assert preset.shortened(SETTINGS, 0.5).decoder == half
