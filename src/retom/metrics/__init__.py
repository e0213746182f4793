"""Measures of what merging does to a picture."""

from retom.metrics.paired import psnr, ssim

__all__ = ["psnr", "ssim"]
