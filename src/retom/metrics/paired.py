"""How far a picture is from another of the same seed: PSNR and SSIM.

Pictures come in any form of :mod:`retom.metrics.pictures`. Both measures are computed in float32
and give one number a picture: a tensor () for one, (B,) for several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d

from retom.errors import ShapeError
from retom.metrics.pictures import to_pair

if TYPE_CHECKING:
    from torch import Tensor

    from retom.metrics.pictures import Pictures

# The constants of Wang et al. 2004, for a data range of 1.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03


def psnr(picture: Pictures, reference: Pictures) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error); higher is closer.

    Equal pictures give infinity.

    Args:
        picture: One or several.
        reference: What it is compared with, as many and of the same size. The measure is symmetric.

    Returns:
        float32, () or (B,).

    Raises:
        ShapeError: The two are of different shapes, or no pictures.

    Example:
        >>> psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)).item()
        20.0
    """
    x, y = to_pair(picture, reference)
    error = (x - y).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(error)


def ssim(picture: Pictures, reference: Pictures) -> Tensor:
    """Structural similarity, at most 1; higher is closer, and equal pictures give 1.

    Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity": Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03,
    population moments, the mean over all places where the window lies inside the picture; here also
    over the three channels.

    Args:
        picture: One or several, with sides of at least 11.
        reference: What it is compared with, as many and of the same size. The measure is symmetric.

    Returns:
        float32, () or (B,).

    Raises:
        ShapeError: The two are of different shapes, smaller than the window, or no pictures.
    """
    x, y = to_pair(picture, reference)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ShapeError(
            f"ssim needs pictures of at least {SSIM_WINDOW}x{SSIM_WINDOW}, its window; "
            f"{x.shape[-2]}x{x.shape[-1]} was given."
        )
    moments = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = moments.unbind()
    var_x = mean_xx - mean_x.square()
    var_y = mean_yy - mean_y.square()
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def _blur(planes: Tensor) -> Tensor:
    """Gaussian means of (..., H, W) where the window fits: (..., H - 10, W - 10)."""
    place = torch.arange(SSIM_WINDOW, dtype=torch.float32, device=planes.device)
    weight = torch.exp(-((place - SSIM_WINDOW // 2) / SSIM_SIGMA).square() / 2)
    weight = weight / weight.sum()
    flat = planes.reshape(-1, 1, *planes.shape[-2:])
    flat = conv2d(conv2d(flat, weight[None, None, :, None]), weight[None, None, None, :])
    return flat.reshape(*planes.shape[:-2], *flat.shape[-2:])
