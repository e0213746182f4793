"""The noise schedule, shared by training and sampling."""

from __future__ import annotations

from diffusers import DDIMScheduler
from torch import Tensor

STEPS = 1000


def scheduler() -> DDIMScheduler:
    """Make the scheduler that ships with the model.

    Zero terminal SNR lets the model decide the mean colour of a picture, without which coloured
    backgrounds come out grey; it needs trailing spacing and v-prediction.
    """
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # unused by trailing spacing; the pipeline warns about 0
    )


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
