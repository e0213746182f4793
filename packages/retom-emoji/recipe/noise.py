"""The noise schedule, shared by training and sampling."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

STEPS = 1000


def scheduler(grown: int = 0) -> DDIMScheduler:
    """Make the scheduler that ships with the model.

    Zero terminal SNR lets the model decide the mean colour of a picture, without which coloured
    backgrounds come out grey; it needs trailing spacing and v-prediction.

    Args:
        grown: How many levels the UNet was given for larger pictures. A picture of twice the size
            shows through the same noise four times as well, so each level quarters the
            signal-to-noise ratio of every timestep (Hoogeboom and others, 2023, simple diffusion,
            section 3.1), and the level inside goes on seeing what it saw.
    """
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        trained_betas=_betas(grown) if grown else None,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # unused by trailing spacing; the pipeline warns about 0
    )


def _betas(grown: int) -> list[float]:
    """Return the betas of the schedule whose signal-to-noise ratio is a power of 4 lower."""
    alphas = scheduler().alphas_cumprod.double()
    alphas = alphas / (alphas + 4**grown * (1 - alphas))
    before = torch.cat([alphas.new_ones(1), alphas[:-1]])
    return (1 - alphas / before).tolist()


def noisy_and_velocity(
    latents: Tensor, noise: Tensor, steps: Tensor, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the denoiser sees and what it should answer.

    With x the latents, n the noise and a the cumulative alpha of a step, the denoiser sees
    sqrt(a) x + sqrt(1 - a) n and should answer v = sqrt(a) n - sqrt(1 - a) x.

    Args:
        latents: ``(B, C, H, W)`` clean latents.
        noise: Gaussian noise of the same shape.
        steps: ``(B,)`` timesteps.
        alphas: ``(1000,)`` cumulative alphas of the schedule.
    """
    signal = alphas[steps].sqrt().view(-1, 1, 1, 1)
    rest = (1 - alphas[steps]).sqrt().view(-1, 1, 1, 1)
    return signal * latents + rest * noise, signal * noise - rest * latents
