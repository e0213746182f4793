"""A pipeline under study: its pictures and its denoiser's outputs, each made once and kept."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

import retom
from retom.config import Config
from retom.drawing.failing import failures_of
from retom.errors import ConfigError
from retom.evaluation.denoiser_call import DenoiserCall, catch_call
from retom.evaluation.fingerprint import fingerprint
from retom.evaluation.guided_call import GuidedCall, catch_guided_call
from retom.evaluation.noise import noiser_of, schedule_length
from retom.evaluation.provenance import version_of
from retom.evaluation.store import key_of
from retom.evaluation.tokens import Tokens, tokens_in_layers
from retom.evaluation.windows import window_period
from retom.metrics import noise_levels
from retom.models import find_denoiser, find_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retom.drawing.loading import Model
    from retom.evaluation.contenders import Contender
    from retom.evaluation.settings import Sample, Settings
    from retom.evaluation.store import Store


class Subject:
    """A model, what it is asked to draw, and the folder that keeps what it drew.

    Args:
        model: A pipeline without merging applied.
        settings: What is measured.
        store: Open.

    Raises:
        ConfigError: The model names no size of its own, and the settings give none.
    """

    def __init__(self, model: Model, settings: Settings, store: Store) -> None:
        self.pipe = model.pipe
        self.name = model.name
        self.device = model.device
        self.store = store
        self.settings = settings
        size = model.default_size or (None, None)
        height, width = settings.height or size[0], settings.width or size[1]
        if height is None or width is None:
            raise ConfigError(f"{model.name} names no size of its own; give height and width.")
        self.height, self.width = height, width
        guidance = model.guidance if settings.guidance is None else settings.guidance
        self.content: dict[str, Any] = {
            "retom": retom.__version__,
            "torch": torch.__version__,
            "diffusers": version_of("diffusers"),
            "model": fingerprint(model.pipe),
            "device": model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "steps": settings.steps or model.steps,
            "guidance": guidance,
            "height": height,
            "width": width,
        }
        self.timesteps = noise_levels(schedule_length(self.pipe.scheduler), settings.noise_levels)

    # ---- pictures

    def drawing(self, samples: Sequence[Sample], contender: Contender | None) -> dict[str, Any]:
        """What some pictures depend on."""
        merging = {} if contender is None else {"code": contender.code}
        return {
            **self.content,
            "samples": [[sample.prompt, sample.seed] for sample in samples],
            "merging": None if contender is None else contender.content(),
            **merging,
        }

    def pictures_key(self, samples: Sequence[Sample], contender: Contender | None) -> str:
        """Name of some pictures."""
        return key_of("pictures", self.drawing(samples, contender))

    def drawn(self, samples: Sequence[Sample], contender: Contender | None = None) -> str:
        """Draw what is not drawn yet; the name under which the store has it."""
        key = self.pictures_key(samples, contender)
        if not self.store.has_pictures(key):
            latents, pictures = self._draw(samples, contender)
            if contender is None:
                self.store.tensors(self._latents_key(samples), lambda: {"latents": latents})
            self.store.add_pictures(key, pictures)
        return key

    def latents(self, samples: Sequence[Sample]) -> Tensor:
        """Final latents of un-merged pictures, (B, ...)."""
        for chunk in (*self.settings.chunks(), *self.settings.chunks(other=True)):
            if len(samples) < len(chunk) and tuple(samples) == chunk[: len(samples)]:
                return self.latents(chunk)[: len(samples)]  # rather than draw them once more

        def make() -> dict[str, Tensor]:
            return {"latents": self._draw(samples, None)[0]}

        self.drawn(samples)
        return self.store.tensors(self._latents_key(samples), make)["latents"]

    def _latents_key(self, samples: Sequence[Sample]) -> str:
        return key_of("latents", self.drawing(samples, None))

    def _draw(
        self, samples: Sequence[Sample], contender: Contender | None
    ) -> tuple[Tensor, Tensor]:
        """Final latents (B, ...), and pictures, uint8 (B, 3, H, W)."""
        last: dict[str, Tensor] = {}

        def keep(_pipe: object, _i: object, _t: object, given: dict[str, Any]) -> dict[str, Any]:
            last["latents"] = given["latents"]
            return given

        merging = nullcontext() if contender is None else contender.applied(self.pipe)
        with failures_of(self.name), merging:
            pictures = self.pipe(
                prompt=[sample.prompt for sample in samples],
                generator=[torch.Generator().manual_seed(sample.seed) for sample in samples],
                num_inference_steps=self.content["steps"],
                guidance_scale=self.content["guidance"],
                height=self.height,
                width=self.width,
                output_type="pt",
                callback_on_step_end=keep,
            )[0]
        return last["latents"], (255 * pictures.float().clamp(0, 1)).round().byte()

    # ---- the denoiser

    def call_of(self, samples: Sequence[Sample]) -> DenoiserCall:
        """What the denoiser gets for these prompts, guidance off."""
        return catch_call(self.pipe, [sample.prompt for sample in samples], **self._size())

    def guided_call_of(self, samples: Sequence[Sample], alone: DenoiserCall) -> GuidedCall:
        """What the denoiser gets for these prompts with guidance.

        Args:
            samples: They.
            alone: What it gets for them without.

        Raises:
            ConfigError: Pictures are drawn without guidance, or one half after the other.
        """
        guidance = self.content["guidance"]
        if guidance <= 1:
            raise ConfigError(
                "Methods that compare the halves of classifier-free guidance need a guidance "
                f"above 1; it is {guidance:g}. Give another, or leave them out."
            )
        prompts = [sample.prompt for sample in samples]
        return catch_guided_call(self.pipe, prompts, guidance=guidance, alone=alone, **self._size())

    def _size(self) -> dict[str, int]:
        return {"height": self.height, "width": self.width}

    def noisy(self, samples: Sequence[Sample], timestep: int) -> Tensor:
        """Un-merged latents at a noise level, each sample with a noise of its own."""
        noiser = noiser_of(self.pipe.scheduler)
        return noiser(self.latents(samples), timestep, [sample.seed for sample in samples])

    def outputs(
        self,
        samples: Sequence[Sample],
        contender: Contender | None,
        call: DenoiserCall | GuidedCall,
    ) -> Tensor:
        """The denoiser's outputs at every noise level, (levels, B, ...), float32 on the CPU."""
        entry = find_entry(self.pipe)
        noisy = [(self.noisy(samples, t), t) for t in self.timesteps]  # may draw, and un-merged
        with nullcontext() if contender is None else contender.applied(self.pipe):
            found = [call(entry, x, t).float().cpu() for x, t in noisy]
        return torch.stack(found)

    def tokens(
        self, samples: Sequence[Sample], contender: Contender, call: DenoiserCall | GuidedCall
    ) -> Tokens:
        """Tokens in every linear layer, at the least, the middle and the most noise."""
        entry = find_entry(self.pipe)
        levels = sorted({0, len(self.timesteps) // 2, len(self.timesteps) - 1})
        noisy = [(self.noisy(samples, self.timesteps[i]), self.timesteps[i]) for i in levels]

        def run() -> None:
            for x, timestep in noisy:
                call.at(x, timestep)(entry)

        with contender.applied(self.pipe):
            return tokens_in_layers(find_denoiser(self.pipe), run)

    def period_of(self, contender: Contender) -> tuple[int, int] | None:
        """(height, width) in pixels of the windows on the largest grid that merges, if it has any.

        See :func:`~retom.evaluation.windows.window_period`.
        """
        return window_period(
            find_denoiser(self.pipe),
            contender.merging.method if isinstance(contender.merging, Config) else None,
            levels=getattr(contender.merging, "levels", "all"),
            size=(self.height, self.width),
            scale=int(self.pipe.vae_scale_factor),
        )
