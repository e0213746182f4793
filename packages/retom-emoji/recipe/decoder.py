"""Train the decoder of a finished model's autoencoder, and change nothing else.

The encoder stays, and with it the latents, so the denoiser goes on as it is. What changes is how
sharply latents are turned into pixels.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from . import export, references, render
from .autoencoder import crops, decode, encode, pixel_loss, psnr, to_tensor
from .concepts import SPLITS
from .ema import Ema
from .loop import Loop, move, set_rate
from .preset import DecoderSettings, Preset

SQUARE_WEIGHT = 5.0
"""Of squared errors beside absolute ones: the few large errors, along edges, decide the PSNR."""
PART = "vae"
"""Folder of the autoencoder in a pipeline's folder."""


def reconstruction(model: AutoencoderTiny, art: render.Art, preset: Preset) -> dict[str, float]:
    """Return the mean PSNR in dB by split, of one picture a concept as the denoiser saw them."""
    found: dict[str, float] = {}
    for split in SPLITS:
        shown = references.composites(art.subset(split), preset, 1, preset.seed + 1).pictures
        parts = [to_tensor(shown[i : i + 16]).to(model.device) for i in range(0, len(shown), 16)]
        total = sum(psnr(model, part) * len(part) for part in parts)
        found[split] = total / len(shown)
    return found


def train(
    model: AutoencoderTiny,
    art: render.Art,
    settings: DecoderSettings,
    work: Path,
    *,
    seed: int,
    minutes: float | None,
) -> None:
    """Train ``model.decoder`` on the device it is on, and leave the average of its weights in it.

    Args:
        model: Its encoder is not touched.
        art: Its trained pictures are shown.
        settings: Of the training.
        work: Where the log and the checkpoint are.
        seed: Of pictures and noise.
        minutes: Another budget than that of the settings.
    """
    model.requires_grad_(requires_grad=False)
    decoder = model.decoder.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(
        [{"params": list(decoder.parameters()), "peak": settings.rate}],
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    ema = Ema({"decoder": decoder}, 0.995)
    loop = Loop(
        "decoder",
        work,
        minutes=settings.minutes if minutes is None else minutes,
        modules={"decoder": decoder},
        optimizer=optimizer,
        ema=ema,
    )
    loop.restore()
    noise = torch.Generator().manual_seed(seed + loop.step)
    layouts = np.random.default_rng(seed + loop.step)
    trained = art.subset("trained")
    while not loop.done:
        set_rate(optimizer, step=loop.step, fraction=loop.fraction, warmup=50, final=0.01)
        batch = crops(trained, settings, layouts).to(model.device)
        with torch.no_grad():
            latents = encode(model, batch).cpu()
        amount = settings.noise * torch.rand(len(batch), 1, 1, 1, generator=noise)
        latents += amount * torch.randn(latents.shape, generator=noise)
        decoded = decode(model, latents.to(model.device))
        loss = pixel_loss(decoded, batch) + SQUARE_WEIGHT * functional.mse_loss(decoded, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        ema.update()
        loop.tick(loss.item(), len(batch))
    loop.save()
    decoder.load_state_dict({k.removeprefix("decoder."): v for k, v in ema.shadow.items()})


def run(preset: Preset, options: argparse.Namespace) -> None:
    """Train the decoder of an exported model and write the model with it.

    Raises:
        ValueError: The preset has no settings for this stage, or no model of it ships.
    """
    settings = preset.decoder
    if settings is None:
        msg = (
            "this preset has no [decoder] settings: take cpu-256, or add them to the preset's file"
        )
        raise ValueError(msg)
    source: Path = options.init or export.shipped(options.preset)
    target: Path = options.out or source
    art = render.load(options.work)
    model: AutoencoderTiny = AutoencoderTiny.from_pretrained(source, subfolder=PART).eval()
    move(model, torch.device(options.device))
    before = reconstruction(model, art, preset)
    train(model, art, settings, options.work, seed=preset.seed, minutes=options.minutes)
    model.half().float()  # measured as it is stored
    after = reconstruction(model, art, preset)
    new = export.beside(target)
    shutil.copytree(source, new)
    model.half().save_pretrained(new / PART)
    total = export.finish(new, target)
    changes = [f"{split} {before[split]:.2f} to {after[split]:.2f} dB" for split in SPLITS]
    print(f"decoder: {', '.join(changes)}; {target.name}, {total / 1e6:.1f} MB", flush=True)
