"""What a benchmark measures, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retom.checks import check_choice
from retom.config import SCOPES
from retom.errors import ConfigError
from retom.rules import check_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retom.rules import Levels

PARTS = ("auto", "layer", "block", "denoiser", "picture")
"""What one timed call is; ``auto`` is the denoiser where it fits into memory, else blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured. A model's own defaults stand for None.

    Args:
        sizes: (height, width) of pictures in pixels, each once.
        methods: Specifications, see :mod:`retom.evaluation.specs`; ``unmerged`` and ``oracle`` may
            be named, and always take part. None:
            :func:`~retom.benchmarking.lineup.default_methods`.
        ratios: Fractions of the tokens to remove; methods whose windows fix the ratio run at
            theirs alone.
        scopes: As in :class:`retom.Config`.
        levels: As in :class:`retom.Config`.
        part: One of :data:`PARTS`.
        rounds: Timed rounds; in each every contender runs once.
        batch: Pictures in a call of the denoiser. None: 2, which one picture with guidance takes,
            or 1 for a model that has guidance distilled into it.
        seed: Of random weights, inputs, tomesd's draws and the bootstrap.
        compiled: Whether ``torch.compile`` compiles every contender.
        steps: Denoising steps, for part ``picture``.
        guidance: Guidance scale, for part ``picture``.

    Raises:
        ConfigError: A value is out of its range.
    """

    sizes: Sequence[tuple[int, int]] | None = None
    methods: Sequence[str] | None = None
    ratios: Sequence[float] = (0.5,)
    scopes: Sequence[str] = ("auto",)
    levels: Levels = (0,)
    part: str = "auto"
    rounds: int = 11
    batch: int | None = None
    seed: int = 0
    compiled: bool = False
    steps: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        for name in ("sizes", "methods", "ratios", "scopes"):
            given: Any = getattr(self, name)
            if given is None:
                continue
            values = tuple(given) if not isinstance(given, str) else (given,)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name} are at least one and each once; {given!r} was given.")
            object.__setattr__(self, name, values)
        for ratio in self.ratios:
            if not 0 < ratio < 1:
                raise ConfigError(
                    f"ratios are above 0 and below 1; {ratio!r} was given. Un-merged is always "
                    "part of a benchmark."
                )
        for scope in self.scopes:
            check_choice("scope", scope, SCOPES)
        check_choice("part", self.part, PARTS)
        object.__setattr__(self, "levels", check_levels(self.levels))
        for name, low in {"rounds": 2, "batch": 1, "seed": 0, "steps": 1}.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < low):
                raise ConfigError(
                    f"{name} is a whole number of at least {low}; {value!r} was given."
                )
