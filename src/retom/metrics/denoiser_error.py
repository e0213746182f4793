"""Teacher-forced error of a merged denoiser: how far its output is from the un-merged one's.

Both get identical inputs: known latents, noised to several levels. No error of an earlier step is
carried on, so that a few prompts rank variants in seconds; whole pictures confirm the best few.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from retom.errors import MetricError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

NUM_LEVELS = 8


def noise_levels(num_train_timesteps: int, num_levels: int = NUM_LEVELS) -> list[int]:
    """Timesteps in the middle of equal parts of the noise schedule, the least noisy first.

    Args:
        num_train_timesteps: Length of the schedule.
        num_levels: How many parts.

    Raises:
        MetricError: ``num_levels`` is not from 1 to the length of the schedule.

    Example:
        >>> noise_levels(1000, 4)
        [125, 375, 625, 875]
    """
    if not 1 <= num_levels <= num_train_timesteps:
        raise MetricError(
            f"num_levels must be from 1 to {num_train_timesteps}, the timesteps of the schedule; "
            f"{num_levels} was given."
        )
    return [int((i + 0.5) * num_train_timesteps / num_levels) for i in range(num_levels)]


def noised(
    latents: Tensor, timestep: int, alphas_cumprod: Tensor, *, seeds: Sequence[int]
) -> Tensor:
    """Latents at a noise level, √ᾱ x + √(1 - ᾱ) ε, each sample with a noise of its own.

    Ho, Jain, Abbeel 2020, arXiv:2006.11239, equation 4. The noise of a sample depends on its seed
    and on the timestep alone, not on its batch.

    Args:
        latents: (B, ...), any float dtype.
        timestep: Index into ``alphas_cumprod``.
        alphas_cumprod: ᾱ, (num_train_timesteps,): a diffusers scheduler's attribute of this name.
        seeds: One a sample.

    Returns:
        float32 (B, ...) on the device of ``latents``.

    Raises:
        ShapeError: There are not as many seeds as samples.
    """
    if len(seeds) != len(latents):
        raise ShapeError(
            f"Each sample has a seed; {len(latents)} samples and {len(seeds)} seeds were given."
        )
    alpha = float(alphas_cumprod[timestep])
    noise = [
        # Distinct for every pair of a seed and a timestep below 4096.
        torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(timestep + 4096 * s))
        for s in seeds
    ]
    mixed = math.sqrt(alpha) * latents.float()
    return mixed + math.sqrt(1 - alpha) * torch.stack(noise).to(latents.device)


@torch.no_grad()
def denoiser_outputs(
    denoiser: Callable[[Tensor, int], Tensor],
    latents: Tensor,
    alphas_cumprod: Tensor,
    *,
    timesteps: Sequence[int],
    seeds: Sequence[int],
) -> Tensor:
    """Outputs of a denoiser on the same latents at several noise levels.

    Call it with merging off and on, and compare the two with :func:`relative_error`:
    ``denoiser_outputs(lambda x, t: unet(x, t, **conditions).sample, latents, ...)``.

    Args:
        denoiser: From noisy latents (B, ...) and a timestep to an output (B, ...). Merging, if
            any, is switched on by the caller.
        latents: Latents without noise, such as the un-merged model's own final ones, in the dtype
            and on the device of the denoiser.
        alphas_cumprod: As in :func:`noised`.
        timesteps: As :func:`noise_levels` gives.
        seeds: As in :func:`noised`.

    Returns:
        float32 (levels, B, ...) on the CPU.
    """
    outputs: list[Tensor] = []
    for timestep in timesteps:
        x = noised(latents, timestep, alphas_cumprod, seeds=seeds).to(latents.dtype)
        outputs.append(denoiser(x, timestep).float().cpu())
    return torch.stack(outputs)


def relative_error(merged: Tensor, whole: Tensor) -> Tensor:
    """||merged - whole|| / ||whole|| of every sample at every noise level.

    Args:
        merged: Outputs with merging, (levels, B, ...).
        whole: Outputs without, of the same shape.

    Returns:
        float32 (B, levels). Its mean over levels goes into
        :func:`~retom.metrics.mean_estimate`.

    Raises:
        ShapeError: The shapes differ or have no levels and samples.
        MetricError: An un-merged output is zero, to which no error is relative.

    Example:
        >>> relative_error(torch.tensor([[[3.0, 5.0]]]), torch.tensor([[[3.0, 4.0]]]))
        tensor([[0.2000]])
    """
    if merged.shape != whole.shape or merged.ndim < 3 or merged.numel() == 0:
        raise ShapeError(
            "Outputs of one shape (levels, B, ...) are compared; "
            f"{tuple(merged.shape)} and {tuple(whole.shape)} were given."
        )
    size = _norm(whole.float())
    if bool((size == 0).any()):
        raise MetricError(
            "An un-merged output is zero everywhere, so that no error is relative to it. "
            "Is this a trained denoiser?"
        )
    return (_norm(merged.float() - whole.float()) / size).T


def _norm(outputs: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.vector_norm(outputs.flatten(2), dim=-1))
