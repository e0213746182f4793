"""Noise on known latents, for models of diffusion and of flow matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retom.errors import MetricError
from retom.metrics import noised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Noiser = Callable[[Tensor, int, Sequence[int]], Tensor]
    """From latents (B, ...), a timestep and one seed a sample to noisy latents, float32."""

TRAINING_TIMESTEPS = 1000
"""Timesteps of the schedules of models whose scheduler does not say."""


def noiser_of(scheduler: Any) -> Noiser:  # noqa: ANN401 - a scheduler of any class
    """What noises latents as a pipeline's denoiser expects them.

    Raises:
        MetricError: The scheduler is neither of the two kinds.
    """
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None:
        return lambda latents, timestep, seeds: noised(latents, timestep, alphas, seeds=seeds)
    if "Flow" in type(scheduler).__name__:
        return flow_noised
    raise MetricError(
        f"{type(scheduler).__name__} has no alphas_cumprod, from which noise levels are taken, and "
        "is no scheduler of flow matching: leave the screening out, or use a scheduler such as "
        "DDIMScheduler."
    )


def flow_noised(latents: Tensor, timestep: int, seeds: Sequence[int]) -> Tensor:
    """Latents on the straight line to noise, (1 - σ) x + σ ε with σ the timestep over 1000.

    Lipman et al. 2022, arXiv:2210.02747. The noise of a sample is that of
    :func:`retom.metrics.noised`.

    Args:
        latents: (B, ...), any float dtype.
        timestep: From 0 to 1000.
        seeds: One a sample.

    Returns:
        float32 (B, ...) on the device of ``latents``.
    """
    sigma = timestep / TRAINING_TIMESTEPS
    pure = noised(torch.zeros_like(latents), timestep, torch.zeros(timestep + 1), seeds=seeds)
    return (1 - sigma) * latents.float() + sigma * pure


def schedule_length(scheduler: Any) -> int:  # noqa: ANN401 - a scheduler of any class
    """Timesteps that the model was trained with."""
    return int(scheduler.config.get("num_train_timesteps", TRAINING_TIMESTEPS))


def timestep_at(noise: float, length: int) -> int:
    """The whole timestep of a schedule of ``length`` that is nearest to a noise level."""
    return min(round(noise * length), length - 1)
