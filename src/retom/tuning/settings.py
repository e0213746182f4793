"""What is tuned for, and how much is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retom.checks import check_choice
from retom.config import SCOPES
from retom.errors import ConfigError
from retom.evaluation.settings import Settings as Measured
from retom.rules import check_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.rules import Levels

METHODS = ("retom", "retom:reach=0")
RATIOS = (0.15, 0.3, 0.5, 0.7, 0.85)
MOST_DB = 60.0
"""Above this a picture of 8 bits is as good as equal, and a target says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One target, and what the measurements behind the schedule depend on.

    Args:
        prompts: Texts, each once; the first ``tuning`` of them are tuned on, the next
            ``verification`` only judged on.
        target_speedup: How many times as fast the denoiser is to be over a whole picture.
        target_psnr: Mean PSNR in dB of merged pictures to un-merged ones of the same seed. One of
            the two targets is given.
        methods: Specifications as in :mod:`retom.evaluation.specs`, candidates for every level and
            stretch of noise.
        ratios: Of each of them; methods whose windows fix the ratio run at theirs alone.
        scope: As in :class:`retom.Config`.
        levels: Attention levels that may merge.
        plateaus: Stretches of noise that choose for themselves; as many steps in each as can be.
        tuning: Prompts to tune on.
        verification: Prompts to judge on.
        seed: Of the noise.
        steps: Denoising steps; the model's own for None, as with the next three.
        guidance: Classifier-free guidance scale.
        height: In pixels.
        width: In pixels.
        rounds: Timed rounds; in each every candidate runs once.
        batch: Prompts drawn at once, even.
        thorough: Draw pictures with every candidate on every level and stretch of noise, not with
            one of them and the denoiser's error for the others.

    Raises:
        ConfigError: Not exactly one target is given, or a value is out of its range.
    """

    prompts: Sequence[str]
    target_speedup: float | None = None
    target_psnr: float | None = None
    methods: Sequence[str] = METHODS
    ratios: Sequence[float] = RATIOS
    scope: str = "auto"
    levels: Levels = "all"
    plateaus: int = 4
    tuning: int = 4
    verification: int = 8
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    rounds: int = 7
    batch: int = 4
    thorough: bool = False

    def __post_init__(self) -> None:
        check_target(self.target_speedup, self.target_psnr)
        check_choice("scope", self.scope, SCOPES)
        object.__setattr__(self, "levels", check_levels(self.levels))
        for name in ("prompts", "methods"):
            given: Any = getattr(self, name)
            words = tuple(given) if not isinstance(given, str) else (given,)
            if not words or len(set(words)) < len(words):
                raise ConfigError(f"{name} are at least one and each once; {given!r} was given.")
            object.__setattr__(self, name, words)
        for name, least in {"plateaus": 1, "tuning": 2, "verification": 2, "rounds": 3}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"{name} is a whole number of at least {least}; {value!r} was given."
                )
        needed = self.tuning + self.verification
        if len(self.prompts) < needed:
            raise ConfigError(
                f"Tuning takes {self.tuning} prompts and judging {self.verification} others, "
                f"{needed} in all; {len(self.prompts)} different ones were given. Give more, or "
                "lower tuning or verification."
            )
        self.measured  # noqa: B018 - checks what the two have in common

    @property
    def measured(self) -> Measured:
        """The settings of the measurements on the prompts to tune on.

        Raises:
            ConfigError: A value is out of its range.
        """
        return Measured(
            prompts=self.prompts[: self.tuning],
            seeds=(self.seed,),
            ratios=self.ratios,
            scopes=(self.scope,),
            levels=self.levels,
            steps=self.steps,
            guidance=self.guidance,
            height=self.height,
            width=self.width,
            batch=self.batch,
            rounds=self.rounds,
        )

    @property
    def judged(self) -> tuple[str, ...]:
        """The prompts to judge on: none that was tuned on."""
        return tuple(self.prompts[self.tuning : self.tuning + self.verification])

    @property
    def target(self) -> str:
        """The target in words."""
        if self.target_speedup is not None:
            return f"{self.target_speedup:g} times as fast"
        return f"{self.target_psnr:g} dB PSNR"


def check_target(speedup: object, psnr: object) -> None:
    """Refuse what is no target, before a model is loaded.

    Raises:
        ConfigError: Not exactly one of the two is given, or it is out of its range.
    """
    if (speedup is None) == (psnr is None):
        given = "neither was" if speedup is None else "both were"
        raise ConfigError(
            "Tuning has one target, target_speedup such as 1.3 or target_psnr such as 30; "
            f"{given} given."
        )
    if speedup is not None and not _between(speedup, 1, math.inf):
        raise ConfigError(f"target_speedup is a number above 1; {speedup!r} was given.")
    if psnr is not None and not _between(psnr, 0, MOST_DB):
        raise ConfigError(
            f"target_psnr is in dB, above 0 and below {MOST_DB:g}, from where pictures are as good "
            f"as equal; {psnr!r} was given."
        )


def _between(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low < float(value) < high  # pyright: ignore[reportArgumentType]
