"""Settings of one run, read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class AutoencoderSettings:
    """The autoencoder and its training.

    Attributes:
        width: Channels of every level.
        encoder_blocks: Residual blocks of each level, the finest first.
        decoder_blocks: The same for the decoder, the coarsest first.
        latent_channels: Channels of the latents; three of them are mean colours.
        crop: Edge of the training pictures in pixels.
        sizes: Edges of the composites they are cut from, or none to compose whole batches on the
            device, see :mod:`.scenes`.
        scales: Without sizes, smallest and largest edge of the art as multiples of the crop.
        noise: Standard deviation of the noise the decoder learns to bear.
        batch: Pictures in a step.
        rate: Peak learning rate.
        minutes: Budget.
    """

    width: int
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    latent_channels: int
    crop: int
    sizes: tuple[int, ...]
    scales: tuple[float, float]
    noise: float
    batch: int
    rate: float
    minutes: float


@dataclass(frozen=True)
class DecoderSettings:
    """Training of the autoencoder's decoder alone, on latents that stay as they are.

    Attributes:
        crop: Edge of the training pictures in pixels.
        sizes: Edges of the composites they are cut from.
        noise: Largest standard deviation of the noise on latents; each picture has less of it, or
            none, so that the decoder is sharp where latents are clean and calm where they are not.
        batch: Pictures in a step.
        rate: Peak learning rate.
        minutes: Budget.
    """

    crop: int
    sizes: tuple[int, ...]
    noise: float
    batch: int
    rate: float
    minutes: float


@dataclass(frozen=True)
class TextSettings:
    """The tokenizer and the text encoder.

    Attributes:
        texts: How many words and captions it imitates the teacher on.
        dictionary: Add the whole words of the teacher's own vocabulary to them.
        vocabulary: Size of the byte-pair vocabulary.
        length: Longest caption in tokens.
        width: Channels.
        layers: Transformer layers.
        heads: Attention heads.
        batch: Texts in a step.
        rate: Peak learning rate.
        minutes: Budget.
    """

    texts: int
    dictionary: bool
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
        pairs: Share of the pictures that show two objects.
        pool: How many composites are kept ready as latents; 0 composes every batch anew on the
            device, see :mod:`.scenes`.
        batch: Pictures in a step.
        rate: Peak learning rate of the UNet.
        matrix_rate: Peak learning rate of its matrices under Muon, whose scale is AdamW's; 0
            leaves them to AdamW with all else.
        new_rate: The same for the matrices of the level that the phase adds, or added when it ran
            before: what it gives to the rest starts at zero. 0 for that of the others.
        text_rate: Peak learning rate of the text encoder, 0 to keep it as it is.
        final: Share of the peak rate left at the end.
        minutes: Budget.
        often: File in the presets folder with the labels of concepts that are shown more often;
            empty for none.
        often_share: Share of the pictures that show one of those.
        warmup: Steps in which the rates rise.
        noisy: Timesteps are even draws from 0 to 1 to this power: below 1 more of them are noisy,
            above 1 fewer.
        levels: How many of the UNet's levels, from the innermost, there are in this phase; 0 for
            all. What a phase has more than the one before, the UNet is given by :mod:`.grow`.
    """

    name: str
    size: int
    scales: tuple[float, float]
    pairs: float
    pool: int
    batch: int
    rate: float
    text_rate: float
    final: float
    minutes: float
    often: str = ""
    often_share: float = 0.0
    matrix_rate: float = 0.0
    new_rate: float = 0.0
    levels: int = 0
    warmup: int = 100
    noisy: float = 0.6


@dataclass(frozen=True)
class DenoiserSettings:
    """The UNet and its training.

    Attributes:
        widths: Channels of each level, the outermost first.
        head_width: Channels of an attention head.
        embedding: Channels of the embedding of time and pooled text.
        empty: Share of examples without a caption, for classifier-free guidance.
        ema: Decay of the average of the weights.
        anchor: Weight of going on imitating the teacher of the text encoder, so that words no
            picture shows keep their meaning; 0 to let go.
        phases: Trained in this order.
    """

    widths: tuple[int, ...]
    head_width: int
    embedding: int
    empty: float
    ema: float
    anchor: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Preset:
    """Everything that decides what comes out, besides the code.

    Attributes:
        seed: Seed of everything random.
        threads: Processor cores to use.
        concepts: A list of labels, or nothing for every emoji.
        styles: Keys of the styles, see :mod:`.styles`.
        art: Digest of all pictures, or empty to accept any.
        limit: How many pictures are drawn at most, spread over all; 0 for all.
        steps: Sampling steps of the sample sheets.
        guidance: Their guidance scale.
        autoencoder: Settings of a part.
        text: Settings of a part.
        denoiser: Settings of a part.
        decoder: Settings of a stage that only some presets have.
    """

    seed: int
    threads: int
    concepts: Path | None
    styles: tuple[str, ...]
    art: str
    limit: int
    steps: int
    guidance: float
    autoencoder: AutoencoderSettings
    text: TextSettings
    denoiser: DenoiserSettings
    decoder: DecoderSettings | None = None


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
    listed = data.pop("concepts")
    decoder = data.pop("decoder", None)
    return Preset(
        autoencoder=AutoencoderSettings(**data.pop("autoencoder")),
        text=TextSettings(**data.pop("text")),
        denoiser=DenoiserSettings(phases=phases, **denoiser),
        decoder=DecoderSettings(**decoder) if decoder else None,
        concepts=FOLDER / listed if listed else None,
        **data,
    )


def shortened(preset: Preset, share: float) -> Preset:
    """Cut every training budget of a preset to a share of it."""
    phases = tuple(replace(p, minutes=p.minutes * share) for p in preset.denoiser.phases)
    return replace(
        preset,
        autoencoder=replace(preset.autoencoder, minutes=preset.autoencoder.minutes * share),
        decoder=preset.decoder and replace(preset.decoder, minutes=preset.decoder.minutes * share),
        text=replace(preset.text, minutes=preset.text.minutes * share),
        denoiser=replace(preset.denoiser, phases=phases),
    )


def _tuples(value: object) -> object:
    """Turn TOML arrays into tuples, so that settings cannot change."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
