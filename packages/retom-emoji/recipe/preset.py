"""Settings of one run, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class AutoencoderSettings:
    """The autoencoder and its training."""

    width: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    latent_channels: int
    crop: int
    sizes: tuple[int, ...]
    batch: int
    rate: float
    minutes: float


@dataclass(frozen=True)
class TextSettings:
    """The tokenizer and the text encoder."""

    vocabulary: int
    length: int
    width: int
    layers: int
    heads: int
    batch: int
    rate: float
    minutes: float


@dataclass(frozen=True)
class Phase:
    """One stretch of denoiser training at one resolution.

    Attributes:
        name: Names its log and checkpoint.
        size: Edge of the pictures in pixels.
        scales: Smallest and largest edge of the object as fractions of the canvas.
        often: File in the presets folder with the labels of concepts that are shown more often.
        often_share: Share of the pictures that show one of those.
        pool: How many composites are kept ready as latents.
        batch: Pictures in a step.
        rate: Peak learning rate of the UNet.
        text_rate: Peak learning rate of the text encoder, 0 to keep it as it is.
        final: Share of the peak rate left at the end.
        minutes: Budget.
    """

    name: str
    size: int
    scales: tuple[float, float]
    often: str
    often_share: float
    pool: int
    batch: int
    rate: float
    text_rate: float
    final: float
    minutes: float


@dataclass(frozen=True)
class DenoiserSettings:
    """The UNet and its training.

    Attributes:
        widths: Channels of each level.
        head_width: Channels of an attention head.
        embedding: Channels of the embedding of time and pooled text.
        empty: Share of examples without a caption, for classifier-free guidance.
        ema: Decay of the average of the weights.
        phases: Trained in this order.
    """

    widths: tuple[int, ...]
    head_width: int
    embedding: int
    empty: float
    ema: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Preset:
    """Everything that decides what comes out, besides the code."""

    seed: int
    threads: int
    concepts: Path
    steps: int
    guidance: float
    autoencoder: AutoencoderSettings
    text: TextSettings
    denoiser: DenoiserSettings


def load(name: str) -> Preset:
    """Read a preset by name.

    Args:
        name: Name of a file in ``recipe/presets``, without its ending.

    Raises:
        FileNotFoundError: There is no such preset.
        TypeError: A setting is missing or unknown.
    """
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    data = {key: _tuples(value) for key, value in data.items()}
    denoiser = data.pop("denoiser")
    phases = tuple(Phase(**phase) for phase in denoiser.pop("phases"))
    return Preset(
        autoencoder=AutoencoderSettings(**data.pop("autoencoder")),
        text=TextSettings(**data.pop("text")),
        denoiser=DenoiserSettings(phases=phases, **denoiser),
        concepts=FOLDER / data.pop("concepts"),
        **data,
    )


def _tuples(value: object) -> object:
    """Turn TOML arrays into tuples, so that settings cannot change."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
