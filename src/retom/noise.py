"""Ranges of noise: at which part of a picture's steps something holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from retom.errors import ConfigError

Noise = tuple[float, float]
"""(low, high) with 0 <= low <= high <= 1: 1 is pure noise, 0 the picture."""

_ROUNDING = 1e-6

EVERY: Noise = (0.0, 1.0)
"""Every noise level there is."""


def within(noise: float | None, where: Noise) -> bool:
    """Whether a range holds at a noise level; None, none in particular, is in ``EVERY`` alone."""
    return where == EVERY or (noise is not None and where[0] <= noise <= where[1])


def check_noise_level(noise: float) -> float:
    """Return the noise level of a call, between 0 and 1 if it was so but for rounding.

    Raises:
        ConfigError: Merging by noise could not say where it stands: the scheduler's timesteps are
            none of training, such as those of EDM, which are logarithms.
    """
    if not -_ROUNDING <= noise <= 1 + _ROUNDING:
        raise ConfigError(
            f"A call of the denoiser came at a noise level of {noise:.4g}, and merging by noise "
            "knows 0, the picture, to 1, pure noise. Schedulers that tell the denoiser something "
            "else than timesteps of training, such as EDM's, cannot be followed: use another one, "
            "or merge at every noise level, noise=(0.0, 1.0) and no rules by noise."
        )
    return min(max(noise, 0.0), 1.0)


def check_noise(noise: object) -> Noise:
    """Return ``noise`` as two floats, or raise :class:`ConfigError` with what is allowed."""
    given = tuple(cast("Sequence[object]", noise)) if isinstance(noise, (tuple, list)) else ()
    numbers = [float(x) for x in given if isinstance(x, (int, float)) and type(x) is not bool]
    if len(given) != 2 or len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1:
        raise ConfigError(
            "noise is (low, high) with 0 <= low <= high <= 1, where 1 is pure noise; "
            f"{noise!r} was given. Use for example noise=(0.2, 1.0) for all but the last steps."
        )
    return numbers[0], numbers[1]
