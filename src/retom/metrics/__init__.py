"""Measures of what merging does to pictures and to a denoiser.

Cheapest first: the teacher-forced error of the denoiser; pairs of pictures of one seed (PSNR, SSIM,
cosine of features, grid artefacts); sets of pictures (KID, Fréchet distance); pictures and prompts
(alignment). All need torch alone, apart from networks: those of the extra ``eval`` and the adapters
of :mod:`retom.metrics.adapters` are imported where they are used.
"""

from retom.metrics.alignment import (
    AlignmentHead,
    Retrieval,
    alignment,
    load_head,
    retrieval,
    save_head,
)
from retom.metrics.alignment_training import Training, train_head
from retom.metrics.artefacts import grid_artefacts, grid_energy
from retom.metrics.denoiser_error import denoiser_outputs, noise_levels, noised, relative_error
from retom.metrics.efficientnet import EfficientNetLite0
from retom.metrics.estimate import Estimate, mean_estimate
from retom.metrics.features import Extractor, Features, extract, feature_cosine
from retom.metrics.fid import fid, fid_difference
from retom.metrics.frechet import frechet, frechet_difference, gaussian_frechet
from retom.metrics.kid import kid, kid_difference
from retom.metrics.paired import psnr, ssim
from retom.metrics.text import SentenceEncoder, TextEncoder, minilm

__all__ = [
    "AlignmentHead",
    "EfficientNetLite0",
    "Estimate",
    "Extractor",
    "Features",
    "Retrieval",
    "SentenceEncoder",
    "TextEncoder",
    "Training",
    "alignment",
    "denoiser_outputs",
    "extract",
    "feature_cosine",
    "fid",
    "fid_difference",
    "frechet",
    "frechet_difference",
    "gaussian_frechet",
    "grid_artefacts",
    "grid_energy",
    "kid",
    "kid_difference",
    "load_head",
    "mean_estimate",
    "minilm",
    "noise_levels",
    "noised",
    "psnr",
    "relative_error",
    "retrieval",
    "save_head",
    "ssim",
    "train_head",
]
