"""How far a picture is from another of the same seed: PSNR and SSIM.

Pictures are float tensors with values in [0, 1], (3, height, width) or (B, 3, height, width). Both
measures are computed in float32 and give one number a picture: a tensor () or (B,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d

from retom.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

# The constants of Wang et al. 2004, for a data range of 1.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03


def psnr(picture: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error); higher is closer.

    Equal pictures give infinity.

    Args:
        picture: Values in [0, 1], any float dtype, (3, H, W) or (B, 3, H, W).
        reference: What it is compared with, of the same shape. The measure is symmetric.

    Returns:
        float32, () or (B,).

    Raises:
        ShapeError: The pictures are of different or other shapes, or their values are not in
            [0, 1].

    Example:
        >>> psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1)).item()
        20.0
    """
    _check(picture, reference)
    error = (picture.float() - reference.float()).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(error)


def ssim(picture: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity, at most 1; higher is closer, and equal pictures give 1.

    Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity": Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03,
    population moments, the mean over all places where the window lies inside the picture; here also
    over the three channels.

    Args:
        picture: Values in [0, 1], any float dtype, (3, H, W) or (B, 3, H, W); sides of at least 11.
        reference: What it is compared with, of the same shape. The measure is symmetric.

    Returns:
        float32, () or (B,).

    Raises:
        ShapeError: The pictures are of different or other shapes, smaller than the window, or their
            values are not in [0, 1].
    """
    _check(picture, reference)
    if min(picture.shape[-2:]) < SSIM_WINDOW:
        raise ShapeError(
            f"ssim needs pictures of at least {SSIM_WINDOW}x{SSIM_WINDOW}, its window; "
            f"{picture.shape[-2]}x{picture.shape[-1]} was given."
        )
    x, y = picture.float(), reference.float()
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


def _check(picture: Tensor, reference: Tensor) -> None:
    if picture.shape != reference.shape:
        raise ShapeError(
            f"Pictures are compared at one size; {tuple(picture.shape)} and "
            f"{tuple(reference.shape)} were given."
        )
    if picture.ndim not in (3, 4) or picture.shape[-3] != 3 or picture.numel() == 0:
        raise ShapeError(
            "Pictures are tensors (3, height, width) or (batch, 3, height, width); "
            f"{tuple(picture.shape)} was given."
        )
    for given in (picture, reference):
        if not given.is_floating_point():
            raise ShapeError(
                f"Pictures are float tensors with values in [0, 1]; {given.dtype} was given. "
                "Divide 8-bit values by 255."
            )
        low, high = (float(bound) for bound in given.aminmax())
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise ShapeError(
                f"Values of a picture are in [0, 1]; they range from {low:g} to {high:g} here."
            )
