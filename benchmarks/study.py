"""A pipeline under study: its prompts, its un-merged pictures, and inputs for all variants."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from store import Store
from torch import Tensor
from variants import Variant, merging

from retom.metrics import denoiser_outputs, noise_levels, noised


class Study:
    """A pipeline, its prompts and what its un-merged runs gave."""

    def __init__(
        self,
        pipe: StableDiffusionPipeline,
        prompts: list[str],
        options: argparse.Namespace,
        store: Store,
    ) -> None:
        self.pipe = pipe
        self.prompts = prompts
        self.options = options
        self.store = store
        if getattr(pipe.scheduler, "alphas_cumprod", None) is None:
            raise SystemExit(
                f"{type(pipe.scheduler).__name__} has no alphas_cumprod, from which the noise "
                "levels are taken; save the model with a scheduler that has, such as DDIMScheduler."
            )
        step = options.batch
        self.chunks = [list(range(i, i + step)) for i in range(0, len(prompts), step)]
        self.timesteps = noise_levels(pipe.scheduler.config.num_train_timesteps)

    def merged(self, variant: Variant) -> contextlib.AbstractContextManager[None]:
        """The pipeline's denoiser merges inside this block."""
        o = self.options
        return merging(self.pipe.unet, variant, ratio=o.ratio, levels=o.levels, seed=o.seed)

    def draw(self, chunk: list[int], *, seed: int) -> Tensor:
        """Final latents of these prompts."""
        o = self.options
        return self.pipe(
            [self.prompts[i] for i in chunk],
            generator=[torch.Generator().manual_seed(seed + i) for i in chunk],
            num_inference_steps=o.steps,
            guidance_scale=o.guidance,
            height=o.height,
            width=o.width,
            output_type="latent",
        ).images

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1], float32, on the CPU."""
        vae = self.pipe.vae
        if getattr(vae.config, "force_upcast", False):
            vae.to(torch.float32)
        latents = latents.to(self.options.device, vae.dtype) / vae.config.scaling_factor
        pictures = vae.decode(latents, return_dict=False)[0]
        return self.pipe.image_processor.postprocess(pictures, output_type="pt").float().cpu()

    def reference(self, chunk: list[int]) -> dict[str, Tensor]:
        """Un-merged latents and pictures."""

        def make() -> dict[str, Tensor]:
            latents = self.draw(chunk, seed=self.options.seed)
            return {"latents": latents, "pictures": self.decode(latents)}

        return self.store.cached(f"reference-{chunk[0]}-{chunk[-1]}", make)

    def conditions(self, chunk: list[int]) -> dict[str, Any]:
        """What the pipeline hands its denoiser for these prompts besides latents and timestep."""
        caught: dict[str, Any] = {}

        def catch(_: object, __: object, given: dict[str, Any]) -> None:
            caught.update(given)

        removable = self.pipe.unet.register_forward_pre_hook(catch, with_kwargs=True)
        o = self.options
        try:
            self.pipe(
                [self.prompts[i] for i in chunk],
                num_inference_steps=1,
                guidance_scale=1.0,
                height=o.height,
                width=o.width,
                output_type="latent",
            )
        finally:
            removable.remove()
        return {**caught, "return_dict": False}

    def noisy(self, latents: Tensor, timestep: int, chunk: list[int]) -> Tensor:
        """Latents at a noise level, each prompt with a noise of its own."""
        mixed = noised(latents, timestep, self.pipe.scheduler.alphas_cumprod, seeds=chunk)
        return mixed.to(self.options.device, self.pipe.unet.dtype)

    @torch.no_grad()
    def outputs(self, chunk: list[int], conditions: dict[str, Any]) -> Tensor:
        """The denoiser's outputs at every noise level, (levels, B, C, height, width)."""
        unet = self.pipe.unet
        return denoiser_outputs(
            lambda x, timestep: unet(x, timestep, **conditions)[0],
            self.reference(chunk)["latents"].to(self.options.device, unet.dtype),
            self.pipe.scheduler.alphas_cumprod,
            timesteps=self.timesteps,
            seeds=chunk,
        )
