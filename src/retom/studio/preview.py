"""How a picture looks while it is drawn: an estimate of the end, decoded small.

What it costs: one call of the model's own autoencoder on latents shrunk to at most 32x32, every few
steps. For the bundled model, and for Stable Diffusion at 512x512, that is about a quarter of the
last one. Drawing waits for it, and the clock stops meanwhile, so it makes
a visitor wait longer and is no part of the times that are shown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from PIL.Image import Image

EVERY = 3
"""Steps from one preview to the next."""
_LARGEST = 32
"""Latents along a side that are decoded at most."""

Level = tuple[float, float]
"""Shares (a, s) of picture and noise in latents: x = a x0 + s e."""


class Preview:
    """Follows the latents of one picture.

    Args:
        pipe: A diffusers pipeline, whose scheduler has been given its timesteps by the time of
            the first call.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 - a pipeline of any class
        self._pipe = pipe
        self._before: Tensor | None = None
        self._steps = 0

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Image | None:
        """The picture so far after one more step, now and then; else None."""
        before, self._before = self._before, latents
        self._steps += 1
        if self._steps % EVERY or before is None or not can_preview(self._pipe, latents):
            return None
        return _decoded(self._pipe, self._estimate(before, latents))

    def _estimate(self, before: Tensor, after: Tensor) -> Tensor:
        """The picture's latents, from those before and after the last step."""
        levels = noise_levels(self._pipe.scheduler)
        if levels is None or not self._steps < len(levels):
            return after
        return solved(before, after, levels[self._steps - 1], levels[self._steps])


def solved(before: Tensor, after: Tensor, here: Level, there: Level) -> Tensor:
    """The x0 of x = a x0 + s e at two levels.

    Exact for the first-order solver of the probability flow, DDIM (Song et al. 2020,
    arXiv:2010.02502, equation 12), which moves both with one x0 and e; close for others.
    """
    (a, s), (b, t) = here, there
    denominator = t * a - s * b
    return after if abs(denominator) < 1e-6 else (t * before - s * after) / denominator


def noise_levels(scheduler: Any) -> list[Level] | None:  # noqa: ANN401 - of any class
    """Levels before the first step and after each one; None where they are not known.

    Those of solvers that draw fresh noise at each step would not help.
    """
    name = type(scheduler).__name__
    if name == "DDIMScheduler":
        ahead = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        steps: list[int] = scheduler.timesteps.tolist()
        last = steps[-1] - ahead
        shares = [scheduler.alphas_cumprod[step].item() for step in steps]
        final = scheduler.alphas_cumprod[last] if last >= 0 else scheduler.final_alpha_cumprod
        return [(math.sqrt(share), math.sqrt(1 - share)) for share in [*shares, float(final)]]
    if name == "EulerDiscreteScheduler":
        return [(1.0, sigma) for sigma in scheduler.sigmas.tolist()]
    if name == "FlowMatchEulerDiscreteScheduler":
        return [(1.0 - sigma, sigma) for sigma in scheduler.sigmas.tolist()]
    return None


def can_preview(pipe: Any, latents: Tensor) -> bool:  # noqa: ANN401 - a pipeline of any class
    """Whether the latents are maps that the pipeline's autoencoder decodes as they are."""
    vae: Any = getattr(pipe, "vae", None)
    config = getattr(vae, "config", None)
    channels = getattr(config, "latent_channels", None)
    if latents.ndim != 4 or channels != latents.shape[1] or not hasattr(config, "scaling_factor"):
        return False
    # Autoencoders that ask for float32 give black pictures in float16.
    return not (vae.dtype == torch.float16 and getattr(config, "force_upcast", False))


def _decoded(pipe: Any, latents: Tensor) -> Image:  # noqa: ANN401 - a pipeline of any class
    vae = pipe.vae
    latents = latents[:1].to(vae.dtype)
    shrink = max(latents.shape[-2:]) / _LARGEST
    if shrink > 1:
        size = [max(1, round(side / shrink)) for side in latents.shape[-2:]]
        latents = functional.interpolate(latents, size, mode="area")
    latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", 0) or 0)
    image = vae.decode(latents, return_dict=False)[0]
    return pipe.image_processor.postprocess(image, output_type="pil")[0]
