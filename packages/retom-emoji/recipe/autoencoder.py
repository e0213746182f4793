"""Train the autoencoder on small crops of composites.

Convolutions do not care about the picture's size, so small crops teach it all sizes at a small
fraction of the price. It is an ``AutoencoderTiny`` rather than an ``AutoencoderKL``: without group
normalisation it learns flat colours within a few hundred steps, which is all a CPU can afford, and
it decodes faster.

The first three latent channels are taught to be a thumbnail of the picture: the mean colour of
each 4 x 4 pixels. Free latents are arbitrary codes, and a denoiser that is unsure between two of
them draws neither; a thumbnail it is unsure of is merely soft. The remaining channels carry what a
thumbnail lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from . import compose, render
from .concepts import Split
from .ema import Ema
from .loop import Loop, move, set_rate
from .preset import AutoencoderSettings, DecoderSettings, Preset
from .scenes import Scenes

EDGE_WEIGHT = 0.5
COLOUR_WEIGHT = 2.0
THUMBNAIL_WEIGHT = 4.0
MOMENT_WEIGHT = 0.05
COLOUR_CHANNELS = 3
SPREAD = 0.5
"""Standard deviation of a thumbnail's values in [-1, 1], and so of the other channels too."""
MEASURED = 64
"""Pictures of each split that the reconstruction is measured on, at most."""


def build(settings: AutoencoderSettings) -> AutoencoderTiny:
    """Make an untrained autoencoder that shrinks each edge by four."""
    levels = len(settings.encoder_blocks)
    return AutoencoderTiny(
        encoder_block_out_channels=(settings.width,) * levels,
        decoder_block_out_channels=(settings.width,) * levels,
        num_encoder_blocks=settings.encoder_blocks,
        num_decoder_blocks=settings.decoder_blocks,
        latent_channels=settings.latent_channels,
    )


def to_tensor(pictures: list[compose.Picture]) -> Tensor:
    """Stack 8-bit pictures into a batch in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float().div_(127.5).sub_(1)


def crops(
    art: render.Art, settings: AutoencoderSettings | DecoderSettings, rng: np.random.Generator
) -> Tensor:
    """Draw a batch of crops of composites of all sizes."""
    out: list[compose.Picture] = []
    for _ in range(settings.batch):
        size = int(rng.choice(settings.sizes))
        rgba = art.rgba[int(rng.integers(len(art.rgba)))]
        background = compose.random_background(rng)
        picture = compose.compose(rgba, background, size, rng, scales=(0.6, 1.0))
        y, x = rng.integers(0, size - settings.crop + 1, 2)
        out.append(picture[y : y + settings.crop, x : x + settings.crop])
    return to_tensor(out)


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """Compare the differences between neighbouring pixels, which plain L1 leaves soft."""
    difference = a - b
    rows = difference[..., 1:, :] - difference[..., :-1, :]
    columns = difference[..., 1:] - difference[..., :-1]
    return rows.abs().mean() + columns.abs().mean()


def pixel_loss(a: Tensor, b: Tensor) -> Tensor:
    """Compare pixels, and the differences between neighbours."""
    return functional.l1_loss(a, b) + EDGE_WEIGHT * edge_loss(a, b)


def encode(model: AutoencoderTiny, pictures: Tensor) -> Tensor:
    """Return the latents of pictures in [-1, 1], as they come."""
    return model.encode(pictures, return_dict=False)[0]


def decode(model: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Return the pictures of latents."""
    return model.decode(latents, return_dict=False)[0]


def colour_loss(a: Tensor, b: Tensor) -> Tensor:
    """Compare colours over 8 x 8 pixels.

    Pixel losses alone left one of the three colour directions unlearned for a thousand steps.
    """
    return functional.avg_pool2d(a - b, 8).abs().mean()


def thumbnail_loss(latents: Tensor, pictures: Tensor) -> Tensor:
    """Compare the colour channels with the mean colours of the pixels they stand for."""
    thumbnail = functional.adaptive_avg_pool2d(pictures, latents.shape[-2:])
    return (latents[:, :COLOUR_CHANNELS] - thumbnail).square().mean()


def moment_loss(latents: Tensor) -> Tensor:
    """Pull the other channels towards zero mean and the spread of the colour channels.

    The pipeline divides latents by one number and shifts nothing, so both must be learned.
    """
    free = latents[:, COLOUR_CHANNELS:]
    mean = free.mean(dim=(0, 2, 3))
    spread = free.std(dim=(0, 2, 3))
    return (mean.square() + (spread - SPREAD).square()).mean()


@torch.no_grad()
def psnr(model: AutoencoderTiny, pictures: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in dB over pictures in [-1, 1]."""
    decoded = decode(model, encode(model, pictures)).clamp(-1, 1)
    error = (decoded - pictures).square().mean(dim=(1, 2, 3)) / 4
    return float((-10 * error.log10()).mean())


@torch.no_grad()
def normalise(model: AutoencoderTiny, pictures: Tensor) -> None:
    """Store the scale that gives latents unit variance."""
    latents = encode(model, pictures)
    scale = float(1 / latents.std())
    spread = [round(s, 3) for s in (latents.std(dim=(0, 2, 3)) * scale).tolist()]
    means = [round(m, 3) for m in (latents.mean(dim=(0, 2, 3)) * scale).tolist()]
    model.register_to_config(scaling_factor=scale)
    print(f"autoencoder: scale {scale:.4f} means {means} spreads {spread}", flush=True)


def batches(
    everything: render.Art, settings: AutoencoderSettings, device: torch.device, seed: int
) -> Iterator[Tensor]:
    """Yield training pictures: crops made on the CPU, or scenes composed on the device."""
    if settings.sizes:
        rng = np.random.default_rng(seed)
        art = everything.subset("trained")
        while True:
            yield crops(art, settings, rng).to(device)
    scenes = Scenes(everything, "trained", device, seed)
    while True:
        yield scenes.compose(scenes.singles(settings.batch, settings.scales), settings.crop)


def measured(everything: render.Art, split: Split, preset: Preset) -> Tensor:
    """Compose the 128 px pictures the autoencoder is measured on.

    Of a list of concepts these are the first; without a list, some of every style.
    """
    rng = np.random.default_rng(preset.seed + 1)
    rows = everything.rows(split)
    if not preset.concepts:
        rows = rows[:: max(1, len(rows) // MEASURED)]
    pictures = [
        compose.compose(
            everything.rgba[row], compose.random_background(rng), 128, rng, scales=(0.6, 1.0)
        )
        for row in rows[:MEASURED]
    ]
    return to_tensor(pictures)


def run(
    preset: Preset,
    work: Path,
    device: torch.device,
    *,
    minutes: float | None,
    deadline: float = math.inf,
) -> bool:
    """Train, measure on held-out art and save ``autoencoder/`` in the work folder.

    Returns:
        Whether the budget is used up, rather than the deadline reached.
    """
    settings = preset.autoencoder
    torch.manual_seed(preset.seed)
    everything = render.load(work)
    model = build(settings)
    move(model, device)
    optimizer = torch.optim.AdamW(
        [{"params": list(model.parameters()), "peak": settings.rate}], betas=(0.9, 0.99)
    )
    ema = Ema({"autoencoder": model}, 0.995)
    loop = Loop(
        "autoencoder",
        work,
        minutes=settings.minutes if minutes is None else minutes,
        modules={"autoencoder": model},
        optimizer=optimizer,
        ema=ema,
        deadline=deadline,
    )
    loop.restore()
    source = batches(everything, settings, device, preset.seed + loop.step)
    while not loop.done:
        set_rate(optimizer, step=loop.step, fraction=loop.fraction, warmup=50)
        batch = next(source)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latents = encode(model, batch)
            noisy = latents + settings.noise * torch.randn_like(latents)
            decoded = decode(model, noisy).float()
        loss = pixel_loss(decoded, batch) + COLOUR_WEIGHT * colour_loss(decoded, batch)
        total = loss + MOMENT_WEIGHT * moment_loss(latents.float())
        total = total + THUMBNAIL_WEIGHT * thumbnail_loss(latents.float(), batch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update()
        loop.tick(loss.item(), len(batch))
    loop.save()
    with ema.swapped():
        model.eval()
        held_out = psnr(model, measured(everything, "held_out", preset).to(device))
        print(f"autoencoder: held_out PSNR {held_out:.2f} dB", flush=True)
        batch = measured(everything, "trained", preset).to(device)
        print(f"autoencoder: trained PSNR {psnr(model, batch):.2f} dB", flush=True)
        normalise(model, batch)
        model.save_pretrained(work / "autoencoder")
    return loop.finished
