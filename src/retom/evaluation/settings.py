"""What an evaluation measures: everything that its numbers depend on, beside the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retom.checks import check_choice
from retom.config import SCOPES
from retom.errors import ConfigError
from retom.metrics.denoiser_error import NUM_LEVELS
from retom.rules import check_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.rules import Levels

STAGES: tuple[str, ...] = ("screening", "timing", "pictures")
SEED_STRIDE = 1_000_003
"""Noise of prompt i at seed s: s x this + i, so that no two samples share their noise."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to draw.

    Attributes:
        prompt: Its text.
        seed: Of its noise.
        group: Place of the prompt in the list. Intervals are over prompts: the seeds of one prompt
            are no independent samples.
    """

    prompt: str
    seed: int
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured. A model's own defaults stand for None.

    Args:
        prompts: Texts, at least two, each once.
        seeds: Each draws every prompt once.
        ratios: Fractions of the tokens to remove; methods whose windows fix the ratio run at theirs
            alone.
        scopes: As in :class:`retom.Config`; ``auto`` is the one that it means on the model.
        levels: As in :class:`retom.Config`.
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        height: Of a picture, in pixels.
        width: Of a picture, in pixels.
        noise_levels: Timesteps of the screening, spread evenly over the schedule.
        screened: How many of the prompts are screened, the first ones at the first seed; all for
            None. Pictures are of all prompts.
        batch: Prompts drawn at once; even, because tomesd drops its random choice at an odd batch.
        best: How many contenders of each ratio and scope go on from the screening to pictures.
        rounds: Timed pairs of denoiser calls.
        stages: Which of :data:`STAGES` to measure; none sums up what is there.

    Raises:
        ConfigError: A value is out of its range.
    """

    prompts: Sequence[str]
    seeds: Sequence[int] = (0,)
    ratios: Sequence[float] = (0.5,)
    scopes: Sequence[str] = ("auto",)
    levels: Levels = (0,)
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    noise_levels: int = NUM_LEVELS
    screened: int | None = None
    batch: int = 8
    best: int = 4
    rounds: int = 9
    stages: Sequence[str] = STAGES

    def __post_init__(self) -> None:
        for name in ("prompts", "seeds", "ratios", "scopes", "stages"):
            given: Any = getattr(self, name)
            values = tuple(given) if not isinstance(given, str) else (given,)
            if (not values and name != "stages") or len(set(values)) < len(values):
                raise ConfigError(f"{name} are at least one and each once; {given!r} was given.")
            object.__setattr__(self, name, values)
        if len(self.prompts) < 2:
            raise ConfigError("An evaluation needs at least 2 prompts, for an interval over them.")
        for scope in self.scopes:
            check_choice("scope", scope, SCOPES)
        for stage in self.stages:
            check_choice("stage", stage, STAGES)
        object.__setattr__(self, "levels", check_levels(self.levels))
        self._check_numbers()

    def _check_numbers(self) -> None:
        for ratio in self.ratios:
            if not 0 < ratio < 1:
                raise ConfigError(
                    f"ratios are above 0 and below 1; {ratio!r} was given. Un-merged is always "
                    "part of an evaluation."
                )
        least = {
            "steps": 1, "noise_levels": 1, "screened": 2, "batch": 2, "best": 0, "rounds": 2,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < low):
                raise ConfigError(
                    f"{name} is a whole number of at least {low}; {value!r} was given."
                )
        if self.screened is not None and self.screened > len(self.prompts):
            raise ConfigError(
                f"screened is how many of the prompts are screened, at most all "
                f"{len(self.prompts)}; {self.screened} was given."
            )
        if self.batch % 2:
            raise ConfigError(
                f"batch is even, because tomesd drops its random choice at odd batch sizes; "
                f"{self.batch} was given."
            )
        if any(type(seed) is not int or not 0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError(
                f"seeds are whole numbers from 0 to 2**31 - 1; {self.seeds!r} was given."
            )
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise ConfigError(f"guidance is a number of at least 0; {self.guidance!r} was given.")

    def chunks(self, *, other: bool = False) -> list[tuple[Sample, ...]]:
        """Samples in batches, seed by seed, so that one more seed adds batches and changes none.

        Args:
            other: The same prompts at seeds that are not in ``seeds``: the noise floor.
        """
        return [chunk for seed in self.seeds for chunk in self._batches(seed, None, other=other)]

    def screening_chunks(self, *, other: bool = False) -> list[tuple[Sample, ...]]:
        """Samples of the screening in batches: the first seed's alone.

        Args:
            other: As in :meth:`chunks`.
        """
        return self._batches(self.seeds[0], self.screened, other=other)

    def _batches(self, seed: int, prompts: int | None, *, other: bool) -> list[tuple[Sample, ...]]:
        shift = max(self.seeds) + 1 if other else 0
        samples = [
            Sample(prompt, (seed + shift) * SEED_STRIDE + place, place)
            for place, prompt in enumerate(self.prompts[:prompts])
        ]
        starts = range(0, len(samples), self.batch)
        return [tuple(samples[start : start + self.batch]) for start in starts]
