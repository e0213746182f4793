"""What the halves of classifier-free guidance say about a picture: where the prompt matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import adaptive_avg_pool2d

from retom.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid


@dataclass(slots=True, eq=False)
class Guidance:
    """Remembers, from one call to the next, how much the denoiser's two halves differed.

    Attributes:
        difference: Mean absolute difference over channels of the last call's outputs with and
            without the prompt, float32 (B / 2, height, width); None before the first.
    """

    difference: Tensor | None = None

    def forget(self) -> None:
        """Begin another picture."""
        self.difference = None

    def comes(self, sample: object) -> None:
        """Look at a call's input, (B, C, height, width), before it; waits for its device.

        That a batch holds both halves is not read off its size: both get the same noisy latents.

        Raises:
            ConfigError: The input is no feature map, or does not hold both halves of guidance.
        """
        if not isinstance(sample, torch.Tensor) or sample.ndim != 4:
            kind = type(sample).__name__
            if isinstance(sample, torch.Tensor):
                kind = f"a tensor of shape {tuple(sample.shape)}"
            raise ConfigError(
                "Importance needs a denoiser whose input is a tensor (batch, channels, height, "
                f"width); this one was given {kind}. Use another method."
            )
        half = len(sample) // 2
        if len(sample) % 2 or not torch.equal(sample[:half], sample[half:]):
            raise ConfigError(
                "Importance is how much the denoiser's output differs with and without the prompt: "
                "each call must hold both halves of classifier-free guidance, that is the same "
                f"latents twice. This call's batch of {len(sample)} does not: the pipeline runs "
                "without guidance, or calls one half after the other. Use guidance_scale > 1 with "
                "both halves in one batch, or another method."
            )
        if self.difference is not None and len(self.difference) != half:
            self.forget()  # another batch of pictures

    def ends(self, output: object) -> None:
        """Keep the difference of a call's output, a tuple or an object with ``sample``.

        Raises:
            ConfigError: It is no denoiser's.
        """
        held = cast("object", getattr(output, "sample", None))
        sample = cast("object", output[0]) if isinstance(output, tuple) else held
        if not isinstance(sample, torch.Tensor) or sample.ndim != 4:
            kind = type(cast("object", output)).__name__
            raise ConfigError(
                "Importance needs a denoiser whose output is a tensor (batch, channels, height, "
                f"width); this one returned {kind}. Use another method."
            )
        one, other = sample.detach().float().chunk(2)
        self.difference = (one - other).abs().mean(dim=1)

    def importance(self, grid: Grid, batch: int) -> Tensor | None:
        """The difference at every token, float32 (B, N), alike for both halves; None at first.

        Args:
            grid: Height and width of the tokens.
            batch: Items of the call, B.
        """
        if self.difference is None or 2 * len(self.difference) != batch:
            return None
        pooled = adaptive_avg_pool2d(self.difference[:, None], (grid.height, grid.width))
        return pooled.flatten(1).repeat(2, 1)
