"""One call of a pipeline's denoiser, caught so that it can be made again on other latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retom.errors import ModelError
from retom.models import find_denoiser, find_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Ready = Callable[[nn.Module], Tensor]
    """A call that lacks nothing but the denoiser."""

_LATENTS = ("sample", "hidden_states")


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """What a pipeline hands its denoiser for some prompts.

    Attributes:
        args: By position; latents and timestep first where they come by position.
        kwargs: By name.
        scale: The denoiser's timestep over the scheduler's.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    scale: float

    def __call__(self, denoiser: nn.Module, latents: Tensor, timestep: int) -> Tensor:
        """The denoiser's output, on these latents at this timestep.

        Args:
            denoiser: The network, merged or not.
            latents: Of the caught call's shape; converted to its dtype and device.
            timestep: Of the scheduler.
        """
        return self.at(latents, timestep)(denoiser)

    def at(self, latents: Tensor, timestep: int) -> Ready:
        """The call on these latents at this timestep, the very same objects each time it is made.

        Merging takes a timestep that comes again as the same object for the same step of one
        picture, and as another object for the next picture.
        """
        args = list(self.args)
        kwargs: dict[str, Any] = {**self.kwargs, "return_dict": False}
        held = args[0] if args else kwargs[self._name()]
        x = latents.to(held.device, held.dtype)
        if args:
            args[0] = x
        else:
            kwargs[self._name()] = x
        before = args[1] if len(args) > 1 else kwargs["timestep"]
        t = torch.full_like(torch.as_tensor(before), timestep * self.scale)
        if len(args) > 1:
            args[1] = t
        else:
            kwargs["timestep"] = t

        @torch.no_grad()
        def ready(denoiser: nn.Module) -> Tensor:
            return denoiser(*args, **kwargs)[0]

        return ready

    def _name(self) -> str:
        return next(name for name in _LATENTS if name in self.kwargs)


def catch_call(
    pipe: Any,  # noqa: ANN401
    prompts: list[str],
    *,
    guidance: float = 1.0,
    **options: Any,  # noqa: ANN401
) -> DenoiserCall:
    """Run a pipeline for one step, and keep what its denoiser got first.

    Args:
        pipe: A diffusers text-to-image pipeline.
        prompts: One a sample.
        guidance: Its guidance scale; 1 for none.
        **options: Of the pipeline, such as height and width.

    Raises:
        ModelError: The denoiser is not called with latents and a timestep.
    """
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append((args, dict(kwargs)))

    entry = find_entry(pipe)
    removable = entry.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        pipe(
            prompt=prompts,
            num_inference_steps=1,
            guidance_scale=guidance,
            output_type="latent",
            **options,
        )
    finally:
        removable.remove()
    args, kwargs = caught[0] if caught else ((), {})
    timestep = args[1] if len(args) > 1 else kwargs.get("timestep")
    if not (args or any(name in kwargs for name in _LATENTS)) or timestep is None:
        raise ModelError(
            f"{type(pipe).__name__} calls its {type(find_denoiser(pipe)).__name__} without latents "
            "or without a timestep, so that it cannot be screened: measure pictures alone."
        )
    first = float(pipe.scheduler.timesteps[0])
    value = float(torch.as_tensor(timestep).flatten()[0])
    return DenoiserCall(args, kwargs, value / first if first else 1.0)
