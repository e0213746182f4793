"""One call of a denoiser with both halves of guidance, for methods that compare the two.

What such a method needs it learns from the call before: so each call is made twice, and the second
counts. In a picture the call before is that of the step before, whose halves differ much alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from retom.errors import ConfigError
from retom.evaluation.denoiser_call import DenoiserCall, catch_call

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retom.evaluation.denoiser_call import Ready


@dataclass(frozen=True, slots=True)
class GuidedCall:
    """What a pipeline hands its denoiser for some prompts and against them, in one batch.

    Attributes:
        both: The call of 2 B samples.
        half: Which half is that of the prompts, 0 or 1.
    """

    both: DenoiserCall
    half: int

    def __call__(self, denoiser: nn.Module, latents: Tensor, timestep: int) -> Tensor:
        """The denoiser's output for the prompts, (B, ...), of the second of two equal calls.

        Args:
            denoiser: The network, merged or not.
            latents: (B, ...), the same for both halves.
            timestep: Of the scheduler.
        """
        ready = self.at(latents, timestep)
        ready(denoiser)
        return ready(denoiser)

    def at(self, latents: Tensor, timestep: int) -> Ready:
        """A single call on these latents at this timestep; its output is that for the prompts."""
        both = self.both.at(torch.cat([latents, latents]), timestep)
        return lambda denoiser: both(denoiser).chunk(2)[self.half]


def catch_guided_call(
    pipe: Any,  # noqa: ANN401
    prompts: list[str],
    *,
    guidance: float,
    alone: DenoiserCall,
    **options: Any,  # noqa: ANN401
) -> GuidedCall:
    """Run a pipeline for one step with guidance, and keep what its denoiser got.

    Args:
        pipe: A diffusers text-to-image pipeline.
        prompts: One a sample.
        guidance: Its guidance scale, above 1.
        alone: What its denoiser gets for the same prompts without guidance: tells the halves apart.
        **options: Of the pipeline, such as height and width.

    Raises:
        ConfigError: The pipeline does not run both halves in one batch, or the halves are alike.
    """
    both = catch_call(pipe, prompts, guidance=guidance, **options)
    shown = _tensors(both)
    apart = [0.0, 0.0]
    doubled = False
    for name, value in _tensors(alone).items():
        found = shown.get(name)
        if found is None or found.shape != (2 * len(value), *value.shape[1:]):
            continue
        doubled = True
        for place, half in enumerate(found.chunk(2)):
            apart[place] += float((half.float() - value.float()).abs().mean())
    if not doubled:
        raise ConfigError(
            "Methods that compare the halves of classifier-free guidance need both in one batch; "
            f"{type(pipe).__name__} does not run so at guidance {guidance:g}. Leave them out, or "
            "give a guidance above 1."
        )
    if apart[0] == apart[1]:
        raise ConfigError(
            "With and without the prompt this model gets the same text, so that guidance says "
            "nothing: use prompts that are not empty."
        )
    return GuidedCall(both, 0 if apart[0] < apart[1] else 1)


def _tensors(call: DenoiserCall) -> dict[str, Tensor]:
    """Batches among the arguments after latents and timestep, which say nothing of the prompts."""
    given: dict[str, object] = {str(place): arg for place, arg in enumerate(call.args) if place > 1}
    given |= {k: v for k, v in call.kwargs.items() if k not in _OF_THE_STEP}
    nested = [cast("dict[str, object]", v) for v in given.values() if isinstance(v, dict)]
    for one in nested:
        given |= one
    return {k: v for k, v in given.items() if isinstance(v, torch.Tensor) and v.ndim >= 2}


_OF_THE_STEP = ("sample", "hidden_states", "timestep")
