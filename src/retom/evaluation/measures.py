"""The measures of an evaluation: how each is called, read and printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the tables.

    Attributes:
        key: In records and files.
        title: In tables.
        digits: After the point.
        higher_is_better: Which way is good.
        meaning: One sentence.
    """

    key: str
    title: str
    digits: int
    higher_is_better: bool
    meaning: str


SPEED = Measure(
    "speedup", "speed-up", 2, higher_is_better=True,
    meaning="One denoiser call of two samples (one picture with guidance), un-merged / merged: "
    "median of the ratios of interleaved pairs. Where merging depends on noise, a picture's "
    "average call.",
)  # fmt: skip
ERROR = Measure(
    "error", "denoiser error", 4, higher_is_better=False,
    meaning="Relative L2 error of the denoiser's output against un-merged on identical noisy "
    "latents, without guidance: mean over noise levels. Un-merged has 0, or what rounding makes "
    "where samples come one at a time; another seed's latents and noise give another picture's.",
)  # fmt: skip
PSNR = Measure(
    "psnr", "PSNR (dB)", 2, higher_is_better=True,
    meaning="Of a whole picture to the un-merged picture of the same prompt and seed, at most 100.",
)  # fmt: skip
SSIM = Measure(
    "ssim", "SSIM", 4, higher_is_better=True,
    meaning="Structural similarity to the un-merged picture of the same prompt and seed.",
)  # fmt: skip
COSINE = Measure(
    "cosine", "feature cosine", 4, higher_is_better=True,
    meaning="Cosine of the feature vectors of the picture and of the un-merged one.",
)  # fmt: skip
ARTEFACTS = Measure(
    "artefacts", "grid (dB)", 2, higher_is_better=False,
    meaning="How much more the grid of windows shows in edges than in the un-merged picture. "
    "Pictures without a grid vary by a few dB around 0.",
)  # fmt: skip
KID = Measure(
    "kid", "KID", 5, higher_is_better=False,
    meaning="Kernel distance of the features to those of the reference pictures: unbiased, below 0 "
    "by chance.",
)  # fmt: skip
FRECHET = Measure(
    "frechet", "Fréchet", 2, higher_is_better=False,
    meaning="Fréchet distance of the features to those of the reference pictures at the stated n. "
    "No FID.",
)  # fmt: skip
ALIGNMENT = Measure(
    "alignment", "alignment", 4, higher_is_better=True,
    meaning="Cosine of picture and prompt in the space of the given head. No CLIP score.",
)  # fmt: skip

MEASURES: tuple[Measure, ...] = (
    SPEED, ERROR, PSNR, SSIM, COSINE, ARTEFACTS, KID, FRECHET, ALIGNMENT,
)  # fmt: skip
